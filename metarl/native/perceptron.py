"""Perceptrons with one hidden layer by the compiled library.

The definition is `torch.nn.Sequential` of linear, ReLU, linear; results differ by rounding. First
derivatives only.

Axes: `R` rows, `I` inputs, `O` outputs.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.native.library import Perceptron, address, parts_of, require_library, share_out

_WEIGHTS = ("weight1", "bias1", "weight2", "bias2")


def perceptron(x: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """W2 relu(W1 x + b1) + b2 for x [..., I], given W1, b1, W2, b2: [..., O]."""
    rows = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled():
        output: Tensor = _Perceptron.apply(rows, *weights)  # type: ignore[no-untyped-call]
    else:
        output = _Pass(rows, weights).forward()
    return output.view(*x.shape[:-1], -1)


def perceptron_sizes(inputs: int, weights: Sequence[Tensor]) -> Perceptron:
    """A perceptron of the shape of these weights."""
    return Perceptron(inputs=inputs, hidden=len(weights[1]), outputs=len(weights[3]))


def perceptron_weights(net: Perceptron, weights: Sequence[Tensor]) -> None:
    """Points a perceptron at its weights, which must be contiguous."""
    for name, weight in zip(_WEIGHTS, weights, strict=True):
        setattr(net, name, address(weight))


class _Pass:
    """One pass over some rows, with what its backward pass needs."""

    def __init__(self, x: Tensor, weights: tuple[Tensor, ...]) -> None:
        self._library = loaded = require_library()
        self._weights = tuple(weight.detach().contiguous() for weight in weights)
        self.net = perceptron_sizes(x.shape[1], weights)
        self.net.rows = len(x)
        perceptron_weights(self.net, self._weights)
        sizes = (ctypes.c_int64 * 3)()
        loaded.perceptron_sizes(self.net, sizes)
        self._sums = sizes[2]
        self._x, packed, tape = (
            x.detach().contiguous(),
            x.new_empty(sizes[0]),
            x.new_empty(sizes[1]),
        )
        self.net.x, self.net.packed, self.net.tape = map(address, (self._x, packed, tape))
        self._kept = packed, tape  # NOTE: the net holds addresses alone
        loaded.perceptron_prepare(self.net)
        self._blocks = loaded.perceptron_blocks(self.net)

    def forward(self) -> Tensor:
        """[R, O]."""
        output = self._x.new_empty(self.net.rows, self.net.outputs)
        others = [(address(output),)] * parts_of(self._blocks)
        share_out("perceptron_forward", self.net, self._blocks, others)
        return output

    def backward(self, grad_output: Tensor) -> tuple[Tensor, ...]:
        """Gradients of x and the weights."""
        grad_output = grad_output.contiguous()
        sums = grad_output.new_zeros(parts_of(self._blocks), self._sums)
        grad_x = torch.empty_like(self._x)
        others = [(address(grad_output), address(part), address(grad_x)) for part in sums]
        share_out("perceptron_backward", self.net, self._blocks, others)
        total = sums[0] if len(sums) == 1 else sums.sum(0)
        grads = [torch.empty_like(weight) for weight in self._weights]
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
