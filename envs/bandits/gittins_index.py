"""Finite-horizon Gittins indices of Bernoulli arms: a number of pulls goes in, a score comes out.

Axes: `N` tasks, `B` copies of each task, `A` arms.
"""

import itertools
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.errors import ConfigError

MAX_INDEX_PULLS = 500
"""longest trial that indices are tabulated for; time and memory grow with its cube"""
WAGES = 256
"""wages between which an index is interpolated; its error is below 0.001, and 1e-4 on average"""


class GittinsIndex:
    """Scores an arm by the wage at which it is just worth being pulled at all.

        index(payouts, blanks, left) = sup over 1 <= tau <= left of E[reward of tau pulls] / E[tau]

    where `tau` may depend on what is paid and `left` is the number of pulls left in the trial.
    Pulling the arm with the highest index is exactly optimal over endless discounted trials, and
    nearly so over finite ones. Prior U[0, 1].

    Source: Gittins 1979; with a finite horizon Kaufmann 2018, arXiv:1601.01190.
    """

    def __init__(self, pulls: int, device: torch.device | str = "cpu") -> None:
        """Tabulates the indices of a trial of `pulls` pulls.

        Raises:
            ConfigError: there are too many.
        """
        self._pulls = pulls
        self._table = torch.as_tensor(gittins_table(pulls), device=device)
        sizes = torch.arange(pulls, 0, -1, device=device)  # of the blocks of left = 1, 2, ...
        self._start = (sizes**2).cumsum(0) - sizes**2

    def __call__(self, tally: Tensor, generator: Generator) -> Tensor:
        """Index of every arm, [N, B, A].

        Raises:
            ConfigError: the trial is longer than what was tabulated.
        """
        payouts, pulled = tally.long().unbind(-1)
        past = pulled.sum(-1, keepdim=True)
        if int(past.max()) >= self._pulls:
            raise ConfigError(
                f"Gittins indices were tabulated for trials of {self._pulls} pulls, but this one "
                "is longer; tabulate them for as many pulls as there are episodes."
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

    One block [blanks, payouts] after another, for left = 1, 2, ..., pulls; each has
    pulls - left + 1 rows and columns, half of which cannot be reached in such a trial.

    For one wage after the other, backward induction gives the worth of an arm that costs the
    wage for each pull and may be dropped at any time,

        U(left) = p - wage + p W(payouts + 1, left - 1) + (1 - p) W(blanks + 1, left - 1),
        W(left) = max(U(left), 0),   W(0) = 0.

    The index is the wage at which U = 0. U falls and is convex in the wage, nearly straight from
    one wage to the next, so the chord meets zero close to where U does.

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
    before = np.zeros_like(index)
    low, rows = np.float32(0), pulls
    # Indices lie closest together near 0 and 1.
    for wage in np.sin(np.linspace(0, np.pi / 2, WAGES + 1), dtype=np.float32) ** 2:
        kept = np.zeros((rows + 1, pulls + 1), dtype=np.float32)  # W
        alive = 0
        for start, size in zip(starts[:-1], sizes, strict=True):
            few = min(rows, size)
            now = _worth(p[:few, :size], kept, wage)
            here = slice(start, start + few * size)
            _keep_roots(index[here], before[here], now.reshape(-1), low, wage)
            kept = np.zeros((few + 1, size), dtype=np.float32)
            np.maximum(now, 0, out=kept[:few])
            alive = max(alive, int((now >= 0).any(1).sum()))
        low, rows = wage, alive  # with more blanks than this, no higher wage is earned
    return index


Block: TypeAlias = NDArray[np.float32]


def _worth(p: Block, kept: Block, wage: np.float32) -> Block:
    """U of one block, given W of the one before it, one row and column larger."""
    rows, columns = p.shape
    paid, blank = kept[:rows, 1 : columns + 1], kept[1 : rows + 1, :columns]
    worth: Block = p * (1 + paid - blank) + blank - wage
    return worth


def _keep_roots(index: Block, before: Block, now: Block, low: np.float32, wage: np.float32) -> None:
    """Writes down the indices between the wages `low` and `wage`, where U changes its sign."""
    (root,) = np.nonzero((before >= 0) & (now < 0))
    share = before[root] / (before[root] - now[root])
    index[root] = low + (wage - low) * share
    before[:] = now
