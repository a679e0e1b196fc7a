"""Generalised advantage estimation.

Axes: `T` steps first, any lane axes after it.
"""

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimates, one per transition.

        delta[t] = reward[t] + gamma * (1 - terminated[t]) * next_value[t] - value[t]
        adv[t]   = delta[t] + gamma * gae_lambda * (1 - last[t]) * adv[t + 1],   adv[T] = 0

    where `last = terminated | truncated`. Termination removes the bootstrap value, truncation keeps
    it, and both end the sum. The return of a recurrent agent continues across the episodes of a
    trial, so such an agent passes the end of the *trial* as `terminated`.

    Args:
        reward: [T, ...] float, received for the action at obs[t].
        value: [T, ...] float, V(obs[t]).
        next_value: [T, ...] float, V(next_obs[t]), taken before any reset.
        terminated: [T, ...] bool, next_obs[t] has no future reward.
        truncated: [T, ...] bool, cut off at next_obs[t] by a limit, not by the task.
        gamma: discount per step, in [0, 1].
        gae_lambda: 0 gives one-step TD errors, 1 gives Monte-Carlo returns minus `value`.

    Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16, extended to truncation.
    """
    last = terminated | truncated
    delta = reward + gamma * next_value.masked_fill(terminated, 0.0) - value
    decay = (gamma * gae_lambda) * (~last).to(delta.dtype)

    advantage = torch.empty_like(delta)
    tail = torch.zeros_like(delta[0])
    for t in reversed(range(delta.shape[0])):
        tail = torch.addcmul(delta[t], decay[t], tail, out=advantage[t])
    return advantage
