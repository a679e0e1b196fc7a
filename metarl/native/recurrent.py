"""Recurrent layers by the compiled library: GRU and LSTM, alone or behind an embedding with ReLU.

The definition is that of torch in `metarl.networks`; results differ by rounding. First derivatives
only. Sequences and single steps are computed by the same code.

Axes: `T` steps, `L` lanes, `F` inputs, `H` hidden.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metarl.native.library import (
    Layer,
    address,
    block_lanes,
    new_memory,
    parts_of,
    require_library,
    serves,
    share_out,
)

MAX_DISTINCT = 1024
"""more distinct inputs are embedded row by row"""

_GRU, _LSTM = 0, 1
_WEIGHTS = ("embedding", "embedding_bias", "weight_ih", "weight_hh", "bias_ih", "bias_hh")

State = TypeVar("State", Tensor, tuple[Tensor, Tensor])
"""hidden [L, H] of a GRU; hidden and cell of an LSTM"""


class Recurrence(NamedTuple):
    """The weights of a recurrent layer, as in `torch.nn.GRU` and `LSTM`, with its embedding."""

    core: nn.GRU | nn.LSTM
    embedding: nn.Linear | None = None
    """followed by ReLU"""

    @property
    def weights(self) -> tuple[Tensor | None, ...]:
        """Embedding and its bias, then the core's four."""
        embedding = self.embedding
        before = (None, None) if embedding is None else (embedding.weight, embedding.bias)
        return (*before, *self.core.parameters())


def can_run(recurrence: Recurrence, inputs: Tensor, state: State) -> bool:
    """Whether `run` or `step` serves these inputs and this state."""
    core, embedding = recurrence
    parts = (state,) if isinstance(state, Tensor) else state
    width = core.input_size if embedding is None else embedding.in_features
    of_state = (inputs.shape[-2], core.hidden_size)
    return (
        inputs.shape[-1] == width
        and all(part.shape == of_state for part in parts)
        and (embedding is None or not inputs.requires_grad)
        and serves(inputs, core.get_parameter("weight_hh_l0"), *parts)
    )


def run(recurrence: Recurrence, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """Hidden states [T, L, H] and the state after the last step.

    Args:
        recurrence: the layer.
        inputs: [T, L, F] of the embedding, or of the core where there is none.
        state: hidden [L, H] of a GRU; hidden and cell of an LSTM.
    """
    weights = recurrence.weights
    if isinstance(state, Tensor):
        output, _ = _output(inputs, state, None, weights)
        return output, output[-1]
    output, cell = _output(inputs, *state, weights)
    return output, (output[-1], cell)


def step(recurrence: Recurrence, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """One step: inputs [L, F] -> hidden [L, H] and the next state."""
    output, state = run(recurrence, inputs.unsqueeze(0), state)
    return output[0], state


def _output(
    inputs: Tensor, hidden: Tensor, cell: Tensor | None, weights: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Hidden states, and the last cell of an LSTM (else nothing of use)."""
    if torch.is_grad_enabled():
        output, last = _Recurrence.apply(inputs, hidden, cell, *weights)  # type: ignore[no-untyped-call]
    else:
        output, last = _Pass(inputs, hidden, cell, weights, backward=False).forward()
    return output, last


class _Pass:
    """One pass over a sequence, with what its backward pass needs."""

    def __init__(
        self,
        inputs: Tensor,
        hidden: Tensor,
        cell: Tensor | None,
        weights: Sequence[Tensor | None],
        *,
        backward: bool,
    ) -> None:
        self._library = loaded = require_library()
        self._weights = [None if w is None else w.detach().contiguous() for w in weights]
        self._hidden = hidden.detach().contiguous()
        self._cell = None if cell is None else cell.detach().contiguous()
        embedded = weights[0] is not None
        x, row = distinct(loaded, inputs) if embedded else (inputs.detach().contiguous(), None)
        self.layer = Layer(
            cell=_GRU if cell is None else _LSTM,
            embedded=embedded,
            steps=inputs.shape[0],
            lanes=inputs.shape[1],
            inputs=inputs.shape[2],
            hidden=hidden.shape[1],
            distinct=0 if row is None else len(x),
            backward=backward,
            all_lanes=inputs.shape[1],
            block=block_lanes(inputs.shape[1]),
            x=address(x),
            row=address(row),
            hidden0=address(self._hidden),
            cell0=address(self._cell),
        )
        layer_weights(self.layer, self._weights)
        sizes = (ctypes.c_int64 * 3)()
        loaded.recurrent_sizes(self.layer, sizes)
        packed, tape = hidden.new_empty(sizes[0]), hidden.new_empty(sizes[1])
        self.layer.packed, self.layer.tape = address(packed), address(tape)
        self._kept = (x, row, packed, tape)  # NOTE: the layer holds addresses alone
        self._sums = sizes[2]
        loaded.recurrent_prepare(self.layer)
        self._blocks = loaded.recurrent_blocks(self.layer)

    def forward(self) -> tuple[Tensor, Tensor | None]:
        """Hidden states [T, L, H] and the last cell."""
        layer = self.layer
        output = self._hidden.new_empty(layer.steps, layer.lanes, layer.hidden)
        last = None if self._cell is None else torch.empty_like(self._cell)
        others = [(address(output), address(last))] * parts_of(self._blocks)
        share_out("recurrent_forward", layer, self._blocks, others)
        return output, last

    def backward(
        self, grad_output: Tensor | None, grad_last: Tensor | None, *, needs_input: bool
    ) -> tuple[Tensor | None, ...]:
        """Gradients of inputs, hidden, cell and the weights."""
        layer, hidden = self.layer, self._hidden
        if grad_output is None:
            grad_output = hidden.new_zeros(layer.steps, layer.lanes, layer.hidden)
        grad_output = grad_output.contiguous()
        grad_last = None if grad_last is None else grad_last.contiguous()
        sums = hidden.new_zeros(parts_of(self._blocks), self._sums)
        grad_hidden = torch.empty_like(hidden)
        grad_cell = None if self._cell is None else torch.empty_like(hidden)
        shape = (layer.steps, layer.lanes, layer.inputs)
        grad_input = hidden.new_empty(shape) if needs_input else None
        results = (grad_hidden, grad_cell, grad_input)
        others = [[*map(address, (grad_output, grad_last, part, *results))] for part in sums]
        share_out("recurrent_backward", layer, self._blocks, others)
        total = sums[0] if len(sums) == 1 else sums.sum(0)
        grads = [None if weight is None else torch.empty_like(weight) for weight in self._weights]
        self._library.recurrent_finish(layer, address(total), *map(address, grads))
        return (grad_input, grad_hidden, grad_cell, *grads)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, hidden: Tensor, cell: Tensor | None, *weights: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states and the last cell."""
        ctx.run = _Pass(inputs, hidden, cell, weights, backward=True)
        ctx.set_materialize_grads(False)
        output: tuple[Tensor, Tensor | None] = ctx.run.forward()
        return output

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_output: Tensor | None, grad_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of all arguments."""
        grads: tuple[Tensor | None, ...] = ctx.run.backward(
            grad_output, grad_last, needs_input=ctx.needs_input_grad[0]
        )
        return grads


def layer_weights(layer: Layer, weights: Sequence[Tensor | None]) -> None:
    """Points a layer at its weights, which must be contiguous."""
    for name, weight in zip(_WEIGHTS, weights, strict=True):
        setattr(layer, name, address(weight))


def distinct(loaded: ctypes.CDLL, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """The distinct rows [U, F] and the row of each input [T, L]; else the inputs and None."""
    inputs = inputs.contiguous()
    count, width = inputs.shape[0] * inputs.shape[1], inputs.shape[2]
    capacity = min(count // 4, MAX_DISTINCT)
    if not capacity:
        return inputs, None
    rows = inputs.new_empty(capacity, width)
    row = new_memory(count, dtype=torch.int32)
    tensors = (address(inputs), count, width, capacity, address(row), address(rows))
    found = loaded.distinct_rows(*tensors)
    return (inputs, None) if found < 0 else (rows[:found], row)
