"""Clipped steps of Adam by the compiled library.

The definitions are `torch.nn.utils.clip_grad_norm_` and `torch.optim.Adam`; results differ by
rounding.
"""

import ctypes
import math

import torch
from torch import Tensor

from metarl.native.library import library


def clipped_adam_step(adam: torch.optim.Adam, max_grad_norm: float) -> Tensor | None:
    """One step along the clipped gradient; returns the gradient's norm before clipping.

    Moments stay where torch keeps them, so checkpoints hold them as ever.

    Args:
        adam: without weight decay and AMSGrad.
        max_grad_norm: the gradient is scaled down to this norm. Where its norm is not finite,
            nothing is changed.

    Returns:
        None if torch has to take the step: without the library, and for the first step.
    """
    loaded = library()
    (group,) = adam.param_groups
    params = [param for param in group["params"] if param.grad is not None]
    states = [adam.state.get(param) for param in params]
    if loaded is None or not params or not all(states):
        return None
    moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]  # type: ignore[index]
    steps = [state["step"] for state in states]  # type: ignore[index]
    columns = (params, [param.grad for param in params], *moments)
    if not all(map(_fits, (value for column in columns for value in column))):
        return None
    if len(counts := {float(step) for step in steps}) > 1:
        return None
    number = len(params)
    sizes = (ctypes.c_int64 * number)(*(param.numel() for param in params))
    pointers = [
        (ctypes.c_void_p * number)(*(value.data_ptr() for value in column)) for column in columns
    ]
    norm = loaded.gradient_norm(number, pointers[1], sizes)
    if math.isfinite(norm):
        scale = min(1.0, max_grad_norm / (norm + 1e-6))
        options = (group["lr"], *group["betas"], group["eps"], counts.pop() + 1.0)
        loaded.adam_step(number, *pointers, sizes, scale, *options)
        torch._foreach_add_(steps, 1.0)
        torch.autograd.graph.increment_version(params)
    return torch.tensor(norm, dtype=torch.float32)


def _fits(value: Tensor) -> bool:
    return value.dtype == torch.float32 and value.is_contiguous() and value.device.type == "cpu"
