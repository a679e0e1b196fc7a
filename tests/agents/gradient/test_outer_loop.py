"""Outer rules: what they promise of a step, recomputed by hand."""

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from metarl.agents.gradient.inner_loop import FixedRate
from metarl.agents.gradient.outer_loop import (
    Averaging,
    Exploration,
    MetaProblem,
    TrustRegion,
    expected_return,
)
from metarl.agents.gradient.pg_batch import PGBatch
from metarl.agents.gradient.proximal import Proximal
from metarl.errors import NonFiniteError
from tests.adaptation_by_definition import Case, gradient_by_autograd

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = [
    Case(hidden_sizes=(2,), num_tasks=2),
    Case(hidden_sizes=(2,), num_tasks=2, box=True, estimator="lvc", inner_steps=2, rate=0.2),
    Case(hidden_sizes=(2,), num_tasks=2, box=True, learnt_rates=True),
    Case(hidden_sizes=(2,), num_tasks=2, estimator="dice", learnt_rates=True),
    Case(hidden_sizes=(2,), num_tasks=2, inner_steps=0),
    Case(hidden_sizes=(2,), num_tasks=2, first_order=True),
    Case(
        hidden_sizes=(2,),
        num_tasks=2,
        inner_steps=2,
        multi_step_loss=True,
        shared_advantage_scale=True,
        later_lr_scale=0.5,
    ),
]
ONE = Case(box=True, hidden_sizes=(3,))


def meta_problem(case: Case) -> tuple[MetaProblem, Tensor, list[PGBatch]]:
    lessons = case.lessons()
    return case.meta_problem(lessons), case.vector(), lessons


def trust_region(**options: object) -> TrustRegion:
    defaults = {
        "objective": expected_return,
        "max_divergence": 0.01,
        "steps": 10,
        "damping": 1e-5,
        "search_steps": 15,
        "shrink": 0.8,
    }
    return TrustRegion(**defaults | options)


def hessian_of_divergence(case: Case, vector: Tensor, lessons: list[PGBatch]) -> Tensor:
    """Full, [Q, Q], by autograd through the inner steps."""
    at = vector.clone().requires_grad_()
    divergence = case.outer_divergence(vector.clone(), at, lessons)
    (gradient,) = torch.autograd.grad(divergence, at, create_graph=True)
    rows = [torch.autograd.grad(each, at, retain_graph=True)[0] for each in gradient]
    return torch.stack(rows)


@pytest.mark.parametrize("case", CASES)
def test_a_full_step_solves_for_the_gradient_and_is_as_long_as_allowed(case):
    problem, vector, lessons = meta_problem(case)
    hessian, axes = hessian_of_divergence(case, vector, lessons), torch.eye(len(vector)).double()
    assert hessian.norm() > 0.1
    product = trust_region(damping=0.1)._curvature(problem, problem.adapt(vector))
    curvature = hessian + 0.1 * axes
    found = torch.stack([product(axis) for axis in axes])
    torch.testing.assert_close(found, curvature, rtol=1e-8, atol=1e-10)

    loss, gradient = gradient_by_autograd(lambda at: case.expected_return(at, lessons), vector)
    way = torch.linalg.solve(curvature, gradient)
    step = way * (2 * 1e-6 / (way @ curvature @ way)).sqrt()
    judging = {
        "multi_step_loss": case.multi_step_loss,
        "shared_advantage_scale": case.shared_advantage_scale,
    }
    rule = trust_region(max_divergence=1e-6, damping=0.1, steps=500, **judging)
    moved, report = rule.update(problem, vector)
    assert report["line_search_share"] == 1.0
    torch.testing.assert_close(moved, vector - step, rtol=0, atol=1e-7)
    assert step.abs().max() > 1e-4
    assert report["outer_loss"] == pytest.approx(loss)
    assert report["grad_norm"] == pytest.approx(float(gradient.norm()))


def test_the_curvature_may_be_measured_on_fewer_copies():
    problem, vector, lessons = meta_problem(ONE)
    hessian, axes = hessian_of_divergence(ONE, vector, lessons), torch.eye(len(vector)).double()
    here, found = problem.adapt(vector), {}
    for copies in (None, 4, 3):
        product = trust_region(damping=0.0, rollouts_per_task=copies)._curvature(problem, here)
        found[copies] = torch.stack([product(axis) for axis in axes])
    torch.testing.assert_close(found[None], hessian, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found[4], found[None], rtol=1e-12, atol=1e-12)  # all there are
    assert not torch.allclose(found[3], found[None], rtol=0.05)
    torch.testing.assert_close(found[3], found[3].T)
    assert torch.linalg.eigvalsh(found[3]).min() > -1e-10


@pytest.mark.parametrize("case", CASES)
def test_an_accepted_step_keeps_the_bound_and_lowers_the_objective(case):
    problem, vector, lessons = meta_problem(case)
    judging = {
        "multi_step_loss": case.multi_step_loss,
        "shared_advantage_scale": case.shared_advantage_scale,
    }
    moved, report = trust_region(damping=0.01, **judging).update(problem, vector)
    before, after = (objective_by_hand(case, at, lessons) for at in (vector, moved))
    divergence = divergence_by_hand(case, vector, moved, lessons)
    assert 0 < divergence <= 0.01
    assert after < before
    assert report["outer_kl"] == pytest.approx(divergence, rel=1e-6)
    assert report["outer_improvement"] == pytest.approx(before - after, rel=1e-6)


@pytest.mark.parametrize("bound", [0.5, 20.0])
def test_the_longest_candidate_that_is_good_enough_is_taken(bound):
    problem, vector, lessons = meta_problem(ONE)
    moved, report = trust_region(max_divergence=bound, damping=0.01).update(problem, vector)
    tried, share = report["line_search_tried"], report["line_search_share"]
    assert tried > 1
    assert share == pytest.approx(0.8 ** (tried - 1))
    before = objective_by_hand(ONE, vector, lessons)
    for shorter in range(int(tried)):
        candidate = vector + 0.8**shorter * (moved - vector) / share
        divergence = divergence_by_hand(ONE, vector, candidate, lessons)
        good = objective_by_hand(ONE, candidate, lessons) < before and divergence <= bound
        assert good == (shorter == tried - 1)


def objective_by_hand(case: Case, vector: Tensor, lessons: list[PGBatch]) -> float:
    return float(case.expected_return(vector.clone(), lessons).detach())


def divergence_by_hand(case: Case, old: Tensor, new: Tensor, lessons: list[PGBatch]) -> float:
    return float(case.outer_divergence(old.clone(), new.clone(), lessons).detach())


class Elsewhere:
    """The objective, and something else wherever the adapted policies are not those of before."""

    def __init__(self, problem: MetaProblem, vector: Tensor, otherwise: float) -> None:
        self._here = problem.adapt(vector).raw[-1]
        self._otherwise = otherwise

    def __call__(self, problem: MetaProblem, raw: Sequence[Tensor]) -> Tensor:
        loss = expected_return(problem, raw)
        return loss if torch.equal(raw[-1], self._here) else loss + self._otherwise


@pytest.mark.parametrize("otherwise", [math.nan, math.inf, 1.0])
def test_where_no_candidate_is_good_there_is_no_step(otherwise):
    problem, vector, _ = meta_problem(ONE)
    before = vector.clone()
    rule = trust_region(objective=Elsewhere(problem, vector, otherwise), search_steps=7)
    moved, report = rule.update(problem, vector)
    assert torch.equal(moved, before)
    assert torch.equal(vector, before)
    assert report["line_search_share"] == 0.0
    assert report["line_search_tried"] == 7
    assert report["outer_kl"] == report["outer_improvement"] == 0.0
    # The same with nothing wrong elsewhere does take a step.
    moved, report = trust_region(objective=Elsewhere(problem, vector, 0.0)).update(problem, vector)
    assert not torch.equal(moved, before)
    assert report["line_search_share"] > 0


def test_a_gradient_that_is_not_finite_is_an_error():
    problem, vector, _ = meta_problem(ONE)

    def broken(problem: MetaProblem, raw: Sequence[Tensor]) -> Tensor:
        return expected_return(problem, raw) * torch.nan

    with pytest.raises(NonFiniteError, match=r"TRPO's gradient is not finite \(\d+ of \d+ numbers"):
        trust_region(objective=broken).update(problem, vector)


def test_learnt_rates_stay_within_their_bounds():
    case = Case(learnt_rates=True, hidden_sizes=(3,))
    problem, vector, _ = meta_problem(case)
    vector[case.size :: 2] = 0.0
    vector[case.size + 1 :: 2] = 2 * case.rate
    moved, report = trust_region().update(problem, vector)
    rates, before = moved[case.size :], vector[case.size :]
    assert report["line_search_share"] > 0
    assert rates.min() == 0.0
    assert rates.max() == 2 * case.rate
    inside = (rates > 0) & (rates < 2 * case.rate)
    assert 0 < inside.sum() < case.size  # about half of them wanted to leave
    assert ((rates - before)[~inside] == 0).all()


def exploration_by_hand(case: Case, at: Tensor, lessons: list[PGBatch], weight: float) -> Tensor:
    returns = lessons[-1].episode_return
    worth = (returns - returns.mean()) / returns.std(correction=0)
    loss = case.expected_return(at, lessons)
    for task in range(case.num_tasks):
        log_prob = case.log_prob(at[: case.size], lessons[0], task)
        valid = lessons[0].valid[:, task]
        mean = (log_prob * valid).sum() / valid.sum()
        loss = loss - weight * worth[task] * mean / case.num_tasks
    return loss


@pytest.mark.parametrize("case", [ONE, Case(estimator="dice", inner_steps=2, hidden_sizes=(3,))])
def test_exploration_pays_the_first_policy_for_the_return_after_adaptation(case):
    problem, vector, lessons = meta_problem(case)
    here = problem.adapt(vector)
    loss, gradient = problem.differentiated(Exploration(0.6), here)
    wanted, by_hand = gradient_by_autograd(
        lambda at: exploration_by_hand(case, at, lessons, 0.6), vector
    )
    assert loss == pytest.approx(wanted)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-6, atol=1e-8)
    _, without = problem.differentiated(Exploration(0.0), here)
    torch.testing.assert_close(without, problem.differentiated(expected_return, here)[1])
    assert not torch.allclose(gradient, without)


def proximal(case: Case, **options: object) -> Proximal:
    defaults = {
        "inner_steps": case.inner_steps,
        "size": len(case.vector()),
        "clip_range": 0.2,
        "num_epochs": 4,
        "learning_rate": 0.02,
        "target": 0.01,
        "kl_coef": 0.5,
        "device": torch.device("cpu"),
    }
    rule = Proximal(**defaults | options)
    rule._vector.data = rule._vector.data.double()
    return rule


def clipped_by_hand(case: Case, old: Tensor, at: Tensor, lessons: list[PGBatch]) -> Tensor:
    """With a clip of 0.2 and a KL coefficient of 0.5."""
    loss = torch.zeros((), dtype=torch.float64)
    for task in range(case.num_tasks):
        params = case.phases(at, lessons, task)[-1]
        data = lessons[-1]
        ratio = (case.log_prob(params, data, task) - data.log_prob[:, task]).exp()
        advantage, valid = data.advantage[:, task], data.valid[:, task]
        gain = torch.where(
            advantage > 0, ratio.clamp(max=1.2) * advantage, ratio.clamp(min=0.8) * advantage
        )
        loss = loss - (gain * valid).sum() / valid.sum() / case.num_tasks
    for phase in range(case.inner_steps):
        loss = loss + 0.5 * case.divergence(old, at, lessons, phase)
    return loss


@pytest.mark.parametrize(
    "case",
    [ONE, Case(estimator="lvc", inner_steps=2, hidden_sizes=(2,), num_tasks=2, learnt_rates=True)],
)
def test_promp_takes_steps_of_adam_on_its_clipped_and_penalised_objective(case):
    problem, vector, lessons = meta_problem(case)
    vector[case.size :: 2] = 2 * case.rate  # where rates are kept below
    moved, report = proximal(case).update(problem, vector)

    def objective(at: Tensor) -> Tensor:
        return clipped_by_hand(case, vector.clone(), at, lessons)

    at = torch.nn.Parameter(vector.clone())
    adam, losses = torch.optim.Adam([at], lr=0.02), []
    for _ in range(4):
        loss, at.grad = gradient_by_autograd(objective, at.data)
        losses.append(loss)
        adam.step()
        at.data[case.size :] = at.data[case.size :].clamp(0, 2 * case.rate)
    losses.append(gradient_by_autograd(objective, at.data)[0])
    torch.testing.assert_close(moved, at.data, rtol=1e-6, atol=1e-8)
    assert report["outer_loss"] == pytest.approx(losses[0])
    assert report["outer_improvement"] == pytest.approx(losses[0] - losses[-1])
    assert losses[-1] < losses[0]
    for phase in range(case.inner_steps):
        divergence = case.divergence(vector.clone(), moved.clone(), lessons, phase)
        wanted = pytest.approx(float(divergence.detach()), rel=1e-5)
        assert report[f"first_policy_kl_{phase}"] == wanted


def test_kl_coefficients_double_above_the_target_halve_below_it_and_else_stay():
    case = dataclasses.replace(ONE, inner_steps=2)
    problem, vector, _ = meta_problem(case)
    _, report = proximal(case).update(problem, vector)
    seen = [report[f"first_policy_kl_{phase}"] for phase in (0, 1)]
    assert min(seen) > 0
    # A target between the two divergences, far from both; and around each, on both of its edges.
    for target in (seen[0] * seen[1]) ** 0.5, seen[0] / 1.49, seen[0] / 1.51, 1.49 * seen[0]:
        rule = proximal(case, target=target)
        _, report = rule.update(problem, vector)
        expected = [
            0.5 * (2.0 if kl / target > 1.5 else 0.5 if kl / target < 1 / 1.5 else 1.0)
            for kl in seen
        ]
        assert [report["first_policy_kl_coef_0"], report["first_policy_kl_coef_1"]] == expected
        assert rule.state()["kl_coef"].tolist() == expected


@pytest.mark.parametrize(("target", "bound"), [(1e9, 0.5 / 1000), (1e-9, 0.5 * 1000)])
def test_a_kl_coefficient_never_goes_so_far_that_it_could_not_come_back(target, bound):
    problem, vector, _ = meta_problem(ONE)
    rule = proximal(ONE, target=target, num_epochs=1)
    for _ in range(12):
        rule.update(problem, vector)
    assert rule.state()["kl_coef"].tolist() == pytest.approx([bound])


def test_a_higher_kl_coefficient_holds_the_first_policies_back():
    problem, vector, _ = meta_problem(ONE)
    cheap, dear = (
        proximal(ONE, kl_coef=kl_coef, num_epochs=20).update(problem, vector)[1][
            "first_policy_kl_0"
        ]
        for kl_coef in (0.0, 50.0)
    )
    assert dear < 0.2 * cheap


def test_promp_goes_on_from_its_state_as_if_never_stopped():
    problem, vector, _ = meta_problem(ONE)
    straight, stopped = proximal(ONE), proximal(ONE)
    there = straight.update(problem, straight.update(problem, vector)[0])[0]
    half = stopped.update(problem, vector)[0]
    resumed = proximal(ONE)
    resumed.load_state(stopped.state())
    assert torch.equal(resumed.update(problem, half)[0], there)
    assert not torch.equal(proximal(ONE).update(problem, half)[0], there)


def test_reptile_moves_towards_the_mean_of_the_adapted_parameters():
    case = dataclasses.replace(ONE, inner_steps=2)
    problem, vector, lessons = meta_problem(case)
    adapted = case.adapted(vector, lessons)
    moved, report = Averaging(0.25).update(problem, vector)
    torch.testing.assert_close(moved, vector + 0.25 * (adapted.mean(0) - vector))
    assert report["grad_norm"] == pytest.approx(float((adapted.mean(0) - vector).norm()))


def test_reptile_with_one_task_and_one_step_is_a_gradient_step():
    case = dataclasses.replace(ONE, num_tasks=1)
    problem, vector, lessons = meta_problem(case)
    moved, _ = Averaging(1.0).update(problem, vector)
    _, gradient = gradient_by_autograd(lambda at: case.inner_loss(at, lessons[0], 0), vector)
    torch.testing.assert_close(moved, vector - case.rate * gradient)
    assert not torch.allclose(moved, vector, atol=0.01)


def test_reptile_refuses_a_step_that_is_not_finite():
    case = dataclasses.replace(ONE, estimator="lvc")
    problem, vector, lessons = meta_problem(case)
    lessons[0].log_prob[0, 1, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="Reptile's step is not finite"):
        Averaging(1.0).update(problem, vector)


def test_a_plain_rate_has_nothing_to_learn():
    problem, vector, _ = meta_problem(ONE)
    assert isinstance(problem.inner.rule, FixedRate)
    initial, own = problem.inner.split(vector)
    assert torch.equal(initial, vector)
    assert own.numel() == 0
