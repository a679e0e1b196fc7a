"""Diagonal Gaussians as pure functions: products of densities, and actions squashed to a box.

Axes: any leading ones, then `Z` latent variables or `A` action components.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class NaturalGaussian(NamedTuple):
    """A diagonal Gaussian by its natural parameters, which add up when densities are multiplied.

    A precision of 0 stands for a constant factor, which says nothing.
    """

    precision: Tensor  # [..., Z] 1 / variance
    shift: Tensor  # [..., Z] precision * mean

    @property
    def mean(self) -> Tensor:
        """[..., Z]."""
        return self.shift / self.precision

    def times(self, other: "NaturalGaussian") -> "NaturalGaussian":
        """The product of both densities, normalised."""
        return NaturalGaussian(self.precision + other.precision, self.shift + other.shift)

    def product(self, axis: int, where: Tensor) -> "NaturalGaussian":
        """The product along an axis of the factors where `where` [..., 1] is True."""
        return NaturalGaussian(
            *(torch.where(where, value, 0.0).sum(axis) for value in self)  # cuts NaN, too
        )

    def sample(self, standard: Tensor) -> Tensor:
        """Mean + deviation * standard, [..., Z]; differentiable in the parameters."""
        return self.mean + self.precision.rsqrt() * standard

    def kl_from_standard(self) -> Tensor:
        """KL(self || N(0, I)) = sum over Z of (v + m^2 - 1 - log v) / 2, [...]."""
        variance = self.precision.reciprocal()
        return 0.5 * (variance + self.mean.square() - 1.0 + self.precision.log()).sum(-1)


def standard_gaussian(like: Tensor) -> NaturalGaussian:
    """N(0, I) in the shape of `like`, [..., Z]."""
    return NaturalGaussian(torch.ones_like(like), torch.zeros_like(like))


def squashed_sample(mean: Tensor, log_std: Tensor, standard: Tensor) -> tuple[Tensor, Tensor]:
    """A sample of a Gaussian squashed to (-1, 1) by tanh, [..., A], and its log-density, [...].

        x = mean + exp(log_std) * standard,   u = tanh(x)
        log p(u) = sum over A of log N(x; mean, exp(log_std)) - log(1 - u^2)

    log(1 - u^2) is computed as 2 (log 2 - x - softplus(-2 x)), which is exact where u rounds to 1.

    Source: Haarnoja et al. 2018, arXiv:1801.01290, appendix C.
    """
    point = mean + log_std.exp() * standard
    log_volume = 2.0 * (math.log(2.0) - point - softplus(-2.0 * point))
    log_prob = -0.5 * standard.square() - log_std - 0.5 * math.log(2.0 * math.pi) - log_volume
    return point.tanh(), log_prob.sum(-1)
