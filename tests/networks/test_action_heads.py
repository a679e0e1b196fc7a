import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, kl_divergence

from metarl.errors import ConfigError
from metarl.networks.action_heads import (
    ActionHead,
    CategoricalHead,
    GaussianHead,
    action_head,
    append_constants,
)
from tests.networks.builders import noise

DISCRETE = CategoricalHead(spaces.Discrete(4))
BOX = GaussianHead(spaces.Box(np.float32([-0.125, 0, -1]), np.float32([0.125, 10, np.inf])))
HEADS = pytest.mark.parametrize("head", [DISCRETE, BOX], ids=["discrete", "box"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(head: ActionHead, *lead: int, seed: int = 0) -> Tensor:
    """Raw numbers of random distributions, [..., R] in float64."""
    size = head.outputs + head.constants
    return torch.randn(*lead, size, generator=generator(seed), dtype=torch.float64)


def by_torch(head: ActionHead, dist_params: Tensor) -> Distribution:
    """The distribution given by their parameters, of actions in units of the bounds."""
    if isinstance(head, CategoricalHead):
        return Categorical(logits=dist_params)
    mean, log_std = dist_params[..., : head.outputs], dist_params[..., head.outputs :]
    return Independent(Normal(mean, log_std.exp()), 1)


def test_categorical_samples_follow_the_probabilities():
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    head, dist_params = CategoricalHead(spaces.Discrete(3)), probabilities.log().expand(200_000, 3)
    action, log_prob = head.sample(dist_params, noise(200_000))
    share = torch.bincount(action, minlength=3) / len(action)
    # standard error of a share is at most .5 / sqrt(200,000) = .0011
    torch.testing.assert_close(share, probabilities, rtol=0, atol=0.005)
    torch.testing.assert_close(log_prob, probabilities.log()[action])
    torch.testing.assert_close(log_prob, head.evaluate(dist_params, action)[0])


def test_gaussian_actions_are_in_units_of_the_bounds():
    low, high = np.array([-0.1, 0.0], np.float32), np.array([0.1, 10.0], np.float32)
    head, deviations = GaussianHead(spaces.Box(low, high)), torch.tensor([0.5, 0.2])
    dist_params = torch.cat((torch.tensor([0.5, -0.5]), deviations.log())).expand(200_000, 4)
    action, log_prob = head.sample(dist_params, noise(200_000))
    # centre + half range * mean: 0 + .1 * .5, 5 + 5 * (-.5); deviations .1 * .5, 5 * .2
    torch.testing.assert_close(action.mean(0), torch.tensor([0.05, 2.5]), rtol=0, atol=0.01)
    torch.testing.assert_close(action.std(0), torch.tensor([0.05, 1.0]), rtol=0.02, atol=0)
    torch.testing.assert_close(
        log_prob, head.evaluate(dist_params, action)[0], rtol=1e-4, atol=1e-4
    )
    unit = (action - torch.tensor([0.0, 5.0])) / torch.tensor([0.1, 5.0])
    expected = by_torch(head, dist_params).log_prob(unit)
    torch.testing.assert_close(log_prob, expected, rtol=1e-4, atol=1e-4)
    assert head.encode(action).abs().max() == 1.0  # clipped as the environment does


@HEADS
def test_log_probabilities_and_entropies_are_those_of_torch(head):
    dist_params = numbers(head, 10)
    action, sampled = head.sample(dist_params, noise(10))
    log_prob, entropy = head.evaluate(dist_params, action)
    if head is BOX:  # the third component is bounded on one side: it has no unit
        action = (action - torch.tensor([0.0, 5.0, 0.0])) / torch.tensor([0.125, 5.0, 1.0])
    expected = by_torch(head, dist_params)
    torch.testing.assert_close(sampled, expected.log_prob(action))
    torch.testing.assert_close(log_prob, expected.log_prob(action))
    torch.testing.assert_close(entropy, expected.entropy())


@HEADS
def test_the_divergence_is_that_of_torch_and_zero_for_equal_distributions(head):
    old, new = numbers(head, 5, 2), numbers(head, 5, 2, seed=1)
    expected = kl_divergence(by_torch(head, old), by_torch(head, new))
    torch.testing.assert_close(head.kl_divergence(old, new), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(head.kl_divergence(old, new), head.kl_divergence(new, old))
    torch.testing.assert_close(head.kl_divergence(old, old), torch.zeros(5, 2).double())


@pytest.mark.parametrize("seed", range(3))
def test_the_hessian_of_the_divergence_is_the_fisher_matrix(seed):
    # A Gaussian's: 1 / deviation^2 for each mean and 2 for each logarithm of a deviation.
    dist_params = numbers(BOX, seed=seed)
    hessian = torch.autograd.functional.hessian(
        lambda new: BOX.kl_divergence(dist_params, new), dist_params
    )
    expected = torch.cat(((-2 * dist_params[3:]).exp(), torch.full((3,), 2.0)))
    torch.testing.assert_close(hessian, expected.diag())
    # A categorical's, by definition: the mean square of the gradient of the log-probability.
    dist_params = numbers(DISCRETE, seed=seed)
    hessian = torch.autograd.functional.hessian(
        lambda new: DISCRETE.kl_divergence(dist_params, new), dist_params
    )
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for action, probability in zip(torch.arange(4), dist_params.softmax(-1), strict=True):
        gradient = torch.autograd.functional.jacobian(
            lambda new, action=action: DISCRETE.evaluate(new, action)[0], dist_params
        )
        expected += probability * gradient.outer(gradient)
    torch.testing.assert_close(hessian, expected)


@HEADS
def test_the_divergence_has_zero_gradient_for_equal_distributions(head):
    dist_params = numbers(head, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(
        head.kl_divergence(dist_params.detach(), dist_params).sum(), dist_params
    )
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_action_spaces_without_a_head_are_refused():
    with pytest.raises(ConfigError, match="No action head serves MultiBinary"):
        action_head(spaces.MultiBinary(3))
    with pytest.raises(ConfigError, match="must be vectors"):
        action_head(spaces.Box(-1.0, 1.0, (2, 2)))
    with pytest.raises(ConfigError, match="must start at 0"):
        action_head(spaces.Discrete(3, start=1))


def test_bounds_without_a_unit_leave_actions_finite():
    most = np.finfo(np.float32).max
    box = spaces.Box(np.float32([-most, 0.5, -np.inf]), np.float32([most, 0.5, np.inf]))
    action, log_prob = GaussianHead(box).sample(torch.zeros(10, 6), noise(10))
    assert action.isfinite().all()
    assert log_prob.isfinite().all()


def test_constants_are_the_logarithms_of_the_initial_deviations():
    head = action_head(spaces.Box(-1.0, 1.0, (3,)), initial_std=0.5)
    assert (head.outputs, head.constants) == (3, 3)
    torch.testing.assert_close(head.initial_constants(), torch.full((3,), math.log(0.5)))
    head = action_head(spaces.Discrete(3), initial_std=0.5)
    assert (head.outputs, head.constants) == (3, 0)
    assert head.initial_constants().shape == (0,)


def test_constants_are_appended_to_every_output():
    outputs = torch.arange(12.0).view(2, 3, 2)
    dist_params = append_constants(outputs, torch.tensor([7.0, 8.0, 9.0]))
    assert dist_params.shape == (2, 3, 5)
    assert dist_params[1, 2].tolist() == [10.0, 11.0, 7.0, 8.0, 9.0]
    assert dist_params[0, 0].tolist() == [0.0, 1.0, 7.0, 8.0, 9.0]
    of_each_task = append_constants(outputs, torch.tensor([[[5.0]], [[6.0]]]))
    assert of_each_task[:, :, 2].tolist() == [[5.0] * 3, [6.0] * 3]
    torch.testing.assert_close(append_constants(outputs, torch.zeros(0)), outputs)


def test_constants_have_a_gradient_from_every_output():
    constants = torch.zeros(2, requires_grad=True)
    append_constants(torch.zeros(4, 3, 1), constants).sum().backward()
    assert constants.grad is not None
    assert constants.grad.tolist() == [12.0, 12.0]
