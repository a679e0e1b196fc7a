import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from metarl.learning.losses import (
    clipped_surrogate,
    dice,
    loaded_dice,
    low_variance_curvature,
    masked_mean,
    normalised,
    score_function,
)


def test_a_worked_clipped_surrogate():
    # ratios 1.5, 1.5, .5, .5 with advantages 1, -1, 1, -1 and clip .2:
    # min(1.5, 1.2) = 1.2; min(-1.5, -1.2) = -1.5; min(.5, .8) = .5; min(-.5, -.8) = -.8
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 9.0])
    old = torch.full((5,), -0.3)
    result = clipped_surrogate(
        ratio.log() + old,
        old,
        torch.tensor([1.0, -1.0, 1.0, -1.0, 100.0]),
        torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]),  # the last was never lived
        clip_range=0.2,
    )
    assert math.isclose(float(result.loss), -(1.2 - 1.5 + 0.5 - 0.8) / 4, rel_tol=1e-6)
    assert float(result.clip_fraction) == 1.0
    kl = (2 * (0.5 - math.log(1.5)) + 2 * (-0.5 - math.log(0.5))) / 4
    assert math.isclose(float(result.approximate_kl), kl, rel_tol=1e-5)


def test_the_gradient_at_ratio_one_is_the_policy_gradient():
    log_prob = torch.randn(50, dtype=torch.float64, requires_grad=True)
    advantage, valid = torch.randn(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64)
    loss = clipped_surrogate(log_prob, log_prob.detach(), advantage, valid, clip_range=0.1).loss
    (gradient,) = torch.autograd.grad(loss, log_prob)
    torch.testing.assert_close(gradient, -advantage / 50)


def test_advantages_are_normalised_over_lived_steps_only():
    advantage = torch.tensor([1.0, 2.0, 3.0, 1000.0], dtype=torch.float64)
    valid = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    result = normalised(advantage, valid)
    expected = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) / (2 / 3) ** 0.5
    torch.testing.assert_close(result[:3], expected, rtol=1e-6, atol=1e-6)
    assert masked_mean(advantage, valid) == 2.0


class Lives(NamedTuple):
    """Everything that can happen in a small world: one outcome per task, [T, N, 1] each."""

    log_prob: Tensor
    reward: Tensor
    value: Tensor  # baseline of the state that is met
    advantage: Tensor  # exact, under the parameters that acted

    @property
    def valid(self) -> Tensor:
        return torch.ones_like(self.reward)

    @property
    def first(self) -> Tensor:
        return torch.arange(len(self.reward)).view(-1, 1, 1).expand_as(self.reward) == 0


ESTIMATORS: dict[str, Callable[[Lives], Tensor]] = {
    "score": lambda life: score_function(life.log_prob, life.advantage, life.valid),
    "lvc": lambda life: low_variance_curvature(
        life.log_prob, life.log_prob.detach(), life.advantage, life.valid
    ),
    "dice": lambda life: dice(
        life.log_prob, life.reward, torch.zeros_like(life.value), life.first, life.valid
    ),
    "dice with a baseline": lambda life: dice(
        life.log_prob, life.reward, life.value, life.first, life.valid
    ),
    "loaded dice": lambda life: loaded_dice(life.log_prob, life.advantage, life.first, life.valid),
}


def expectation(estimator: str, live: Callable[[Tensor], Lives]) -> Callable[[Tensor], Tensor]:
    """An estimator of the return, averaged over all that can happen instead of over samples."""

    def mean(theta: Tensor) -> Tensor:
        life = live(theta)
        probability = life.log_prob.sum((0, 2)).exp().detach()
        return -len(life.reward) * (probability * ESTIMATORS[estimator](life)).sum()

    return mean


def one_step(theta: Tensor) -> Lives:
    """One action, 1 with probability p = sigmoid(theta), which is also its reward."""
    action = torch.tensor([0.0, 1.0]).double().view(1, 2, 1)
    log_prob = torch.nn.functional.logsigmoid(theta * (2 * action - 1))
    p = theta.detach().sigmoid().expand_as(action)
    return Lives(log_prob, action, p / 3, action - p)


@pytest.mark.parametrize(
    ("estimator", "second"),
    [
        ("lvc", -3 / 32),
        ("dice", -3 / 32),
        ("dice with a baseline", -3 / 32),
        ("loaded dice", -3 / 32),
        ("score", 0.0),
    ],
)
def test_a_worked_second_derivative(estimator, second):
    # J = p = 3/4: J' = p (1 - p) = 3/16 and J'' = p (1 - p) (1 - 2 p) = -3/32. The plain loss has
    # E[(a - p) (log p(a))''] = E[a - p] (-3/16) = 0.
    theta = torch.tensor(math.log(3), dtype=torch.float64)
    estimate = expectation(estimator, one_step)
    assert float(jacobian(estimate, theta)) == pytest.approx(3 / 16)
    assert float(hessian(estimate, theta)) == pytest.approx(second, abs=1e-12)


R0 = torch.tensor([0.5, -1.0]).double()
R1 = torch.tensor([[2.0, -1.0], [0.3, 4.0]]).double()
"""rewards of the first action, and of the second one given the first"""
THETA = torch.tensor([0.4, -0.7, 0.9]).double()


def log_probs(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Of the first action, [2], and of the second given the first, [2, 2]; both share theta[0]."""
    sign = torch.tensor([-1.0, 1.0]).double()
    first = torch.nn.functional.logsigmoid(theta[0] * sign)
    logit = theta[1] + theta[2] * sign + theta[0] * sign
    return first, torch.nn.functional.logsigmoid(logit.unsqueeze(1) * sign)


def two_steps(theta: Tensor) -> Lives:
    """Four outcomes of two actions; the second is seen to depend on the first."""
    first, second = log_probs(theta)
    value = (second.detach().exp() * R1).sum(1)
    start = (first.detach().exp() * (R0 + value)).sum()

    def outcomes(early: Tensor, late: Tensor) -> Tensor:
        return torch.stack((early.unsqueeze(1).expand(2, 2), late.expand(2, 2))).view(2, 4, 1)

    return Lives(
        log_prob=outcomes(first, second),
        reward=outcomes(R0, R1),
        value=outcomes(torch.full((2,), 0.7).double(), torch.tensor([[2.0], [-3.0]]).double()),
        advantage=outcomes(R0 + value - start, R1 - value.unsqueeze(1)),
    )


def expected_return(theta: Tensor) -> Tensor:
    """What the estimators estimate, in closed form."""
    first, second = log_probs(theta)
    return (first.exp() * (R0 + (second.exp() * R1).sum(1))).sum()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_gradient_is_that_of_the_expected_return(estimator):
    gradient = jacobian(expectation(estimator, two_steps), THETA)
    torch.testing.assert_close(gradient, jacobian(expected_return, THETA))
    assert gradient.abs().min() > 0.05


@pytest.mark.parametrize("estimator", ["dice", "dice with a baseline", "loaded dice"])
def test_the_second_derivative_of_dice_is_that_of_the_expected_return(estimator):
    bend = hessian(expectation(estimator, two_steps), THETA)
    torch.testing.assert_close(bend, hessian(expected_return, THETA))


def test_the_second_derivative_of_the_plain_loss_is_not():
    bend = hessian(expectation("score", two_steps), THETA)
    error = bend - hessian(expected_return, THETA)
    assert error.norm() > 0.5 * hessian(expected_return, THETA).norm()


def test_low_variance_curvature_lacks_only_what_links_two_steps():
    bend = hessian(expectation("lvc", two_steps), THETA)
    life = two_steps(THETA)
    probability = life.log_prob.sum((0, 2)).exp()
    slope = jacobian(lambda theta: two_steps(theta).log_prob, THETA).squeeze(2)  # [T, N, 3]
    weight = probability * life.advantage[1, :, 0]
    link = torch.einsum("n,ni,nj->ij", weight, slope[0], slope[1])
    torch.testing.assert_close(bend + link + link.T, hessian(expected_return, THETA))
    assert link.norm() > 0.05


def test_a_baseline_that_knows_the_action_would_be_wrong():
    # The control of "dice with a baseline": there the value depends on the state alone.
    def cheating(theta: Tensor) -> Lives:
        life = two_steps(theta)
        return life._replace(value=life.reward)

    gradient = jacobian(expectation("dice with a baseline", cheating), THETA)
    assert not torch.allclose(gradient, jacobian(expected_return, THETA), atol=0.05)


T, N, B = 9, 3, 2


class Lessons(NamedTuple):
    """Random episodes of several lengths, with idle transitions behind them; [T, N, B] each."""

    log_prob: Tensor
    acting: Tensor
    advantage: Tensor
    reward: Tensor
    value: Tensor
    first: Tensor
    valid: Tensor


def lessons() -> Lessons:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(5, T, N, B, generator=generator, dtype=torch.float64)
    first = torch.rand(T, N, B, generator=generator) < 0.3
    first[0] = True
    length = torch.tensor([[T, 5], [4, 8], [T, 1]])
    valid = torch.arange(T).view(-1, 1, 1) < length
    return Lessons(*numbers.unbind(), first & valid, valid.double())


LOSSES: dict[str, Callable[[Lessons], Tensor]] = {
    "score": lambda data: score_function(data.log_prob, data.advantage, data.valid),
    "lvc": lambda data: low_variance_curvature(
        data.log_prob, data.acting, data.advantage, data.valid
    ),
    "dice": lambda data: dice(data.log_prob, data.reward, data.value, data.first, data.valid),
    "loaded dice": lambda data: loaded_dice(data.log_prob, data.advantage, data.first, data.valid),
}


def magic(value: Tensor) -> Tensor:
    return (value - value.detach()).exp()


def by_definition(name: str, data: Lessons) -> Tensor:
    """Losses [N], transition by transition."""
    losses = []
    for task in range(N):
        total, count = torch.zeros(()).double(), 0
        for lane in range(B):
            lived = torch.zeros(()).double()
            for now in range(T):
                if not data.valid[now, task, lane]:
                    break
                log_prob, acting, advantage, reward, value, first, _ = (
                    part[now, task, lane] for part in data
                )
                before = torch.zeros(()).double() if first else lived
                lived = before + log_prob
                total = (
                    total
                    + {
                        "score": log_prob * advantage,
                        "lvc": (log_prob - acting).exp() * advantage,
                        "dice": magic(lived) * reward + (1 - magic(log_prob)) * value,
                        "loaded dice": (magic(lived) - magic(before)) * advantage,
                    }[name]
                )
                count += 1
        losses.append(-total / count)
    return torch.stack(losses)


def derivatives(loss: Callable[[Lessons], Tensor], data: Lessons) -> tuple[Tensor, Tensor, Tensor]:
    """Losses [N], their gradients by log_prob, and the Hessian of a sum with different weights."""

    def of(log_prob: Tensor) -> Tensor:
        return loss(data._replace(log_prob=log_prob))

    def total(log_prob: Tensor) -> Tensor:
        return (of(log_prob) * torch.tensor([1.0, 2.0, 4.0])).sum()

    return of(data.log_prob), jacobian(of, data.log_prob), hessian(total, data.log_prob)


@pytest.mark.parametrize("name", LOSSES)
def test_inner_losses_are_their_definitions_in_every_lane(name):
    found = derivatives(LOSSES[name], lessons())
    expected = derivatives(lambda data: by_definition(name, data), lessons())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_idle_transitions_count_for_nothing(name):
    data = lessons()
    idle = data.valid == 0
    before = derivatives(LOSSES[name], data)
    changed = Lessons(*(part + 5.0 * idle for part in data[:5]), first=data.first, valid=data.valid)
    torch.testing.assert_close(derivatives(LOSSES[name], changed), before)
    assert not before[1][:, idle].any()
    assert before[1].sum(0)[~idle].all()


@pytest.mark.parametrize("name", ["dice", "loaded dice"])
def test_nothing_crosses_an_episode_boundary(name):
    data = lessons()
    _, _, bend = derivatives(LOSSES[name], data)
    episode = data.first.cumsum(0)
    for task in range(N):
        for lane in range(B):
            linked = bend[:, task, lane, :, task, lane].abs() > 1e-12
            lived = data.valid[:, task, lane] == 1
            together = episode[:, task, lane].unsqueeze(0) == episode[:, task, lane].unsqueeze(1)
            together &= lived.unsqueeze(0) & lived.unsqueeze(1)
            assert torch.equal(linked, together)
    assert not bend[:, 0, :, :, 1].any()


def test_loaded_dice_and_the_plain_loss_have_one_gradient():
    loaded, plain = (derivatives(LOSSES[name], lessons()) for name in ("loaded dice", "score"))
    torch.testing.assert_close(loaded[1], plain[1])
    assert not plain[2].any()  # by log_prob the plain loss is linear
    assert loaded[2].any()


def test_low_variance_curvature_has_one_term_more_than_the_plain_loss():
    # - mean of A grad log_prob grad log_prob', at the acting parameters
    data = lessons()
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(T, N, B, 4, 3, generator=generator, dtype=torch.float64)
    action = torch.randint(4, (T, N, B, 1), generator=generator)
    theta = torch.randn(3, generator=generator, dtype=torch.float64)

    def log_prob(theta: Tensor) -> Tensor:
        return (features @ theta).log_softmax(-1).gather(-1, action).squeeze(-1)

    acting, slope = log_prob(theta), jacobian(log_prob, theta)
    for task in range(N):

        def plain(theta: Tensor, task: int = task) -> Tensor:
            return score_function(log_prob(theta), data.advantage, data.valid)[task]

        def lvc(theta: Tensor, task: int = task) -> Tensor:
            return low_variance_curvature(log_prob(theta), acting, data.advantage, data.valid)[task]

        torch.testing.assert_close(jacobian(lvc, theta), jacobian(plain, theta))
        weight = (data.advantage * data.valid)[:, task] / data.valid[:, task].sum()
        term = -torch.einsum("tb,tbi,tbj->ij", weight, slope[:, task], slope[:, task])
        torch.testing.assert_close(hessian(lvc, theta), hessian(plain, theta) + term)
        assert term.norm() > 0.01
