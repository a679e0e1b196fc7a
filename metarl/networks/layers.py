"""Building blocks of policies: layers, value heads and running scales."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from metarl.native.library import serves
from metarl.native.perceptron import perceptron
from metarl.ranks import ALONE, Ranks


def linear(inputs: int, outputs: int, *, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights times `gain`, and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


class MLP(nn.Sequential):
    """Linear layers with ReLU between them."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]; with one hidden layer by the compiled library."""
        weights = tuple(self.parameters())
        if len(weights) == 4 and x.shape[-1] == weights[0].shape[1] and serves(x, weights[0]):
            return perceptron(x, weights)
        for layer in self:
            x = layer(x)
        return x


def mlp(sizes: Sequence[int], *, last_gain: float, generator: torch.Generator) -> MLP:
    """Linear layers of the given sizes with ReLU between them; the last scaled by `last_gain`."""
    *hidden, last = pairwise(sizes)
    layers: list[nn.Module] = []
    for inputs, outputs in hidden:
        layers += [linear(inputs, outputs, gain=2**0.5, generator=generator), nn.ReLU()]
    layers.append(linear(*last, gain=last_gain, generator=generator))
    return MLP(*layers)


class ScaledValue(nn.Module):
    """A value head that predicts in units of the returns' own mean and deviation (PopArt).

    When the running mean and deviation move, the last layer is corrected so that every predicted
    value stays what it was.

    Source: van Hasselt et al. 2016, arXiv:1602.07714, eqs. 2-4.
    """

    mean: Tensor
    deviation: Tensor
    count: Tensor

    def __init__(
        self, inputs: int, hidden: int, *, decay: float = 0.95, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.layers = mlp([inputs, hidden, 1], last_gain=1.0, generator=generator)
        self._decay = decay
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """[..., H] -> values in units of the running statistics, [...]."""
        value: Tensor = self.layers(features)
        return value.squeeze(-1)

    def scaled(self, value: Tensor) -> Tensor:
        """Returns -> the head's units."""
        return (value - self.mean) / self.deviation

    def unscaled(self, value: Tensor) -> Tensor:
        """The head's units -> returns."""
        return value * self.deviation + self.mean

    def unscaled_weights(self, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Weight and bias of both layers such that they give returns, for those of the head."""
        *first, weight, bias = weights
        return *first, weight * self.deviation, self.unscaled(bias)

    @torch.no_grad()
    def observe(self, returns: Tensor, ranks: Ranks = ALONE) -> None:
        """Moves the statistics towards those of `returns` [M] and corrects the last layer."""
        self.count += 1
        # Bias-corrected exponential mean: the first batch counts fully.
        rate = (1.0 - self._decay) / (1.0 - self._decay**self.count)
        mean = torch.lerp(self.mean, ranks.mean_over(returns), rate)
        # Spread around the new mean: no difference of large squares.
        old = self.deviation.square() + (self.mean - mean).square()
        variance = torch.lerp(old, ranks.mean_over((returns - mean).square()), rate)
        deviation = variance.clamp_min(1e-4).sqrt()
        weight, bias = self.layers[-1].parameters()
        weight.mul_(self.deviation / deviation)
        bias.mul_(self.deviation).add_(self.mean - mean).div_(deviation)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)


class RunningScale(nn.Module):
    """Brings numbers of any size to mean 0 and deviation 1, by all that was observed so far.

    Until something was observed it changes nothing. What lies farther out than ten deviations is
    cut there.

    Source of the update: Chan et al. 1983, The American Statistician 37, pairwise variances.
    """

    FARTHEST = 10.0
    mean: Tensor
    deviation: Tensor
    count: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        # Whole, because float32 stops counting at 2^24.
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, value: Tensor) -> Tensor:
        """[..., F] -> [..., F] of order one."""
        return ((value - self.mean) / self.deviation).clamp(-self.FARTHEST, self.FARTHEST)

    @torch.no_grad()
    def observe(self, value: Tensor, ranks: Ranks = ALONE) -> None:
        """Takes [M, F] of all ranks into account, each row as much as every row before."""
        mean, variance, count = ranks.moments(value)
        old = self.deviation.square() if self.count > 0 else torch.zeros_like(variance)
        self.count += count
        share = (count / self.count).to(mean.dtype)
        spread = (mean - self.mean).square() * share * (1.0 - share)
        self.mean.lerp_(mean, share)
        self.deviation.copy_((torch.lerp(old, variance, share) + spread).clamp_min(1e-8).sqrt())
