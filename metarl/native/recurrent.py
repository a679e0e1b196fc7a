"""Recurrent layers by the compiled library: `Embedded` GRUs and LSTMs, and these cores alone.

The definition is that of torch in `metarl.networks.recurrent`; results differ by rounding. First
derivatives only. Sequences and single steps are computed by the same code.

Axes: `T` steps, `L` lanes, `F` inputs, `H` hidden.
"""

import ctypes
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from metarl.native.library import Layer, address, require_library, serves, share_out

RecurrentState: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""hidden [L, H] of a GRU; hidden and cell of an LSTM"""
RecurrentOutput: TypeAlias = tuple[Tensor, RecurrentState]

MAX_DISTINCT = 1024
"""more distinct inputs are embedded row by row"""
_NUM_GRU, _NUM_LSTM = 0, 1


class Recurrence(NamedTuple):
    """The weights of a recurrent layer, as in `torch.nn.GRU` and `LSTM`, with its embedding."""

    core: nn.GRU | nn.LSTM
    embedding: nn.Linear | None = None
    """followed by ReLU"""

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Embedding and its bias, then the core's four."""
        before = (None, None) if self.embedding is None else tuple(self.embedding.parameters())
        return (*before, *self.core.parameters())  # type: ignore[arg-type]


def can_run(recurrence: Recurrence, inputs: Tensor) -> bool:
    """Whether `run` serves these inputs."""
    trains_inputs = recurrence.embedding is not None and inputs.requires_grad
    return not trains_inputs and serves(inputs, recurrence.core.weight_hh_l0)


def run(recurrence: Recurrence, inputs: Tensor, state: RecurrentState) -> RecurrentOutput:
    """Hidden states [T, L, H] and the state after the last step.

    Args:
        recurrence: the layer.
        inputs: [T, L, F] of the embedding, or of the core where there is none.
        state: hidden [L, H] of a GRU; hidden and cell of an LSTM.
    """
    hidden, cell = state if isinstance(state, tuple) else (state, None)
    weights = recurrence.weights
    if torch.is_grad_enabled():
        output, last = _Recurrence.apply(inputs, hidden, cell, *weights)  # type: ignore[no-untyped-call]
    else:
        output, last = _Pass(inputs, hidden, cell, weights, backward=False).forward()
    return output, output[-1] if last is None else (output[-1], last)


def step(recurrence: Recurrence, inputs: Tensor, state: RecurrentState) -> RecurrentOutput:
    """One step: inputs [L, F] -> hidden [L, H] and the next state."""
    output, state = run(recurrence, inputs.unsqueeze(0), state)
    return output[0], state


class _Pass:
    """One pass over a sequence, with what its backward pass needs."""

    def __init__(
        self,
        inputs: Tensor,
        hidden: Tensor,
        cell: Tensor | None,
        weights: tuple[Tensor | None, ...],
        *,
        backward: bool,
    ) -> None:
        steps, lanes, width = inputs.shape
        self._library = loaded = require_library()
        embedded = weights[0] is not None
        self.shapes = [None if weight is None else weight.shape for weight in weights]
        kept = [None if value is None else value.detach().contiguous() for value in weights]
        x, row = _distinct(loaded, inputs) if embedded else (inputs.contiguous(), None)
        hidden = hidden.contiguous()
        cell = None if cell is None else cell.contiguous()
        self.layer = Layer(
            cell=_NUM_GRU if cell is None else _NUM_LSTM,
            embedded=embedded,
            steps=steps,
            lanes=lanes,
            inputs=width,
            hidden=hidden.shape[1],
            distinct=0 if row is None else len(x),
            backward=backward,
        )
        names = ("embedding", "embedding_bias", "weight_ih", "weight_hh", "bias_ih", "bias_hh")
        pointed = dict(zip(names, kept, strict=True))
        pointed |= {"x": x, "row": row, "hidden0": hidden, "cell0": cell}
        sizes = (ctypes.c_int64 * 3)()
        loaded.recurrent_sizes(self.layer, sizes)
        self._sums = sizes[2]
        pointed["packed"], pointed["tape"] = hidden.new_empty(sizes[0]), hidden.new_empty(sizes[1])
        for name, value in pointed.items():
            setattr(self.layer, name, address(value))
        self._kept = pointed  # NOTE: the layer holds addresses alone
        loaded.recurrent_prepare(self.layer)
        self._blocks = loaded.recurrent_blocks(self.layer)

    def forward(self) -> tuple[Tensor, Tensor | None]:
        """Hidden states [T, L, H] and the last cell."""
        layer, hidden0 = self.layer, self._kept["hidden0"]
        output = hidden0.new_empty(layer.steps, layer.lanes, layer.hidden)
        last = None if self._kept["cell0"] is None else torch.empty_like(hidden0)

        def work(part: int, first: int, end: int) -> None:
            self._library.recurrent_forward(layer, first, end, address(output), address(last))

        share_out(self._blocks, torch.get_num_threads(), work)
        return output, last

    def backward(
        self, grad_output: Tensor, grad_last: Tensor | None, needs_input: bool
    ) -> tuple[Tensor | None, ...]:
        """Gradients of inputs, hidden, cell and the weights."""
        layer, hidden0, cell0 = self.layer, self._kept["hidden0"], self._kept["cell0"]
        grad_output = grad_output.contiguous()
        grad_last = None if grad_last is None else grad_last.contiguous()
        parts = min(self._blocks, torch.get_num_threads())
        sums = hidden0.new_zeros(parts, self._sums)
        grad_hidden = torch.empty_like(hidden0)
        grad_cell = None if cell0 is None else torch.empty_like(hidden0)
        shape = (layer.steps, layer.lanes, layer.inputs)
        grad_input = hidden0.new_empty(shape) if needs_input else None
        others = [address(value) for value in (grad_hidden, grad_cell, grad_input)]

        def work(part: int, first: int, end: int) -> None:
            of_loss = (address(grad_output), address(grad_last))
            self._library.recurrent_backward(layer, first, end, *of_loss, address(sums[part]), *others)

        share_out(self._blocks, parts, work)
        total = sums[0] if parts == 1 else sums.sum(0)
        grads = [None if shape is None else hidden0.new_empty(shape) for shape in self.shapes]
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
        return ctx.run.forward()  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_output: Tensor | None, grad_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Gradients of all arguments."""
        if grad_output is None:
            layer = ctx.run.layer
            assert grad_last is not None
            grad_output = grad_last.new_zeros(layer.steps, layer.lanes, layer.hidden)
        return ctx.run.backward(grad_output, grad_last, ctx.needs_input_grad[0])  # type: ignore[no-any-return]


def _distinct(loaded: ctypes.CDLL, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
    """The distinct rows [U, F] and the row of each input [T, L]; else the inputs and None."""
    inputs = inputs.contiguous()
    count, width = inputs.shape[0] * inputs.shape[1], inputs.shape[2]
    capacity = min(count // 4, MAX_DISTINCT)
    rows = inputs.new_empty(capacity, width)
    row = torch.empty(count, dtype=torch.int32)
    found = -1
    if capacity:
        found = loaded.distinct_rows(
            address(inputs), count, width, capacity, address(row), address(rows)
        )
    return (inputs, None) if found < 0 else (rows[:found], row)
