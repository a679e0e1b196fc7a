"""Losses of the soft actor-critic against their definitions, term by term, in float64."""

import pytest
import torch

from metarl.agents.off_policy import sac_losses

SHAPE = (3, 4)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_the_target_bootstraps_unless_the_episode_terminated():
    reward, value, log_prob = (normal(*SHAPE, seed=seed) for seed in range(3))
    terminated = torch.zeros(SHAPE, dtype=torch.bool)
    terminated[1, 2] = True
    value[1, 2] = torch.nan  # of a state that does not exist
    target = sac_losses.soft_target(
        reward, terminated, value, log_prob, gamma=0.9, temperature=torch.tensor(0.3).double()
    )
    for m in range(SHAPE[0]):
        for s in range(SHAPE[1]):
            expected = reward[m, s]
            if not terminated[m, s]:
                expected = expected + 0.9 * (value[m, s] - 0.3 * log_prob[m, s])
            torch.testing.assert_close(target[m, s], expected, rtol=1e-7, atol=1e-7)


def test_losses_are_means_over_transitions():
    values, target = normal(2, *SHAPE), normal(*SHAPE, seed=1)
    expected = actor = 0.0
    for m in range(SHAPE[0]):
        for s in range(SHAPE[1]):
            expected += sum(0.5 * (values[c, m, s] - target[m, s]) ** 2 / 12 for c in range(2))
            actor += (0.3 * target[m, s] - values[0, m, s]) / 12
    torch.testing.assert_close(sac_losses.critic_loss(values, target), expected)
    got = sac_losses.actor_loss(values[0], target, torch.tensor(0.3).double())
    torch.testing.assert_close(got, actor)


@pytest.mark.parametrize(("entropy", "sign"), [(-3.0, -1.0), (1.0, 1.0)])
def test_the_temperature_rises_where_the_entropy_is_below_its_target(entropy, sign):
    log_temperature = torch.zeros((), requires_grad=True)
    log_prob = torch.full(SHAPE, -entropy, requires_grad=True)
    sac_losses.temperature_loss(log_temperature, log_prob, target_entropy=-2.0).backward()
    # The derivative is -(target - entropy): -1 at an entropy of -3, 3 at 1.
    assert log_temperature.grad.item() == pytest.approx(entropy + 2.0)
    assert log_temperature.grad.sign() == sign
    assert log_prob.grad is None
