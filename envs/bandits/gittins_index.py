"""Finite-horizon Gittins indices of Bernoulli arms.

Axes: `L` lanes, `A` arms.
"""

import itertools
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.errors import ConfigError
from metarl.noise import LaneNoise

MAX_INDEX_PULLS = 500
"""longest trial for which indices are tabulated; time and memory grow with its cube"""
CHARGE_INTERVALS = 256
"""intervals of charges in which indices are interpolated: error below 0.001, 1e-4 on average"""


class GittinsIndex:
    """Scores an arm by its Gittins index: the charge per pull at which pulling it breaks even.

        index(payouts, blanks, left) = sup over 1 <= tau <= left of E[reward of tau pulls] / E[tau]

    where the stopping time `tau` may depend on the payouts and `left` is the number of pulls left
    in the trial. Pulling the arm with the highest index is optimal for infinite discounted trials
    and nearly optimal for finite ones. Prior U[0, 1].

    Source: Gittins 1979; with a finite horizon Kaufmann 2018, arXiv:1601.01190.
    """

    def __init__(self, pulls: int, device: torch.device | str = "cpu") -> None:
        """Tabulates the indices of a trial of `pulls` pulls.

        Raises:
            ConfigError: there are too many pulls.
        """
        self._pulls = pulls
        self._table = torch.as_tensor(gittins_table(pulls), device=device)
        sizes = torch.arange(pulls, 0, -1, device=device)  # of the blocks for left = 1, 2, ...
        self._start = (sizes**2).cumsum(0) - sizes**2

    def __call__(self, tally: Tensor, noise: LaneNoise) -> Tensor:
        """Index of every arm, [L, A].

        Raises:
            ConfigError: the trial is longer than the tabulated one.
        """
        payouts, pulled = tally.long().unbind(-1)
        past = pulled.sum(-1, keepdim=True)
        if int(past.max()) >= self._pulls:
            raise ConfigError(
                f"Gittins indices were tabulated for trials of {self._pulls} pulls, but this one "
                "is longer; tabulate them for as many pulls as the trial has episodes."
            )
        size = past + 1
        start = self._start[self._pulls - past - 1]
        return self._table[start + (pulled - payouts) * size + payouts]


def tabulable(pulls: int) -> bool:
    """Whether the indices can be tabulated in acceptable time."""
    return pulls <= MAX_INDEX_PULLS


@lru_cache(maxsize=2)
def gittins_table(pulls: int) -> NDArray[np.float32]:
    """Indices of all states of an arm in a trial of `pulls` pulls.

    The blocks [blanks, payouts] for left = 1, 2, ..., pulls are concatenated; each has
    pulls - left + 1 rows and columns, half of which cannot be reached in such a trial.

    For one charge after the other, backward induction gives the value of an arm that costs the
    charge per pull and may be dropped at any time,

        U(left) = p - charge + p W(payouts + 1, left - 1) + (1 - p) W(blanks + 1, left - 1),
        W(left) = max(U(left), 0),   W(0) = 0.

    The index is the charge at which U = 0. U is decreasing and convex in the charge, and almost
    linear between two charges, so linear interpolation finds the root closely.

    Raises:
        ConfigError: there are too many pulls.
    """
    if not tabulable(pulls):
        raise ConfigError(
            f"Gittins indices are tabulated for at most {MAX_INDEX_PULLS} pulls; got "
            f"pulls={pulls}. Compare with 'thompson' and 'best_arm' instead."
        )
    sizes = range(pulls, 0, -1)  # of the blocks
    starts = [0, *itertools.accumulate(size**2 for size in sizes)]
    blanks, payouts = np.ogrid[:pulls, :pulls]
    p = ((1 + payouts) / (2 + payouts + blanks)).astype(np.float32)
    index = np.zeros(starts[-1], dtype=np.float32)
    previous = np.zeros_like(index)  # U at the charge before
    low, rows = np.float32(0), pulls
    # The grid is finer near 0 and 1, where indices are close together.
    for charge in np.sin(np.linspace(0, np.pi / 2, CHARGE_INTERVALS + 1), dtype=np.float32) ** 2:
        stop_value = np.zeros((rows + 1, pulls + 1), dtype=np.float32)  # W
        rows_above_zero = 0
        for start, size in zip(starts[:-1], sizes, strict=True):
            few = min(rows, size)
            value = _pull_value(p[:few, :size], stop_value, charge)
            block = slice(start, start + few * size)
            _store_roots(index[block], previous[block], value.reshape(-1), low, charge)
            stop_value = np.zeros((few + 1, size), dtype=np.float32)
            np.maximum(value, 0, out=stop_value[:few])
            rows_above_zero = max(rows_above_zero, int((value >= 0).any(1).sum()))
        # With more blanks than this, U is negative at every higher charge.
        low, rows = charge, rows_above_zero
    return index


FloatArray: TypeAlias = NDArray[np.float32]


def _pull_value(p: FloatArray, stop_value: FloatArray, charge: np.float32) -> FloatArray:
    """U of one block, given W of the previous block, which has one more row and column."""
    rows, columns = p.shape
    paid, blank = stop_value[:rows, 1 : columns + 1], stop_value[1 : rows + 1, :columns]
    value: FloatArray = p * (1 + paid - blank) + blank - charge
    return value


def _store_roots(
    index: FloatArray, previous: FloatArray, value: FloatArray, low: np.float32, high: np.float32
) -> None:
    """Writes into `index` the roots of U between the charges `low` and `high`."""
    (root,) = np.nonzero((previous >= 0) & (value < 0))
    share = previous[root] / (previous[root] - value[root])
    index[root] = low + (high - low) * share
    previous[:] = value
