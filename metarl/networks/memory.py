"""Memories of recurrent policies: features of each step in, features of all that was seen out.

Axes: `T` steps, `L` lanes, `M` heads, then features (`F` in, `H` out).
"""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metarl.networks.gru_kernel import gru_sequence
from metarl.networks.layers import linear

MemoryName: TypeAlias = Literal["gru", "lstm", "attention", "none"]
CoreState: TypeAlias = tuple[Tensor, ...]
"""what a memory core carries from step to step, each [L, ...]"""


class Core(nn.Module, ABC):
    """Memory: what happened so far, in one vector per lane. `step` and `sequence` agree."""

    width_multiple: ClassVar[int] = 1
    """of which `hidden_size` must be a multiple"""

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

    def __init__(self, inputs: int, hidden_size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden_size)
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

    def __init__(self, inputs: int, hidden_size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden_size)
        _initialise_gates(self.lstm, generator)
        bias = self.lstm.get_parameter("bias_ih_l0")
        nn.init.ones_(bias.data[hidden_size : 2 * hidden_size])

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


class AttentionCore(Core):
    """A GRU, and softmax attention over every step of the trial so far.

    With features x[t] and the GRU's output h[t], in each of `M` = 4 heads, where q, k and v are
    linear in [h, x]:

        read[t] = sum over s <= t of w[s] v[s],   w = softmax(q[t] . k[s] / sqrt(H / M))

    The output is relu(W [h[t], x[t], read[t] of all heads]).

    A GRU alone must keep all that it may need in one vector, which is hard to learn where there is
    much to be remembered, as in the tables of an MDP. The price: 2 H numbers more in each lane at
    each step, so that acting for a whole trial takes time in proportion to T^2.

    Sources: Mishra et al. 2018, arXiv:1707.03141 (SNAIL: attention for meta-learners, there over
    temporal convolutions); Vaswani et al. 2017, arXiv:1706.03762, section 3.2 (the attention).
    """

    width_multiple: ClassVar[int] = 4  # M, the heads

    def __init__(self, inputs: int, hidden_size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.gru = GRUCore(inputs, hidden_size, generator=generator)
        read = hidden_size + inputs
        self.query = linear(read, hidden_size, gain=1.0, generator=generator)
        self.entry = linear(
            read, 2 * hidden_size, gain=1.0, generator=generator
        )  # keys, then values
        self.merge = linear(read + hidden_size, hidden_size, gain=2**0.5, generator=generator)

    def initial_state(self, lanes: int) -> CoreState:
        """That of the GRU, no keys and no values, [L, M, 0, H / M]."""
        (hidden,) = self.gru.initial_state(lanes)
        heads = self.width_multiple
        nothing = hidden.new_zeros(lanes, heads, 0, hidden.shape[1] // heads)
        return hidden, nothing, nothing

    def step(self, features: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        """One GRU cell, one more key and value, one query."""
        hidden, keys, values = state
        hidden, _ = self.gru.step(features, (hidden,))
        both = torch.cat((hidden, features), -1)
        query, key, value = self._parts(both.unsqueeze(0))
        keys, values = torch.cat((keys, key), 2), torch.cat((values, value), 2)
        read = nn.functional.scaled_dot_product_attention(query, keys, values).flatten(1)
        return self._merged(both, read), (hidden, keys, values)

    def sequence(self, features: Tensor) -> Tensor:
        """The GRU, then all queries at once, each of the steps before its own and of its own."""
        both = torch.cat((self.gru.sequence(features), features), -1)
        query, keys, values = self._parts(both)
        # On a GPU the faster kernels add gradients up in another order each time.
        exact = sdpa_kernel(SDPBackend.MATH) if features.is_cuda else nullcontext()
        with exact:
            read = nn.functional.scaled_dot_product_attention(query, keys, values, is_causal=True)
        return self._merged(both, read.permute(2, 0, 1, 3).flatten(2))

    def _parts(self, both: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, L, H + F] -> query, key and value of each step, [L, M, T, H / M]."""
        parts = torch.cat((self.query(both), self.entry(both)), -1)
        parts = parts.view(*both.shape[:2], 3, self.width_multiple, -1).permute(2, 1, 3, 0, 4)
        return parts[0], parts[1], parts[2]

    def _merged(self, both: Tensor, read: Tensor) -> Tensor:
        """[..., H + F] and [..., H] -> [..., H]."""
        return torch.relu(self.merge(torch.cat((both, read), -1)))


class NoMemory(Core):
    """The negative control: one layer that sees this step alone."""

    def __init__(self, inputs: int, hidden_size: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = linear(inputs, hidden_size, gain=2**0.5, generator=generator)

    def initial_state(self, lanes: int) -> CoreState:
        """Nothing to carry."""
        return ()

    def step(self, features: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        """Features of this step alone."""
        return torch.relu(self.layer(features)), state

    def sequence(self, features: Tensor) -> Tensor:
        """Each step by itself."""
        return torch.relu(self.layer(features))


CORES: dict[MemoryName, type[GRUCore] | type[LSTMCore] | type[AttentionCore] | type[NoMemory]] = {
    "gru": GRUCore,
    "lstm": LSTMCore,
    "attention": AttentionCore,
    "none": NoMemory,
}


def _initialise_gates(core: nn.GRU | nn.LSTM, generator: torch.Generator) -> None:
    """Orthogonal weights gate by gate, zero biases."""
    for name, parameter in core.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
            continue
        for gate in parameter.data.view(-1, core.hidden_size, parameter.shape[1]):
            nn.init.orthogonal_(gate, generator=generator)
