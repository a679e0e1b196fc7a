"""Building blocks of policies: features of a sequence or of one step in, features out.

Axes: `T` steps, `L` lanes, then features (`F` in, `H` out).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from metarl.gru import gru_sequence

CoreName: TypeAlias = Literal["gru", "lstm", "none"]
CoreState: TypeAlias = tuple[Tensor, ...]
"""what a memory core carries from step to step, each [L, H]"""


def linear(inputs: int, outputs: int, *, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with orthogonal weights times `gain`, and zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: Sequence[int], *, last_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Linear layers of the given sizes with ReLU between them; the last scaled by `last_gain`."""
    *hidden, last = pairwise(sizes)
    layers: list[nn.Module] = []
    for inputs, outputs in hidden:
        layers += [linear(inputs, outputs, gain=2**0.5, generator=generator), nn.ReLU()]
    layers.append(linear(*last, gain=last_gain, generator=generator))
    return nn.Sequential(*layers)


class Core(nn.Module, ABC):
    """Memory: what happened so far, in one vector per lane. `step` and `sequence` agree."""

    @abstractmethod
    def initial_state(self, lanes: int) -> CoreState:
        """The state at the start of a trial."""

    @abstractmethod
    def step(self, features: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        """One step: [L, F] -> output [L, H] and the next state."""

    @abstractmethod
    def sequence(self, features: Tensor) -> Tensor:
        """Whole trials from their start: [T, L, F] -> [T, L, H]."""


class GRUCore(Core):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), orthogonal recurrent weights."""

    def __init__(self, inputs: int, hidden: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden)
        _initialise_gates(self.gru, generator)

    def initial_state(self, lanes: int) -> CoreState:
        """Zeros."""
        return (next(self.gru.parameters()).new_zeros(lanes, self.gru.hidden_size),)

    def step(self, features: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        """One GRU cell."""
        hidden = torch.gru_cell(features, state[0], *self.gru.parameters())
        return hidden, (hidden,)

    def sequence(self, features: Tensor) -> Tensor:
        """The fused kernel on a GPU; on a CPU our own, which is faster there."""
        if features.is_cuda:
            output: Tensor = self.gru(features)[0]
            return output
        return gru_sequence(features, *self.gru.parameters())


class LSTMCore(Core):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), forget bias 1."""

    def __init__(self, inputs: int, hidden: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden)
        _initialise_gates(self.lstm, generator)
        bias = self.lstm.get_parameter("bias_ih_l0")
        nn.init.ones_(bias.data[hidden : 2 * hidden])

    def initial_state(self, lanes: int) -> CoreState:
        """Zeros: hidden and cell."""
        zeros = next(self.lstm.parameters()).new_zeros(lanes, self.lstm.hidden_size)
        return zeros, zeros

    def step(self, features: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        """One LSTM cell."""
        hidden, cell = torch.lstm_cell(features, state, *self.lstm.parameters())
        return hidden, (hidden, cell)

    def sequence(self, features: Tensor) -> Tensor:
        """The fused kernel on a GPU; a loop of cells on a CPU, which is faster there."""
        if features.is_cuda:
            output: Tensor = self.lstm(features)[0]
            return output
        state = self.initial_state(features.shape[1])
        outputs = []
        for now in features.unbind(0):  # NOTE: features[t] would make backward quadratic in T
            output, state = self.step(now, state)
            outputs.append(output)
        return torch.stack(outputs)


class NoMemory(Core):
    """The negative control: one layer that sees this step alone."""

    def __init__(self, inputs: int, hidden: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = linear(inputs, hidden, gain=2**0.5, generator=generator)

    def initial_state(self, lanes: int) -> CoreState:
        """Nothing to carry."""
        return ()

    def step(self, features: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        """Features of this step alone."""
        return torch.relu(self.layer(features)), state

    def sequence(self, features: Tensor) -> Tensor:
        """Each step by itself."""
        return torch.relu(self.layer(features))


CORES: dict[CoreName, type[GRUCore] | type[LSTMCore] | type[NoMemory]] = {
    "gru": GRUCore,
    "lstm": LSTMCore,
    "none": NoMemory,
}


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

    @torch.no_grad()
    def observe(self, returns: Tensor) -> None:
        """Moves the statistics towards those of `returns` [M] and corrects the last layer."""
        self.count += 1
        # Bias-corrected exponential mean: the first batch counts fully.
        rate = (1.0 - self._decay) / (1.0 - self._decay**self.count)
        mean = torch.lerp(self.mean, returns.mean(), rate)
        # Spread around the new mean: no difference of large squares.
        old = self.deviation.square() + (self.mean - mean).square()
        variance = torch.lerp(old, (returns - mean).square().mean(), rate)
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
    def observe(self, value: Tensor) -> None:
        """Takes [M, F] into account, each row as much as every row before."""
        variance, mean = torch.var_mean(value, 0, correction=0)
        old = self.deviation.square() if self.count > 0 else torch.zeros_like(variance)
        self.count += len(value)
        share = (len(value) / self.count).to(mean.dtype)
        spread = (mean - self.mean).square() * share * (1.0 - share)
        self.mean.lerp_(mean, share)
        self.deviation.copy_((torch.lerp(old, variance, share) + spread).clamp_min(1e-8).sqrt())


def _initialise_gates(core: nn.GRU | nn.LSTM, generator: torch.Generator) -> None:
    """Orthogonal weights gate by gate, zero biases."""
    for name, parameter in core.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
            continue
        for gate in parameter.data.view(-1, core.hidden_size, parameter.shape[1]):
            nn.init.orthogonal_(gate, generator=generator)
