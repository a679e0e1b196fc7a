"""Clipped steps of Adam by the compiled library.

The definitions are `torch.nn.utils.clip_grad_norm_` and `torch.optim.Adam`; results differ by
rounding.
"""

import ctypes
import math
from operator import is_

import torch
from torch import Tensor

from metarl.native.library import library

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class ClippedAdam:
    """Steps for as long as parameters and moments stay where they are, as during one update.

    Moments stay where torch keeps them, so checkpoints hold them as ever.
    """

    def __init__(self, adam: torch.optim.Adam, loaded: ctypes.CDLL, params: list[Tensor]) -> None:
        """For the parameters that have moments; see `clipped_adam`."""
        self._adam, self._library, self._params = adam, loaded, params
        states = [adam.state[param] for param in params]
        self._kept = [[state[name] for state in states] for name in _MOMENTS]
        self._sizes = (ctypes.c_int64 * len(params))(*(param.numel() for param in params))
        self._pointers = [self._addresses(column) for column in (params, *self._kept)]
        self._grads: list[Tensor] = []
        self._gradient = self._addresses(self._grads)
        self._others = [param for param in _all_params(adam) if param not in adam.state]

    def step(self, max_grad_norm: float) -> float | None:
        """One step along the clipped gradient; returns the gradient's norm before clipping.

        Args:
            max_grad_norm: the gradient is scaled down to this norm. Where its norm is not finite,
                nothing is changed.

        Returns:
            None if torch has to take the step: other parameters have a gradient now, or one is of
            another type.
        """
        grads = [param.grad for param in self._params if param.grad is not None]
        if len(grads) < len(self._params):
            return None
        if len(self._grads) < len(grads) or not all(map(is_, grads, self._grads)):
            if not all(map(_fits, grads)):
                return None
            # Tensors of the last step stay where they were, as those of `PPOGradients` do.
            self._grads, self._gradient = grads, self._addresses(grads)
        if any(param.grad is not None for param in self._others):
            return None
        (group,) = self._adam.param_groups
        params, means, squares, steps = self._pointers
        norm: float = self._library.gradient_norm(len(grads), self._gradient, self._sizes)
        if math.isfinite(norm):
            scale = min(1.0, max_grad_norm / (norm + 1e-6))
            columns = (params, self._gradient, means, squares, steps)
            options = (group["lr"], *group["betas"], group["eps"])
            self._library.adam_step(len(grads), *columns, self._sizes, scale, *options)
            torch.autograd.graph.increment_version(self._params)
        return norm

    @staticmethod
    def _addresses(column: list[Tensor]) -> "ctypes.Array[ctypes.c_void_p]":
        return (ctypes.c_void_p * len(column))(*(value.data_ptr() for value in column))


def clipped_adam(adam: torch.optim.Adam) -> ClippedAdam | None:
    """Steps of an optimiser without weight decay and AMSGrad.

    None if torch has to take them: without the library, for types that it does not serve, and
    before the first step.
    """
    loaded = library()
    params = [param for param in _all_params(adam) if param in adam.state]
    if loaded is None or not params:
        return None
    columns = [params, *([adam.state[p][name] for p in params] for name in _MOMENTS)]
    if not all(_fits(value) for column in columns for value in column):
        return None
    return ClippedAdam(adam, loaded, params)


def _all_params(adam: torch.optim.Adam) -> list[Tensor]:
    (group,) = adam.param_groups
    return list(group["params"])


def _fits(value: Tensor) -> bool:
    return value.dtype == torch.float32 and value.is_contiguous() and value.device.type == "cpu"
