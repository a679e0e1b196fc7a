"""Log-probabilities, values and advantages in, scalar losses out. Axes: anything, all alike."""

from typing import NamedTuple

import torch
from torch import Tensor


def masked_mean(value: Tensor, valid: Tensor) -> Tensor:
    """Mean over the transitions that were lived: `valid` is float, 1 where they count."""
    return (value * valid).sum() / valid.sum()


class ClippedLoss(NamedTuple):
    """The surrogate loss of PPO and what it says about the size of the step."""

    loss: Tensor  # [] to be minimised
    approximate_kl: Tensor  # [] KL(old || new), estimator (ratio - 1) - log(ratio)
    clip_fraction: Tensor  # [] share of transitions whose ratio left the trust interval


def clipped_surrogate(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, valid: Tensor, *, clip: float
) -> ClippedLoss:
    """The clipped surrogate of PPO.

        loss = - mean( min( r A, clamp(r, 1 - clip, 1 + clip) A ) ),   r = exp(log_prob - old)

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)
    with torch.no_grad():
        kl = masked_mean(ratio - 1.0 - log_ratio, valid)
        outside = masked_mean(((ratio - 1.0).abs() > clip).to(ratio.dtype), valid)
    return ClippedLoss(-masked_mean(surrogate, valid), kl, outside)


def normalised(advantage: Tensor, valid: Tensor) -> Tensor:
    """Advantages shifted and scaled to mean 0 and standard deviation 1 over valid transitions."""
    mean = masked_mean(advantage, valid)
    centred = advantage - mean
    deviation = masked_mean(centred.square(), valid).sqrt()
    return centred / (deviation + 1e-8)
