"""ProMP: steps of Adam on its objective, and its KL coefficients, recomputed by hand."""

import dataclasses

import pytest
import torch
from torch import Tensor

from metarl.agents.gradient.outer_loop import MetaProblem
from metarl.agents.gradient.pg_batch import PGBatch
from metarl.agents.gradient.proximal import Proximal
from tests.adaptation_by_definition import Case, gradient_by_autograd

pytestmark = pytest.mark.usefixtures("one_thread")

ONE = Case(box=True, hidden_sizes=(3,))


def build(case: Case) -> tuple[MetaProblem, Tensor, list[PGBatch]]:
    batches = case.batches()
    return case.problem(batches), case.meta_params(), batches


def proximal(case: Case, **options: object) -> Proximal:
    defaults = {
        "inner_steps": case.inner_steps,
        "size": len(case.meta_params()),
        "clip_range": 0.2,
        "num_epochs": 4,
        "learning_rate": 0.02,
        "target": 0.01,
        "kl_coef": 0.5,
        "device": torch.device("cpu"),
    }
    rule = Proximal(**defaults | options)
    rule._meta_params.data = rule._meta_params.data.double()
    return rule


def clipped_by_hand(case: Case, old: Tensor, at: Tensor, batches: list[PGBatch]) -> Tensor:
    """With a clip of 0.2 and a KL coefficient of 0.5."""
    loss = torch.zeros((), dtype=torch.float64)
    for task in range(case.num_tasks):
        params = case.phases(at, batches, task)[-1]
        data = batches[-1]
        ratio = (case.log_prob(params, data, task) - data.log_prob[:, task]).exp()
        advantage, valid = data.advantage[:, task], data.valid[:, task]
        gain = torch.where(
            advantage > 0, ratio.clamp(max=1.2) * advantage, ratio.clamp(min=0.8) * advantage
        )
        loss = loss - (gain * valid).sum() / valid.sum() / case.num_tasks
    for phase in range(case.inner_steps):
        loss = loss + 0.5 * case.kl_divergence(old, at, batches, phase)
    return loss


@pytest.mark.parametrize(
    "case",
    [ONE, Case(estimator="lvc", inner_steps=2, hidden_sizes=(2,), num_tasks=2, learned_rates=True)],
)
def test_promp_takes_steps_of_adam_on_its_clipped_and_penalised_objective(case):
    problem, meta_params, batches = build(case)
    meta_params[case.size :: 2] = 2 * case.rate  # the upper bound of the rates
    moved, report = proximal(case).update(problem, meta_params)

    def objective(at: Tensor) -> Tensor:
        return clipped_by_hand(case, meta_params.clone(), at, batches)

    at = torch.nn.Parameter(meta_params.clone())
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
        divergence = case.kl_divergence(meta_params.clone(), moved.clone(), batches, phase)
        expected = pytest.approx(float(divergence.detach()), rel=1e-5)
        assert report[f"first_policy_kl_{phase}"] == expected


def test_kl_coefficients_double_above_the_target_and_halve_below_it():
    case = dataclasses.replace(ONE, inner_steps=2)
    problem, meta_params, _ = build(case)
    _, report = proximal(case).update(problem, meta_params)
    kls = [report[f"first_policy_kl_{phase}"] for phase in (0, 1)]
    assert min(kls) > 0
    # A target between the two divergences, far from both; then near the edges around the first.
    for target in (kls[0] * kls[1]) ** 0.5, kls[0] / 1.49, kls[0] / 1.51, 1.49 * kls[0]:
        rule = proximal(case, target=target)
        _, report = rule.update(problem, meta_params)
        expected = [
            0.5 * (2.0 if kl / target > 1.5 else 0.5 if kl / target < 1 / 1.5 else 1.0)
            for kl in kls
        ]
        assert [report["first_policy_kl_coef_0"], report["first_policy_kl_coef_1"]] == expected
        assert rule.state()["kl_coef"].tolist() == expected


@pytest.mark.parametrize(("target", "bound"), [(1e9, 0.5 / 1000), (1e-9, 0.5 * 1000)])
def test_a_kl_coefficient_stays_within_a_factor_of_a_thousand(target, bound):
    problem, meta_params, _ = build(ONE)
    rule = proximal(ONE, target=target, num_epochs=1)
    for _ in range(12):
        rule.update(problem, meta_params)
    assert rule.state()["kl_coef"].tolist() == pytest.approx([bound])


def test_a_higher_kl_coefficient_keeps_the_first_policies_closer():
    problem, meta_params, _ = build(ONE)
    free, penalised = (
        proximal(ONE, kl_coef=kl_coef, num_epochs=20).update(problem, meta_params)[1][
            "first_policy_kl_0"
        ]
        for kl_coef in (0.0, 50.0)
    )
    assert penalised < 0.2 * free


def test_promp_continues_from_its_state_exactly():
    problem, meta_params, _ = build(ONE)
    straight, stopped = proximal(ONE), proximal(ONE)
    expected = straight.update(problem, straight.update(problem, meta_params)[0])[0]
    half = stopped.update(problem, meta_params)[0]
    resumed = proximal(ONE)
    resumed.load_state(stopped.state())
    assert torch.equal(resumed.update(problem, half)[0], expected)
    assert not torch.equal(proximal(ONE).update(problem, half)[0], expected)
