"""Trust region, exploration and Reptile: each step recomputed by hand."""

import dataclasses
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from metarl.agents.gradient.inner_rules import GradientDescent
from metarl.agents.gradient.outer_loop import (
    Averaging,
    ExplorationLoss,
    MetaProblem,
    TrustRegion,
    surrogate_loss,
)
from metarl.agents.gradient.pg_batch import PGBatch
from metarl.errors import NonFiniteError
from tests.adaptation_by_definition import Case, gradient_by_autograd

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = [
    Case(hidden_sizes=(2,), num_tasks=2),
    Case(hidden_sizes=(2,), num_tasks=2, box=True, estimator="lvc", inner_steps=2, rate=0.2),
    Case(hidden_sizes=(2,), num_tasks=2, box=True, learned_rates=True),
    Case(hidden_sizes=(2,), num_tasks=2, estimator="dice", learned_rates=True),
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


def build(case: Case) -> tuple[MetaProblem, Tensor, list[PGBatch]]:
    batches = case.batches()
    return case.problem(batches), case.meta_params(), batches


def trust_region(**options: object) -> TrustRegion:
    defaults = {
        "outer_loss": surrogate_loss,
        "max_divergence": 0.01,
        "steps": 10,
        "damping": 1e-5,
        "search_steps": 15,
        "shrink": 0.8,
    }
    return TrustRegion(**defaults | options)


def hessian_of_divergence(case: Case, meta_params: Tensor, batches: list[PGBatch]) -> Tensor:
    """Full, [Q, Q], by autograd through the inner steps."""
    at = meta_params.clone().requires_grad_()
    divergence = case.outer_divergence(meta_params.clone(), at, batches)
    (gradient,) = torch.autograd.grad(divergence, at, create_graph=True)
    rows = [torch.autograd.grad(each, at, retain_graph=True)[0] for each in gradient]
    return torch.stack(rows)


@pytest.mark.parametrize("case", CASES)
def test_a_full_step_solves_for_the_gradient_and_is_as_long_as_allowed(case):
    problem, meta_params, batches = build(case)
    hessian = hessian_of_divergence(case, meta_params, batches)
    axes = torch.eye(len(meta_params)).double()
    assert hessian.norm() > 0.1
    product = trust_region(damping=0.1)._curvature(problem, problem.adapt(meta_params))
    curvature = hessian + 0.1 * axes
    found = torch.stack([product(axis) for axis in axes])
    torch.testing.assert_close(found, curvature, rtol=1e-8, atol=1e-10)

    loss, gradient = gradient_by_autograd(lambda at: case.expected_return(at, batches), meta_params)
    solution = torch.linalg.solve(curvature, gradient)
    step = solution * (2 * 1e-6 / (solution @ curvature @ solution)).sqrt()
    outer_loss = {
        "multi_step_loss": case.multi_step_loss,
        "shared_advantage_scale": case.shared_advantage_scale,
    }
    rule = trust_region(max_divergence=1e-6, damping=0.1, steps=500, **outer_loss)
    moved, report = rule.update(problem, meta_params)
    assert report["line_search_share"] == 1.0
    torch.testing.assert_close(moved, meta_params - step, rtol=0, atol=1e-7)
    assert step.abs().max() > 1e-4
    assert report["outer_loss"] == pytest.approx(loss)
    assert report["grad_norm"] == pytest.approx(float(gradient.norm()))


def test_the_curvature_may_be_computed_on_fewer_rollouts():
    problem, meta_params, batches = build(ONE)
    hessian = hessian_of_divergence(ONE, meta_params, batches)
    axes = torch.eye(len(meta_params)).double()
    here, found = problem.adapt(meta_params), {}
    for rollouts in (None, 4, 3):
        product = trust_region(damping=0.0, rollouts_per_task=rollouts)._curvature(problem, here)
        found[rollouts] = torch.stack([product(axis) for axis in axes])
    torch.testing.assert_close(found[None], hessian, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found[4], found[None], rtol=1e-12, atol=1e-12)  # all rollouts
    assert not torch.allclose(found[3], found[None], rtol=0.05)
    torch.testing.assert_close(found[3], found[3].T)
    assert torch.linalg.eigvalsh(found[3]).min() > -1e-10


@pytest.mark.parametrize("case", CASES)
def test_an_accepted_step_keeps_the_bound_and_lowers_the_objective(case):
    problem, meta_params, batches = build(case)
    outer_loss = {
        "multi_step_loss": case.multi_step_loss,
        "shared_advantage_scale": case.shared_advantage_scale,
    }
    moved, report = trust_region(damping=0.01, **outer_loss).update(problem, meta_params)
    before, after = (objective_by_hand(case, at, batches) for at in (meta_params, moved))
    divergence = divergence_by_hand(case, meta_params, moved, batches)
    assert 0 < divergence <= 0.01
    assert after < before
    assert report["outer_kl"] == pytest.approx(divergence, rel=1e-6)
    assert report["outer_improvement"] == pytest.approx(before - after, rel=1e-6)


@pytest.mark.parametrize("bound", [0.5, 20.0])
def test_the_longest_candidate_within_the_bound_that_lowers_the_objective_is_taken(bound):
    batches, meta_params = ONE.batches(seed=3), ONE.meta_params()  # the full step is too long
    problem = ONE.problem(batches)
    moved, report = trust_region(max_divergence=bound, damping=0.01).update(problem, meta_params)
    tried, share = report["line_search_tried"], report["line_search_share"]
    assert tried > 1
    assert share == pytest.approx(0.8 ** (tried - 1))
    before = objective_by_hand(ONE, meta_params, batches)
    for shorter in range(int(tried)):
        candidate = meta_params + 0.8**shorter * (moved - meta_params) / share
        divergence = divergence_by_hand(ONE, meta_params, candidate, batches)
        accepted = objective_by_hand(ONE, candidate, batches) < before and divergence <= bound
        assert accepted == (shorter == tried - 1)


def objective_by_hand(case: Case, meta_params: Tensor, batches: list[PGBatch]) -> float:
    return float(case.expected_return(meta_params.clone(), batches).detach())


def divergence_by_hand(case: Case, old: Tensor, new: Tensor, batches: list[PGBatch]) -> float:
    return float(case.outer_divergence(old.clone(), new.clone(), batches).detach())


class Elsewhere:
    """The objective, plus `otherwise` wherever the meta-parameters differ from the given ones."""

    def __init__(self, problem: MetaProblem, meta_params: Tensor, otherwise: float) -> None:
        self._here = problem.adapt(meta_params).dist_params[-1]
        self._otherwise = otherwise

    def __call__(self, problem: MetaProblem, dist_params: Sequence[Tensor]) -> Tensor:
        loss = surrogate_loss(problem, dist_params)
        return loss if torch.equal(dist_params[-1], self._here) else loss + self._otherwise


@pytest.mark.parametrize("otherwise", [math.nan, math.inf, 1.0])
def test_if_no_candidate_is_accepted_there_is_no_step(otherwise):
    problem, meta_params, _ = build(ONE)
    before = meta_params.clone()
    rule = trust_region(outer_loss=Elsewhere(problem, meta_params, otherwise), search_steps=7)
    moved, report = rule.update(problem, meta_params)
    assert torch.equal(moved, before)
    assert torch.equal(meta_params, before)
    assert report["line_search_share"] == 0.0
    assert report["line_search_tried"] == 7
    assert report["outer_kl"] == report["outer_improvement"] == 0.0
    # With the plain objective a step is taken.
    moved, report = trust_region(outer_loss=Elsewhere(problem, meta_params, 0.0)).update(
        problem, meta_params
    )
    assert not torch.equal(moved, before)
    assert report["line_search_share"] > 0


def test_a_gradient_that_is_not_finite_is_an_error():
    problem, meta_params, _ = build(ONE)

    def broken(problem: MetaProblem, dist_params: Sequence[Tensor]) -> Tensor:
        return surrogate_loss(problem, dist_params) * torch.nan

    with pytest.raises(NonFiniteError, match=r"TRPO's gradient is not finite \(\d+ of \d+ numbers"):
        trust_region(outer_loss=broken).update(problem, meta_params)


def test_learned_rates_stay_within_their_bounds():
    case = Case(learned_rates=True, hidden_sizes=(3,))
    problem, meta_params, _ = build(case)
    meta_params[case.size :: 2] = 0.0
    meta_params[case.size + 1 :: 2] = 2 * case.rate
    moved, report = trust_region().update(problem, meta_params)
    rates, before = moved[case.size :], meta_params[case.size :]
    assert report["line_search_share"] > 0
    assert rates.min() == 0.0
    assert rates.max() == 2 * case.rate
    inside = (rates > 0) & (rates < 2 * case.rate)
    assert 0 < inside.sum() < case.size  # about half of them are clamped
    assert ((rates - before)[~inside] == 0).all()


def exploration_by_hand(case: Case, at: Tensor, batches: list[PGBatch], weight: float) -> Tensor:
    returns = batches[-1].episode_return
    credit = (returns - returns.mean()) / returns.std(correction=0)
    loss = case.expected_return(at, batches)
    for task in range(case.num_tasks):
        log_prob = case.log_prob(at[: case.size], batches[0], task)
        valid = batches[0].valid[:, task]
        mean = (log_prob * valid).sum() / valid.sum()
        loss = loss - weight * credit[task] * mean / case.num_tasks
    return loss


@pytest.mark.parametrize("case", [ONE, Case(estimator="dice", inner_steps=2, hidden_sizes=(3,))])
def test_exploration_credits_the_first_policy_with_the_return_after_adaptation(case):
    problem, meta_params, batches = build(case)
    here = problem.adapt(meta_params)
    loss, gradient = problem.meta_gradient(ExplorationLoss(0.6), here)
    expected, by_hand = gradient_by_autograd(
        lambda at: exploration_by_hand(case, at, batches, 0.6), meta_params
    )
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-6, atol=1e-8)
    _, without = problem.meta_gradient(ExplorationLoss(0.0), here)
    torch.testing.assert_close(without, problem.meta_gradient(surrogate_loss, here)[1])
    assert not torch.allclose(gradient, without)


def test_reptile_moves_towards_the_mean_of_the_adapted_parameters():
    case = dataclasses.replace(ONE, inner_steps=2)
    problem, meta_params, batches = build(case)
    adapted = case.adapted(meta_params, batches)
    moved, report = Averaging(0.25).update(problem, meta_params)
    torch.testing.assert_close(moved, meta_params + 0.25 * (adapted.mean(0) - meta_params))
    assert report["grad_norm"] == pytest.approx(float((adapted.mean(0) - meta_params).norm()))


def test_reptile_with_one_task_and_one_step_is_a_gradient_step():
    case = dataclasses.replace(ONE, num_tasks=1)
    problem, meta_params, batches = build(case)
    moved, _ = Averaging(1.0).update(problem, meta_params)
    _, gradient = gradient_by_autograd(lambda at: case.inner_loss(at, batches[0], 0), meta_params)
    torch.testing.assert_close(moved, meta_params - case.rate * gradient)
    assert not torch.allclose(moved, meta_params, atol=0.01)


def test_reptile_refuses_a_step_that_is_not_finite():
    case = dataclasses.replace(ONE, estimator="lvc")
    problem, meta_params, batches = build(case)
    batches[0].log_prob[0, 1, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="Reptile's step is not finite"):
        Averaging(1.0).update(problem, meta_params)


def test_a_fixed_rate_is_no_meta_parameter():
    problem, meta_params, _ = build(ONE)
    assert isinstance(problem.inner.rule, GradientDescent)
    initial, rule_params = problem.inner.split(meta_params)
    assert torch.equal(initial, meta_params)
    assert rule_params.numel() == 0
