"""The losses of the soft actor-critic as pure functions.

Source: Haarnoja et al. 2018, arXiv:1812.05905, which learns no state values.
"""

from torch import Tensor


def soft_target(
    reward: Tensor,
    terminated: Tensor,
    next_value: Tensor,
    next_log_prob: Tensor,
    *,
    gamma: float,
    temperature: Tensor,
) -> Tensor:
    """What action values are trained towards, [...] (eqs. 3 and 5).

        r[t] + gamma (1 - terminated[t]) (Q(s[t + 1], a) - temperature log pi(a | s[t + 1]))

    A truncated episode is bootstrapped: the time limit is no part of the task.

    Args:
        reward: [...] float.
        terminated: [...] bool.
        next_value: [...] the smaller target critic at a sampled next action `a`.
        next_log_prob: [...] log-density of this action.
        gamma: discount per step.
        temperature: [] weight of the entropy.
    """
    soft_value = next_value - temperature * next_log_prob
    return reward + gamma * soft_value.masked_fill(terminated, 0.0)


def critic_loss(values: Tensor, target: Tensor) -> Tensor:
    """Squared error of each critic, values [C, ...], summed over critics (eq. 5)."""
    return 0.5 * (values - target).square().flatten(1).mean(1).sum()


def actor_loss(value: Tensor, log_prob: Tensor, temperature: Tensor) -> Tensor:
    """Mean of temperature * log pi - Q over sampled actions [...] (eq. 9)."""
    return (temperature * log_prob - value).mean()


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Raises the temperature where the entropy is below its target (eq. 18).

    The gradient is taken by the logarithm, as in the authors' code; actions [...] are held fixed.
    """
    return -log_temperature * (log_prob.detach().mean() + target_entropy)
