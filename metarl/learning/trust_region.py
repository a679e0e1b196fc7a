"""A gradient and products with a curvature go in, a step that may be trusted comes out.

Axes: `Q` parameters.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Solution(NamedTuple):
    """An approximate solution of `A x = b`."""

    x: Tensor  # [Q]
    product: Tensor  # [Q] A x
    residual: float  # ||A x - b|| / ||b||


def conjugate_gradient(
    multiply: Callable[[Tensor], Tensor], b: Tensor, *, steps: int, tolerance: float = 1e-6
) -> Solution:
    """Solves `A x = b` for a symmetric positive definite `A` that is known by its products.

    Args:
        multiply: v [Q] -> A v [Q].
        b: [Q].
        steps: products at most.
        tolerance: stops when ||A x - b|| <= tolerance ||b||.

    Source: Hestenes and Stiefel 1952; Schulman et al. 2015, arXiv:1502.05477, appendix C.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    size = start = float(b @ b)
    for _ in range(steps):
        if not size > tolerance**2 * start:  # NaN ends it, too
            break
        product = multiply(direction)
        bend = float(direction @ product)
        if bend == 0.0:  # lost to rounding
            break
        rate = size / bend
        x = x + rate * direction
        residual = residual - rate * product
        before, size = size, float(residual @ residual)
        direction = residual + (size / before) * direction
    return Solution(x, b - residual, (size / start) ** 0.5 if start else 0.0)


class Trial(NamedTuple):
    """What a candidate would bring."""

    loss: float
    divergence: float


class Accepted(NamedTuple):
    """Where a line search ended."""

    share: float  # of the full step; 0 where no candidate was good enough
    trial: Trial
    tried: int  # candidates


def backtrack(
    evaluate: Callable[[float], Trial],
    *,
    loss: float,
    max_divergence: float,
    steps: int,
    shrink: float,
) -> Accepted:
    """The longest step among 1, shrink, shrink^2, ... that lowers the loss within the bound.

    A candidate that is not finite is not good enough.

    Args:
        evaluate: share of the full step -> its loss and divergence.
        loss: where no step is taken.
        max_divergence: most that is allowed.
        steps: candidates at most.
        shrink: between two candidates.

    Source: Schulman et al. 2015, arXiv:1502.05477, appendix C.
    """
    share = 1.0
    for tried in range(1, steps + 1):
        trial = evaluate(share)
        finite = math.isfinite(trial.loss) and math.isfinite(trial.divergence)
        if finite and trial.loss < loss and trial.divergence <= max_divergence:
            return Accepted(share, trial, tried)
        share *= shrink
    return Accepted(0.0, Trial(loss, 0.0), steps)
