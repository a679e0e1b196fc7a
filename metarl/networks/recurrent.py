"""Built-in memories: GRU, LSTM, GRU with attention, and none as the negative control.

Each is a linear embedding with ReLU, then a sequence core over the embedded features.

Axes: `T` steps, `L` lanes, `M` attention heads, then features (`F` in, `H` out).
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarl.errors import ConfigError
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
        self._observation_only = observation_only

    def initial_state(self, lanes: int, horizon: int) -> MemoryState:
        """That of the core."""
        return self.core.initial_state(lanes, horizon)

    def step(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """One step of the core."""
        return self.core.step(self._embed(inputs), state)

    def sequence(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """All steps of the core."""
        return self.core.sequence(self._embed(inputs), state)

    def _embed(self, inputs: PolicyInputs) -> Tensor:
        values = inputs.observation if self._observation_only else inputs.values
        return torch.relu(self.embedding(values))


class LSTMCore(SequenceCore):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), forget bias 1."""

    def __init__(self, inputs: int, hidden_size: int, *, generator: Generator) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden_size)
        initialise_gates(self.lstm, generator)
        bias = self.lstm.get_parameter("bias_ih_l0")
        nn.init.ones_(bias.data[hidden_size : 2 * hidden_size])

    def initial_state(self, lanes: int, horizon: int) -> tuple[Tensor, Tensor]:
        """Zeros: hidden and cell, [L, H] each."""
        zeros = next(self.lstm.parameters()).new_zeros(lanes, self.lstm.hidden_size)
        return zeros, zeros

    def step(
        self, features: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One LSTM cell."""
        hidden, cell = torch.lstm_cell(features, state, *self.lstm.parameters())
        return hidden, (hidden, cell)

    def sequence(
        self, features: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The fused kernel on a GPU; a loop of cells on a CPU, which is faster there."""
        if features.is_cuda:
            output, (hidden, cell) = self.lstm(features, tuple(s.unsqueeze(0) for s in state))
            return output, (hidden[0], cell[0])
        outputs = []
        for now in features.unbind(0):  # NOTE: features[t] would make backward quadratic in T
            output, state = self.step(now, state)
            outputs.append(output)
        return torch.stack(outputs), state


class AttentionState(NamedTuple):
    """What `AttentionCore` carries; keys and values are allocated for the whole trial."""

    hidden: Tensor  # [L, H] of the GRU
    keys: Tensor  # [L, M, horizon, H / M]
    values: Tensor  # [L, M, horizon, H / M]
    length: int  # steps written so far


class AttentionCore(SequenceCore):
    """A GRU, and softmax attention over every step of the trial so far.

    With features x[t] and the GRU's output h[t], in each of `M` heads, where q, k and v are linear
    in [h, x]:

        read[t] = sum over s <= t of w[s] v[s],   w = softmax(q[t] . k[s] / sqrt(H / M))

    The output is relu(W [h[t], x[t], read[t] of all heads]).

    A GRU alone must keep everything it may need in one vector, which is hard to learn where there
    is much to remember, as in the tables of an MDP. The cost: 2 H more numbers per lane and step,
    and acting takes time in proportion to T^2.

    Sources: Mishra et al. 2018, arXiv:1707.03141 (SNAIL: attention for meta-learners, there over
    temporal convolutions); Vaswani et al. 2017, arXiv:1706.03762, section 3.2 (the attention).
    """

    def __init__(self, inputs: int, hidden_size: int, *, heads: int, generator: Generator) -> None:
        super().__init__()
        self.heads = heads
        self.gru = GRUCore(inputs, hidden_size, generator=generator)
        read = hidden_size + inputs
        self.query = linear(read, hidden_size, gain=1.0, generator=generator)
        # Keys, then values.
        self.entry = linear(read, 2 * hidden_size, gain=1.0, generator=generator)
        self.merge = linear(read + hidden_size, hidden_size, gain=2**0.5, generator=generator)

    def initial_state(self, lanes: int, horizon: int) -> AttentionState:
        """That of the GRU, and room for the keys and values of `horizon` steps."""
        hidden = self.gru.initial_state(lanes, horizon)
        room = hidden.new_empty(2, lanes, self.heads, horizon, hidden.shape[1] // self.heads)
        return AttentionState(hidden, room[0], room[1], 0)

    def step(self, features: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """One GRU cell, one more key and value, one query.

        NOTE: keys and values are written in place, so a state can be stepped from only once.
        """
        hidden, _ = self.gru.step(features, state.hidden)
        both = torch.cat((hidden, features), -1)
        query, key, value = self._parts(both.unsqueeze(0))
        keys, values, end = state.keys, state.values, state.length + 1
        if end > keys.shape[2]:  # beyond the horizon, or after `sequence`, which leaves no room
            keys, values = torch.cat((keys, key), 2), torch.cat((values, value), 2)
        else:
            keys[:, :, end - 1], values[:, :, end - 1] = key.squeeze(2), value.squeeze(2)
        past = keys[:, :, :end], values[:, :, :end]
        read = nn.functional.scaled_dot_product_attention(query, *past).flatten(1)
        return self._merged(both, read), AttentionState(hidden, keys, values, end)

    def sequence(self, features: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """The GRU, then all queries at once, each over the steps up to its own."""
        hidden, last = self.gru.sequence(features, state.hidden)
        both = torch.cat((hidden, features), -1)
        query, keys, values = self._parts(both)
        start, end = state.length, state.length + len(features)
        masked: dict[str, Any] = {"is_causal": True}
        if start:
            keys = torch.cat((state.keys[:, :, :start], keys), 2)
            values = torch.cat((state.values[:, :, :start], values), 2)
            seen = torch.ones(len(features), end, dtype=torch.bool, device=features.device)
            masked = {"attn_mask": seen.tril(start)}
        # On a GPU the faster kernels add gradients up in another order each time.
        exact = sdpa_kernel(SDPBackend.MATH) if features.is_cuda else nullcontext()
        with exact:
            read = nn.functional.scaled_dot_product_attention(query, keys, values, **masked)
        output = self._merged(both, read.permute(2, 0, 1, 3).flatten(2))
        return output, AttentionState(last, keys, values, end)

    def _parts(self, both: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, L, H + F] -> query, key and value of each step, [L, M, T, H / M]."""
        parts = torch.cat((self.query(both), self.entry(both)), -1)
        parts = parts.view(*both.shape[:2], 3, self.heads, -1).permute(2, 1, 3, 0, 4)
        return parts[0], parts[1], parts[2]

    def _merged(self, both: Tensor, read: Tensor) -> Tensor:
        """[..., H + F] and [..., H] -> [..., H]."""
        return torch.relu(self.merge(torch.cat((both, read), -1)))


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
