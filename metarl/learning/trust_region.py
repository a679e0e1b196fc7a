"""Trust-region steps: conjugate gradient and a backtracking line search.

Axes: `Q` parameters.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class LinearSolution(NamedTuple):
    """An approximate solution of `A x = b`."""

    x: Tensor  # [Q]
    product: Tensor  # [Q] A x
    residual: float  # ||A x - b|| / ||b||


def conjugate_gradient(
    multiply: Callable[[Tensor], Tensor], b: Tensor, *, steps: int, tolerance: float = 1e-6
) -> LinearSolution:
    """Solves `A x = b` for a symmetric positive definite `A`, given as a matrix-vector product.

    Args:
        multiply: v [Q] -> A v [Q].
        b: [Q].
        steps: maximal number of products.
        tolerance: stops when ||A x - b|| <= tolerance ||b||.

    Source: Hestenes and Stiefel 1952; Schulman et al. 2015, arXiv:1502.05477, appendix C.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    size = start = float(b @ b)
    for _ in range(steps):
        if not size > tolerance**2 * start:  # also stops at NaN
            break
        product = multiply(direction)
        curvature = float(direction @ product)
        if curvature == 0.0:  # zero or underflow
            break
        rate = size / curvature
        x = x + rate * direction
        residual = residual - rate * product
        before, size = size, float(residual @ residual)
        direction = residual + (size / before) * direction
    return LinearSolution(x, b - residual, (size / start) ** 0.5 if start else 0.0)


class Candidate(NamedTuple):
    """Loss and divergence at a candidate of a line search."""

    loss: float
    divergence: float


class LineSearchResult(NamedTuple):
    """The step that a line search accepted."""

    share: float  # of the full step; 0 if no candidate was accepted
    candidate: Candidate
    tried: int  # number of candidates


def backtrack(
    evaluate: Callable[[float], Candidate],
    *,
    loss: float,
    max_divergence: float,
    steps: int,
    shrink: float,
) -> LineSearchResult:
    """The longest step among 1, shrink, shrink^2, ... that lowers the loss within the bound.

    A candidate with a loss or divergence that is not finite is rejected.

    Args:
        evaluate: share of the full step -> its loss and divergence.
        loss: loss at the current parameters.
        max_divergence: bound on the divergence.
        steps: maximal number of candidates.
        shrink: ratio of successive candidates.

    Source: Schulman et al. 2015, arXiv:1502.05477, appendix C.
    """
    share = 1.0
    for tried in range(1, steps + 1):
        candidate = evaluate(share)
        finite = math.isfinite(candidate.loss) and math.isfinite(candidate.divergence)
        if finite and candidate.loss < loss and candidate.divergence <= max_divergence:
            return LineSearchResult(share, candidate, tried)
        share *= shrink
    return LineSearchResult(0.0, Candidate(loss, 0.0), steps)
