"""Policy losses: the clipped surrogate of PPO and the inner losses of gradient agents.

Axes: `T` steps, `N` tasks, `B` rollouts; where a docstring gives no shape, any equal shapes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.native.losses import PPO_METRICS, can_join, surrogate
from metarl.ranks import ALONE, Ranks
from metarl.trajectory import episode_start


def masked_mean(value: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid transitions; `valid` is float, 1 for valid and 0 for padding."""
    return (value * valid).sum() / valid.sum()


class ClippedLoss(NamedTuple):
    """The surrogate loss of PPO and diagnostics of the step size."""

    loss: Tensor  # [] minimised
    approximate_kl: Tensor  # [] KL(old || new), estimator (ratio - 1) - log(ratio)
    clip_fraction: Tensor  # [] share of transitions whose ratio is outside [1 - c, 1 + c]


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, valid: Tensor, *, clip_range: float
) -> ClippedLoss:
    """The clipped surrogate of PPO.

        loss = - mean( min( r A, clamp(r, 1 - c, 1 + c) A ) ),   r = exp(log_prob - old)

    where c is `clip_range`.

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    surrogate = clipped_gain(ratio, advantage, clip_range=clip_range)
    with torch.no_grad():
        kl = masked_mean(ratio - 1.0 - log_ratio, valid)
        outside = masked_mean(((ratio - 1.0).abs() > clip_range).to(ratio.dtype), valid)
    return ClippedLoss(-masked_mean(surrogate, valid), kl, outside)


class PPOTerms(NamedTuple):
    """What the loss of PPO reads of some transitions; equal shapes."""

    log_prob: Tensor
    old_log_prob: Tensor  # when the actions were taken
    advantage: Tensor
    value: Tensor
    value_target: Tensor
    entropy: Tensor
    valid: Tensor  # float, 1 for transitions that count


def ppo_loss(
    terms: PPOTerms, *, clip_range: float, value_coef: float, entropy_coef: Tensor | float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate + value_coef * squared error - entropy_coef * entropy; and its parts.

    By the compiled library, where it is.

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 9.
    """
    if can_join(terms) and isinstance(entropy_coef, float):
        loss, means = surrogate(
            terms, clip_range=clip_range, value_coef=value_coef, entropy_coef=entropy_coef
        )
        return loss, dict(zip(PPO_METRICS, means.unbind(), strict=True))
    policy = clipped_surrogate(
        terms.log_prob, terms.old_log_prob, terms.advantage, terms.valid, clip_range=clip_range
    )
    value_loss = masked_mean((terms.value - terms.value_target).square(), terms.valid)
    entropy = masked_mean(terms.entropy, terms.valid)
    loss = policy.loss + value_coef * value_loss - entropy_coef * entropy
    parts = (policy.loss, value_loss, entropy, policy.approximate_kl, policy.clip_fraction)
    return loss, dict(zip(PPO_METRICS, (part.detach() for part in parts), strict=True))


def clipped_gain(ratio: Tensor, advantage: Tensor, *, clip_range: float) -> Tensor:
    """min(r A, clamp(r, 1 - clip_range, 1 + clip_range) A), for each transition."""
    return torch.minimum(
        ratio * advantage, ratio.clamp(1.0 - clip_range, 1.0 + clip_range) * advantage
    )


def normalised(advantage: Tensor, valid: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """Advantages shifted and scaled to mean 0 and standard deviation 1 over valid transitions.

    Those of all ranks together.
    """
    count = valid.sum()
    mean = ranks.ratio((advantage * valid).sum(), count)
    centred = advantage - mean
    deviation = ranks.ratio((centred.square() * valid).sum(), count).sqrt()
    return centred / (deviation + 1e-8)


def score_function(log_prob: Tensor, advantage: Tensor, valid: Tensor) -> Tensor:
    """The score-function loss (REINFORCE) of each task.

        loss[n] = - mean over t, b of log_prob A

    Its gradient is an unbiased estimate. Its Hessian is biased, because it ignores the effect of
    the parameters on later states; the estimators below correct this.

    Args:
        log_prob: [T, N, B] of the actions taken, differentiable by the parameters.
        advantage: [T, N, B].
        valid: [T, N, B] float, 1 where a lane is active.

    Returns:
        [N].

    Source: Williams 1992, doi:10.1007/BF00992696; in Finn et al. 2017, arXiv:1703.03400, eq. 5.
    """
    return -mean_by_task(log_prob * advantage, valid)


def low_variance_curvature(
    log_prob: Tensor, acting_log_prob: Tensor, advantage: Tensor, valid: Tensor
) -> Tensor:
    """The low-variance curvature (LVC) loss of each task.

        loss[n] = - mean over t, b of exp(log_prob - acting_log_prob) A

    At the acting parameters its gradient equals that of `score_function`. Its Hessian has one term
    more, so it is less biased; its variance is lower than that of DiCE.

    Args:
        log_prob: [T, N, B] of the actions taken, differentiable by the parameters.
        acting_log_prob: [T, N, B] under the policy that took them.
        advantage: [T, N, B].
        valid: [T, N, B] float.

    Returns:
        [N].

    Source: Rothfuss et al. 2019 (ProMP), arXiv:1810.06784, eq. 8.
    """
    return -mean_by_task((log_prob - acting_log_prob).exp() * advantage, valid)


def dice(log_prob: Tensor, reward: Tensor, value: Tensor, first: Tensor, valid: Tensor) -> Tensor:
    """The DiCE loss of each task: unbiased derivatives of any order.

        loss[n] = - mean over t, b of magic(w[t]) r[t] + (1 - magic(log_prob[t])) v[t]
        magic(x) = exp(x - stop(x)),   w[t] = sum of log_prob over the episode, up to t

    Args:
        log_prob: [T, N, B] of the actions taken, differentiable by the parameters.
        reward: [T, N, B], discounted to the start of its episode.
        value: [T, N, B], a baseline in the same units; it does not bias the derivatives.
        first: [T, N, B] bool, an episode starts.
        valid: [T, N, B] float.

    Returns:
        [N].

    Source: Foerster et al. 2018, arXiv:1802.05098, eqs. 4 and 9.
    """
    whole = _sum_over_episode(log_prob, first)
    return -mean_by_task(_magic(whole) * reward + (1 - _magic(log_prob)) * value, valid)


def loaded_dice(log_prob: Tensor, advantage: Tensor, first: Tensor, valid: Tensor) -> Tensor:
    """The Loaded DiCE loss of each task: DiCE with advantages, which has far lower variance.

        loss[n] = - mean over t, b of (magic(w[t]) - magic(w[t] - log_prob[t])) A[t]

    with `magic` and `w` of `dice`. Its gradient equals that of `score_function`.

    Args:
        log_prob: [T, N, B] of the actions taken, differentiable by the parameters.
        advantage: [T, N, B].
        first: [T, N, B] bool, an episode starts.
        valid: [T, N, B] float.

    Returns:
        [N].

    Source: Farquhar et al. 2019, arXiv:1909.10549, with lambda 1 and, as usual in policy gradients,
    without discounting states by their time step.
    """
    whole = _sum_over_episode(log_prob, first)
    return -mean_by_task((_magic(whole) - _magic(whole - log_prob)) * advantage, valid)


def mean_by_task(value: Tensor, valid: Tensor) -> Tensor:
    """Mean of [T, N, B] over the transitions with `valid` 1, for each task, [N]."""
    return (value * valid).sum((0, 2)) / valid.sum((0, 2))


def _magic(value: Tensor) -> Tensor:
    """One, with the derivatives of exp."""
    return (value - value.detach()).exp()


def _sum_over_episode(value: Tensor, first: Tensor) -> Tensor:
    """Running sum over the steps, which restarts at each episode start; [T, N, B]."""
    running = value.cumsum(0)
    return running - (running - value).gather(0, episode_start(first))
