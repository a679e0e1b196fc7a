"""Perceptrons with separate parameters for every task by the compiled library.

The definition of the passes and their derivatives is `StackedMLP` in torch; results differ by
rounding. Nothing here is recorded by autograd.

Axes: `M` samples of each task, `N` tasks, `P` parameters, `F` inputs, `R` parameters of an action
distribution.
"""

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.native.library import (
    Address,
    StackedNet,
    StackedSecond,
    address,
    parts_of,
    require_library,
    serves,
    share_out,
)


class NetShape(NamedTuple):
    """The fields of `StackedMLP`."""

    sizes: tuple[int, ...]
    constants: int
    relu: bool
    learn_constants: bool


class Kept(NamedTuple):
    """A backward pass, with what its derivative needs."""

    cotangent: Tensor  # [M, N, R]
    by_features: Tensor  # derivatives of the loss by hidden features: a tape


def can_run(sizes: tuple[int, ...], size: int, params: Tensor, inputs: Tensor) -> bool:
    """Whether `StackedPass` serves these; `size` is P."""
    recorded = torch.is_grad_enabled() and (params.requires_grad or inputs.requires_grad)
    fit = params.shape == (inputs.shape[1], size) and inputs.shape[2] == sizes[0]
    return not recorded and fit and serves(params, inputs)


class StackedPass:
    """A forward pass for parameters [N, P] and inputs [M, N, F], and its derivatives."""

    def __init__(self, shape: NetShape, params: Tensor, inputs: Tensor, *, keep: bool) -> None:
        """Computes `dist_params`; without `keep` it has no derivatives."""
        self._library = loaded = require_library()
        self._params, self._inputs = params.contiguous(), inputs.contiguous()
        samples, tasks, _ = inputs.shape
        self._net = StackedNet(
            tasks=tasks,
            samples=samples,
            layers=len(shape.sizes) - 1,
            constants=shape.constants,
            relu=shape.relu,
            learn_constants=shape.learn_constants,
            size=params.shape[1],
            sizes=(ctypes.c_int64 * len(shape.sizes))(*shape.sizes),
            params=address(self._params),
            x=address(self._inputs),
        )
        self._blocks = loaded.stacked_blocks(self._net)
        self._features = self._tape() if keep else None
        self._net.features = address(self._features)
        self.dist_params = inputs.new_empty(samples, tasks, shape.sizes[-1] + shape.constants)
        self._share_out("stacked_forward", address(self.dist_params))

    def tangent(self, direction: Tensor) -> Tensor:
        """Derivative of dist_params along a direction [N, P]: [M, N, R]."""
        return self._tangents(_like(self._params, direction), None)

    def gradient(self, cotangent: Tensor) -> Tensor:
        """From the derivative of a loss by dist_params, [M, N, R], to its gradient [N, P]."""
        return self._backward(_like(self.dist_params, cotangent), None, None)

    def backward(self, cotangent: Tensor) -> tuple[Tensor, Kept]:
        """As `gradient`; keeps what `hvp` needs."""
        kept = Kept(_like(self.dist_params, cotangent), self._tape())
        return self._backward(kept.cotangent, kept.by_features, None), kept

    def hvp(
        self, kept: Kept, direction: Tensor, dist_params_hvp: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The Hessian times a direction [N, P]; see `StackedMLP.hvp`."""
        direction, tangents = _like(self._params, direction), self._tape()
        cotangent = _like(self.dist_params, dist_params_hvp(self._tangents(direction, tangents)))
        second = StackedSecond(*map(address, (direction, tangents, *kept)))
        return self._backward(cotangent, None, second)

    def _tape(self) -> Tensor:
        """Room for a number for each hidden feature."""
        return self._inputs.new_empty(self._library.stacked_tape(self._net))

    def _tangents(self, direction: Tensor, tape: Tensor | None) -> Tensor:
        out = torch.empty_like(self.dist_params)
        self._share_out("stacked_tangents", *map(address, (direction, tape, out)))
        return out

    def _backward(
        self, cotangent: Tensor, tape: Tensor | None, second: StackedSecond | None
    ) -> Tensor:
        sums = self._params.new_zeros(parts_of(self._blocks), *self._params.shape)
        at_second = None if second is None else ctypes.addressof(second)
        given = (address(cotangent), address(tape), at_second)
        others = [(*given, address(part)) for part in sums]
        share_out("stacked_backward", self._net, self._blocks, others)
        return sums[0] if len(sums) == 1 else sums.sum(0)

    def _share_out(self, function: str, *given: Address) -> None:
        share_out(function, self._net, self._blocks, [given] * parts_of(self._blocks))


def _like(example: Tensor, value: Tensor) -> Tensor:
    """The value as contiguous memory; it must be of the same kind."""
    if value.shape != example.shape or value.dtype != example.dtype:
        raise ValueError(
            f"Got {value.dtype} {list(value.shape)} where {example.dtype} {list(example.shape)} "
            "is expected."
        )
    return value.contiguous()
