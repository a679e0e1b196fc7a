"""Built-in memories: GRU, LSTM, GRU with attention, and none as the negative control.

Each is a linear embedding with ReLU, then a sequence core over the embedded features.

Axes: `T` steps, `L` lanes, then features (`F` in, `H` out).
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from metarl.errors import ConfigError
from metarl.native.recurrent import Recurrence, can_run, run, step
from metarl.networks.attention import AttentionCore
from metarl.networks.gru import GRUCore, initialise_gates
from metarl.networks.layers import linear
from metarl.networks.memory import (
    InputSizes,
    MemoryCore,
    MemoryOptions,
    MemoryState,
    PolicyInputs,
    SequenceCore,
)


@dataclass(frozen=True, kw_only=True)
class GRUOptions(MemoryOptions):
    """Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078)."""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the whole percept."""
        embedding = linear(sizes.total, hidden_size, gain=2**0.5, generator=generator)
        return Embedded(embedding, GRUCore(hidden_size, hidden_size, generator=generator))


@dataclass(frozen=True, kw_only=True)
class LSTMOptions(MemoryOptions):
    """Long short-term memory (Hochreiter and Schmidhuber 1997)."""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the whole percept."""
        embedding = linear(sizes.total, hidden_size, gain=2**0.5, generator=generator)
        return Embedded(embedding, LSTMCore(hidden_size, hidden_size, generator=generator))


@dataclass(frozen=True, kw_only=True)
class AttentionOptions(MemoryOptions):
    """GRU with softmax attention over every earlier step (Mishra et al. 2018, arXiv:1707.03141)."""

    heads: int = 4
    """attention heads; must divide hidden_size"""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the whole percept."""
        if not isinstance(self.heads, int) or self.heads < 1 or hidden_size % self.heads:
            raise ConfigError(
                f"hidden_size={hidden_size} does not divide into heads={self.heads} of the memory "
                "'attention'; it must be a multiple of it."
            )
        embedding = linear(sizes.total, hidden_size, gain=2**0.5, generator=generator)
        core = AttentionCore(hidden_size, hidden_size, heads=self.heads, generator=generator)
        return Embedded(embedding, core)


@dataclass(frozen=True, kw_only=True)
class NoMemoryOptions(MemoryOptions):
    """No memory, the negative control: reads the present observation alone.

    It reads no previous action, reward or flags either: they would be a memory of one step.
    """

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the observation alone."""
        embedding = linear(sizes.observation, hidden_size, gain=2**0.5, generator=generator)
        layer = FeedforwardCore(hidden_size, hidden_size, generator=generator)
        return Embedded(embedding, layer, observation_only=True)


class Embedded(MemoryCore):
    """Linear embedding, ReLU, sequence core."""

    def __init__(
        self, embedding: nn.Linear, core: SequenceCore, *, observation_only: bool = False
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.core = core
        self.observation_only = observation_only
        layer = core.layer if isinstance(core, GRUCore | LSTMCore) else None
        self.recurrence = None if layer is None else Recurrence(layer, embedding)

    def initial_state(self, lanes: int, horizon: int) -> MemoryState:
        """That of the core."""
        return self.core.initial_state(lanes, horizon)

    def step(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """One step of the core."""
        values = self._read(inputs)
        if self.recurrence is not None and can_run(self.recurrence, values, state):
            return step(self.recurrence, values, state)
        return self.core.step(self._embed(values), state)

    def sequence(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """All steps of the core."""
        values = self._read(inputs)
        if self.recurrence is not None and can_run(self.recurrence, values, state):
            return run(self.recurrence, values, state)
        return self.core.sequence(self._embed(values), state)

    def _read(self, inputs: PolicyInputs) -> Tensor:
        return inputs.observation if self.observation_only else inputs.values

    def _embed(self, values: Tensor) -> Tensor:
        return torch.relu(self.embedding(values))


class LSTMCore(SequenceCore):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), forget bias 1."""

    def __init__(self, inputs: int, hidden_size: int, *, generator: Generator) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden_size)
        initialise_gates(self.lstm, generator)
        bias = self.lstm.get_parameter("bias_ih_l0")
        nn.init.ones_(bias.data[hidden_size : 2 * hidden_size])

    @property
    def layer(self) -> nn.LSTM:
        """The weights."""
        return self.lstm

    def initial_state(self, lanes: int, horizon: int) -> tuple[Tensor, Tensor]:
        """Zeros: hidden and cell, [L, H] each."""
        zeros = next(self.lstm.parameters()).new_zeros(lanes, self.lstm.hidden_size)
        return zeros, zeros

    def step(
        self, features: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One LSTM cell."""
        if can_run(recurrence := Recurrence(self.lstm), features, state):
            return step(recurrence, features, state)
        hidden, cell = torch.lstm_cell(features, state, *self.lstm.parameters())
        return hidden, (hidden, cell)

    def sequence(
        self, features: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """By the compiled library, the fused kernel on a GPU, or else a loop of cells."""
        if can_run(recurrence := Recurrence(self.lstm), features, state):
            return run(recurrence, features, state)
        if features.is_cuda:
            output, (hidden, cell) = self.lstm(features, tuple(s.unsqueeze(0) for s in state))
            return output, (hidden[0], cell[0])
        outputs = []
        for now in features.unbind(0):  # NOTE: features[t] would make backward quadratic in T
            output, state = self.step(now, state)
            outputs.append(output)
        return torch.stack(outputs), state


class FeedforwardCore(SequenceCore):
    """One layer that reads the present step alone."""

    def __init__(self, inputs: int, hidden_size: int, *, generator: Generator) -> None:
        super().__init__()
        self.layer = linear(inputs, hidden_size, gain=2**0.5, generator=generator)

    def initial_state(self, lanes: int, horizon: int) -> None:
        """Nothing to carry."""
        return

    def step(self, features: Tensor, state: None) -> tuple[Tensor, None]:
        """The layer."""
        return torch.relu(self.layer(features)), None

    def sequence(self, features: Tensor, state: None) -> tuple[Tensor, None]:
        """The layer at each step."""
        return torch.relu(self.layer(features)), None
