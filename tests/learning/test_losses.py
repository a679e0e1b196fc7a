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
        torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]),  # the last is not valid
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


def test_advantages_are_normalised_over_valid_steps_only():
    advantage = torch.tensor([1.0, 2.0, 3.0, 1000.0], dtype=torch.float64)
    valid = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    result = normalised(advantage, valid)
    expected = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) / (2 / 3) ** 0.5
    torch.testing.assert_close(result[:3], expected, rtol=1e-6, atol=1e-6)
    assert masked_mean(advantage, valid) == 2.0


class Outcomes(NamedTuple):
    """All outcomes of a small environment: one outcome per task, [T, N, 1] each."""

    log_prob: Tensor
    reward: Tensor
    value: Tensor  # baseline of the state
    advantage: Tensor  # exact, under the acting parameters

    @property
    def valid(self) -> Tensor:
        return torch.ones_like(self.reward)

    @property
    def first(self) -> Tensor:
        return torch.arange(len(self.reward)).view(-1, 1, 1).expand_as(self.reward) == 0


ESTIMATORS: dict[str, Callable[[Outcomes], Tensor]] = {
    "score": lambda data: score_function(data.log_prob, data.advantage, data.valid),
    "lvc": lambda data: low_variance_curvature(
        data.log_prob, data.log_prob.detach(), data.advantage, data.valid
    ),
    "dice": lambda data: dice(
        data.log_prob, data.reward, torch.zeros_like(data.value), data.first, data.valid
    ),
    "dice with a baseline": lambda data: dice(
        data.log_prob, data.reward, data.value, data.first, data.valid
    ),
    "loaded dice": lambda data: loaded_dice(data.log_prob, data.advantage, data.first, data.valid),
}


def expectation(
    estimator: str, outcomes: Callable[[Tensor], Outcomes]
) -> Callable[[Tensor], Tensor]:
    """The exact expectation of an estimator of the return, over all outcomes."""

    def mean(theta: Tensor) -> Tensor:
        data = outcomes(theta)
        probability = data.log_prob.sum((0, 2)).exp().detach()
        return -len(data.reward) * (probability * ESTIMATORS[estimator](data)).sum()

    return mean


def one_step(theta: Tensor) -> Outcomes:
    """One action, 1 with probability p = sigmoid(theta), which is also its reward."""
    action = torch.tensor([0.0, 1.0]).double().view(1, 2, 1)
    log_prob = torch.nn.functional.logsigmoid(theta * (2 * action - 1))
    p = theta.detach().sigmoid().expand_as(action)
    return Outcomes(log_prob, action, p / 3, action - p)


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
    # J = p = 3/4: J' = p (1 - p) = 3/16 and J'' = p (1 - p) (1 - 2 p) = -3/32. The score loss has
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
    """Of the first action, [2], and of the second given the first, [2, 2]; both use theta[0]."""
    sign = torch.tensor([-1.0, 1.0]).double()
    first = torch.nn.functional.logsigmoid(theta[0] * sign)
    logit = theta[1] + theta[2] * sign + theta[0] * sign
    return first, torch.nn.functional.logsigmoid(logit.unsqueeze(1) * sign)


def two_steps(theta: Tensor) -> Outcomes:
    """Four outcomes of two actions; the second depends on the first."""
    first, second = log_probs(theta)
    value = (second.detach().exp() * R1).sum(1)
    start = (first.detach().exp() * (R0 + value)).sum()

    def by_step(early: Tensor, late: Tensor) -> Tensor:
        return torch.stack((early.unsqueeze(1).expand(2, 2), late.expand(2, 2))).view(2, 4, 1)

    return Outcomes(
        log_prob=by_step(first, second),
        reward=by_step(R0, R1),
        value=by_step(torch.full((2,), 0.7).double(), torch.tensor([[2.0], [-3.0]]).double()),
        advantage=by_step(R0 + value - start, R1 - value.unsqueeze(1)),
    )


def surrogate_loss(theta: Tensor) -> Tensor:
    """The expected return in closed form."""
    first, second = log_probs(theta)
    return (first.exp() * (R0 + (second.exp() * R1).sum(1))).sum()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_gradient_equals_that_of_the_expected_return(estimator):
    gradient = jacobian(expectation(estimator, two_steps), THETA)
    torch.testing.assert_close(gradient, jacobian(surrogate_loss, THETA))
    assert gradient.abs().min() > 0.05


@pytest.mark.parametrize("estimator", ["dice", "dice with a baseline", "loaded dice"])
def test_the_hessian_of_dice_equals_that_of_the_expected_return(estimator):
    found = hessian(expectation(estimator, two_steps), THETA)
    torch.testing.assert_close(found, hessian(surrogate_loss, THETA))


def test_the_hessian_of_the_score_function_is_biased():
    found = hessian(expectation("score", two_steps), THETA)
    error = found - hessian(surrogate_loss, THETA)
    assert error.norm() > 0.5 * hessian(surrogate_loss, THETA).norm()


def test_low_variance_curvature_lacks_only_the_cross_terms_of_the_steps():
    found = hessian(expectation("lvc", two_steps), THETA)
    data = two_steps(THETA)
    probability = data.log_prob.sum((0, 2)).exp()
    gradient = jacobian(lambda theta: two_steps(theta).log_prob, THETA).squeeze(2)  # [T, N, 3]
    weight = probability * data.advantage[1, :, 0]
    cross = torch.einsum("n,ni,nj->ij", weight, gradient[0], gradient[1])
    torch.testing.assert_close(found + cross + cross.T, hessian(surrogate_loss, THETA))
    assert cross.norm() > 0.05


def test_a_baseline_that_depends_on_the_action_biases_the_gradient():
    # The control of "dice with a baseline", whose value depends only on the state.
    def with_invalid_baseline(theta: Tensor) -> Outcomes:
        data = two_steps(theta)
        return data._replace(value=data.reward)

    gradient = jacobian(expectation("dice with a baseline", with_invalid_baseline), THETA)
    assert not torch.allclose(gradient, jacobian(surrogate_loss, THETA), atol=0.05)


T, N, B = 9, 3, 2


class Batch(NamedTuple):
    """Random episodes of several lengths, followed by padding; [T, N, B] each."""

    log_prob: Tensor
    acting: Tensor
    advantage: Tensor
    reward: Tensor
    value: Tensor
    first: Tensor
    valid: Tensor


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(5, T, N, B, generator=generator, dtype=torch.float64)
    first = torch.rand(T, N, B, generator=generator) < 0.3
    first[0] = True
    length = torch.tensor([[T, 5], [4, 8], [T, 1]])
    valid = torch.arange(T).view(-1, 1, 1) < length
    return Batch(*numbers.unbind(), first & valid, valid.double())


LOSSES: dict[str, Callable[[Batch], Tensor]] = {
    "score": lambda data: score_function(data.log_prob, data.advantage, data.valid),
    "lvc": lambda data: low_variance_curvature(
        data.log_prob, data.acting, data.advantage, data.valid
    ),
    "dice": lambda data: dice(data.log_prob, data.reward, data.value, data.first, data.valid),
    "loaded dice": lambda data: loaded_dice(data.log_prob, data.advantage, data.first, data.valid),
}


def magic(value: Tensor) -> Tensor:
    return (value - value.detach()).exp()


def by_definition(name: str, data: Batch) -> Tensor:
    """Losses [N] by loops over tasks, lanes and steps."""
    losses = []
    for task in range(N):
        total, count = torch.zeros(()).double(), 0
        for lane in range(B):
            log_prob_sum = torch.zeros(()).double()
            for now in range(T):
                if not data.valid[now, task, lane]:
                    break
                log_prob, acting, advantage, reward, value, first, _ = (
                    part[now, task, lane] for part in data
                )
                before = torch.zeros(()).double() if first else log_prob_sum
                log_prob_sum = before + log_prob
                total = (
                    total
                    + {
                        "score": log_prob * advantage,
                        "lvc": (log_prob - acting).exp() * advantage,
                        "dice": magic(log_prob_sum) * reward + (1 - magic(log_prob)) * value,
                        "loaded dice": (magic(log_prob_sum) - magic(before)) * advantage,
                    }[name]
                )
                count += 1
        losses.append(-total / count)
    return torch.stack(losses)


def derivatives(loss: Callable[[Batch], Tensor], data: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Losses [N], their gradients by log_prob, and the Hessian of a weighted sum of them."""

    def of(log_prob: Tensor) -> Tensor:
        return loss(data._replace(log_prob=log_prob))

    def total(log_prob: Tensor) -> Tensor:
        return (of(log_prob) * torch.tensor([1.0, 2.0, 4.0])).sum()

    return of(data.log_prob), jacobian(of, data.log_prob), hessian(total, data.log_prob)


@pytest.mark.parametrize("name", LOSSES)
def test_inner_losses_equal_their_definitions_in_every_lane(name):
    found = derivatives(LOSSES[name], batch())
    expected = derivatives(lambda data: by_definition(name, data), batch())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_does_not_affect_the_losses(name):
    data = batch()
    padding = data.valid == 0
    before = derivatives(LOSSES[name], data)
    changed = Batch(*(part + 5.0 * padding for part in data[:5]), data.first, data.valid)
    torch.testing.assert_close(derivatives(LOSSES[name], changed), before)
    assert not before[1][:, padding].any()
    assert before[1].sum(0)[~padding].all()


@pytest.mark.parametrize("name", ["dice", "loaded dice"])
def test_the_hessian_has_no_terms_across_episodes_or_lanes(name):
    data = batch()
    _, _, found = derivatives(LOSSES[name], data)
    episode = data.first.cumsum(0)
    for task in range(N):
        for lane in range(B):
            nonzero = found[:, task, lane, :, task, lane].abs() > 1e-12
            valid = data.valid[:, task, lane] == 1
            same = episode[:, task, lane].unsqueeze(0) == episode[:, task, lane].unsqueeze(1)
            same &= valid.unsqueeze(0) & valid.unsqueeze(1)
            assert torch.equal(nonzero, same)
    assert not found[:, 0, :, :, 1].any()


def test_loaded_dice_and_the_score_function_have_equal_gradients():
    loaded, score = (derivatives(LOSSES[name], batch()) for name in ("loaded dice", "score"))
    torch.testing.assert_close(loaded[1], score[1])
    assert not score[2].any()  # the loss is linear in log_prob
    assert loaded[2].any()


def test_the_hessian_of_lvc_has_one_term_more_than_that_of_the_score_function():
    # - mean of A grad log_prob grad log_prob', at the acting parameters
    data = batch()
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(T, N, B, 4, 3, generator=generator, dtype=torch.float64)
    action = torch.randint(4, (T, N, B, 1), generator=generator)
    theta = torch.randn(3, generator=generator, dtype=torch.float64)

    def log_prob(theta: Tensor) -> Tensor:
        return (features @ theta).log_softmax(-1).gather(-1, action).squeeze(-1)

    acting, gradient = log_prob(theta), jacobian(log_prob, theta)
    for task in range(N):

        def score(theta: Tensor, task: int = task) -> Tensor:
            return score_function(log_prob(theta), data.advantage, data.valid)[task]

        def lvc(theta: Tensor, task: int = task) -> Tensor:
            return low_variance_curvature(log_prob(theta), acting, data.advantage, data.valid)[task]

        torch.testing.assert_close(jacobian(lvc, theta), jacobian(score, theta))
        weight = (data.advantage * data.valid)[:, task] / data.valid[:, task].sum()
        term = -torch.einsum("tb,tbi,tbj->ij", weight, gradient[:, task], gradient[:, task])
        torch.testing.assert_close(hessian(lvc, theta), hessian(score, theta) + term)
        assert term.norm() > 0.01
