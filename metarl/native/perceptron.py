"""Perceptrons with one hidden layer by the compiled library.

The definition is `torch.nn.Sequential` of linear, ReLU, linear; results differ by rounding. First
derivatives only.

Axes: `R` rows, `I` inputs, `O` outputs.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.native.library import Perceptron, address, require_library, share_out, threads


def perceptron(x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """W2 relu(W1 x + b1) + b2 for x [..., I], given W1, b1, W2, b2: [..., O]."""
    rows = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled():
        output: Tensor = _Perceptron.apply(rows, *weights)  # type: ignore[no-untyped-call]
    else:
        output = _Pass(rows, weights).forward()
    return output.view(*x.shape[:-1], -1)


class _Pass:
    """One pass over some rows, with what its backward pass needs."""

    def __init__(self, x: Tensor, weights: tuple[Tensor, ...]) -> None:
        self._library = loaded = require_library()
        names = ("weight1", "bias1", "weight2", "bias2")
        kept = {
            name: value.detach().contiguous() for name, value in zip(names, weights, strict=True)
        }
        kept["x"] = x.detach().contiguous()
        (hidden, inputs), outputs = kept["weight1"].shape, len(kept["bias2"])
        self.net = Perceptron(rows=len(x), inputs=inputs, hidden=hidden, outputs=outputs)
        sizes = (ctypes.c_int64 * 3)()
        loaded.perceptron_sizes(self.net, sizes)
        kept["packed"], kept["tape"] = x.new_empty(sizes[0]), x.new_empty(sizes[1])
        self._sums = sizes[2]
        for name, value in kept.items():
            setattr(self.net, name, address(value))
        self._kept = kept  # NOTE: the net holds addresses alone
        loaded.perceptron_prepare(self.net)
        self._blocks = loaded.perceptron_blocks(self.net)

    def forward(self) -> Tensor:
        """[R, O]."""
        output = self._kept["x"].new_empty(self.net.rows, self.net.outputs)

        def work(part: int, first: int, end: int) -> None:
            self._library.perceptron_forward(self.net, first, end, address(output))

        share_out(self._blocks, threads(), work)
        return output

    def backward(self, grad_output: Tensor) -> tuple[Tensor, ...]:
        """Gradients of x and the weights."""
        kept, grad_output = self._kept, grad_output.contiguous()
        parts = min(self._blocks, threads())
        sums = grad_output.new_zeros(parts, self._sums)
        grad_x = torch.empty_like(kept["x"])

        def work(part: int, first: int, end: int) -> None:
            others = (address(grad_output), address(sums[part]), address(grad_x))
            self._library.perceptron_backward(self.net, first, end, *others)

        share_out(self._blocks, parts, work)
        total = sums[0] if parts == 1 else sums.sum(0)
        names = ("weight1", "bias1", "weight2", "bias2")
        grads = [torch.empty_like(kept[name]) for name in names]
        self._library.perceptron_finish(self.net, address(total), *map(address, grads))
        return (grad_x, *grads)


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        """[R, O]."""
        ctx.run = _Pass(x, weights)
        return ctx.run.forward()  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all arguments."""
        return ctx.run.backward(grad_output)  # type: ignore[no-any-return]
