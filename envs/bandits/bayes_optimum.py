"""The exact Bayes-optimal policy of Bernoulli bandits, and its value.

Axes: `L` lanes, `A` arms, `S` belief states.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.envs.bandits.arm_scores import updated_tally
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.trajectory import Percept

MAX_STATE_ARMS = 10_000_000
"""largest number of belief states times arms that is solved; this takes a few seconds"""


class BayesOptimal:
    """Bayes-optimal policy for trials of `pulls` pulls of Bernoulli arms with U[0, 1] priors."""

    def __init__(self, arms: int, pulls: int, device: torch.device | str = "cpu") -> None:
        """Solves the bandit.

        Raises:
            ConfigError: the bandit is too large.
        """
        solution = solve(arms, pulls)
        self._arms, self._pulls, self._device = arms, pulls, device
        self._code_hash = torch.as_tensor(solution.code_hash, device=device)
        self._keys = torch.as_tensor(solution.keys, device=device)
        self._pull = torch.as_tensor(solution.pull, device=device)

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        """An empty tally [L, A, 2]."""
        return torch.zeros(lanes, self._arms, 2, dtype=torch.int64, device=self._device)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        """The first arm whose tally is optimal to pull.

        Raises:
            ConfigError: the trial is longer than the trial that was solved.
        """
        tally = updated_tally(memory, percept)
        payouts, pulled = tally.unbind(-1)
        code = payouts * (self._pulls + 1) + pulled - payouts
        key = self._code_hash[code.clamp(max=len(self._code_hash) - 1)].sum(-1)
        row = torch.searchsorted(self._keys, key).clamp(max=len(self._keys) - 1)
        if not bool((self._keys[row] == key).all()):
            raise ConfigError(
                f"The Bayes optimum was solved for trials of {self._pulls} pulls, but this one is "
                "longer; solve it for as many pulls as the trial has episodes."
            )
        action = (code == self._pull[row].unsqueeze(-1)).long().argmax(-1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), tally)


def bayes_optimal_value(arms: int, pulls: int) -> float:
    """Expected total reward of the Bayes-optimal policy; Bernoulli arms, U[0, 1] priors.

    Raises:
        ConfigError: the problem is too large.
    """
    return solve(arms, pulls).value


def solvable(arms: int, pulls: int) -> bool:
    """Whether the Bayes optimum can be computed in a few seconds."""
    # A cheap lower bound first: states of one or two arms, where at most `few!` orderings coincide.
    few = min(arms, 2)
    if math.comb(pulls - 1 + 2 * few, 2 * few) > math.factorial(few) * MAX_STATE_ARMS:
        return False
    return arms * sum(states_per_level(arms, pulls)) <= MAX_STATE_ARMS


def states_per_level(arms: int, pulls: int) -> list[int]:
    """Number of belief states after 0, 1, ..., pulls - 1 pulls.

    A state is a multiset of tallies, because arms are exchangeable. An arm pulled m times has one
    of m + 1 tallies, so r such arms have C(m + r, r) different multisets of tallies. Counts are
    clipped at 10 `MAX_STATE_ARMS`, far above the limit that they are compared with.
    """
    counts = np.zeros((arms + 1, pulls))  # [arms pulled, pulls so far]
    counts[0, 0] = 1
    for m in range(1, pulls):
        previous = counts.copy()
        for r in range(1, min(arms, (pulls - 1) // m) + 1):
            multisets = min(math.comb(m + r, r), 10 * MAX_STATE_ARMS)
            counts[r:, r * m :] += multisets * previous[: arms + 1 - r, : pulls - r * m]
        counts = np.minimum(counts, 10 * MAX_STATE_ARMS)
    return [int(total) for total in counts.sum(0)]


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The Bayes-optimal policy of one size of bandit: the arm to pull in every belief state.

    A tally of an arm is coded as `payouts * (pulls + 1) + blanks`. The key of a state is the sum
    of `code_hash` over its arms' codes, which does not depend on the order of the arms.
    """

    value: float  # expected total reward of a whole trial
    code_hash: NDArray[np.int64]  # [(pulls + 1)^2]
    keys: NDArray[np.int64]  # [S] sorted
    pull: NDArray[np.int64]  # [S] code of the arm to pull


@lru_cache(maxsize=2)
def solve(arms: int, pulls: int) -> Solution:
    """Backward induction over belief states, all states of a level at once.

        V(state) = max over arms of p (1 + V(state, paid)) + (1 - p) V(state, blank),
        p = (1 + payouts) / (2 + payouts + blanks)

    Raises:
        ConfigError: there are too many states.
    """
    if not solvable(arms, pulls):
        raise ConfigError(
            f"The exact Bayes optimum of arms={arms}, pulls={pulls} has too many belief "
            "states to be solved; take fewer pulls, or compare with 'thompson' and 'best_arm'."
        )
    code_hash = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (pulls + 1) ** 2)
    levels = _levels(arms, pulls, code_hash)
    value: NDArray[np.float64] = np.zeros(1)
    best: list[NDArray[np.int64]] = []
    for level in reversed(levels):
        payouts, blanks = np.divmod(level.codes, pulls + 1)
        p = (1 + payouts) / (2 + payouts + blanks)
        paid, blank = value[level.after[..., 0]], value[level.after[..., 1]]
        action_value = p * (1 + paid) + (1 - p) * blank
        arm = action_value.argmax(1)[:, None]
        value = np.take_along_axis(action_value, arm, 1)[:, 0]
        best.append(np.take_along_axis(level.codes, arm, 1)[:, 0].astype(np.int64))
    keys = np.concatenate([level.keys for level in levels])
    order = np.argsort(keys)
    _require_distinct(keys[order])
    pull = np.concatenate(best[::-1])
    return Solution(value=float(value[0]), code_hash=code_hash, keys=keys[order], pull=pull[order])


@dataclass(frozen=True, kw_only=True)
class _Level:
    """All states after the same number of pulls; `after` indexes the states of the next level."""

    keys: NDArray[np.int64]  # [S]
    codes: NDArray[np.int32]  # [S, A]
    after: NDArray[np.int32]  # [S, A, 2] after a payout, and after a blank


def _levels(arms: int, pulls: int, code_hash: NDArray[np.int64]) -> list[_Level]:
    """Every reachable belief state, level by level."""
    outcome = np.array([pulls + 1, 1], dtype=np.int32)  # added to a code by a payout, a blank
    codes = np.zeros((1, arms), dtype=np.int32)
    keys = code_hash[codes].sum(1)
    levels = []
    for expected in states_per_level(arms, pulls)[1:]:
        pulled = codes[..., None] + outcome
        reached = keys[:, None, None] + code_hash[pulled] - code_hash[codes][..., None]
        next_keys, source, after = np.unique(reached, return_index=True, return_inverse=True)
        if len(next_keys) != expected:
            raise AssertionError("two belief states share a key")
        next_rows = after.reshape(reached.shape).astype(np.int32)
        levels.append(_Level(keys=keys, codes=codes, after=next_rows))
        parent, arm, _ = np.unravel_index(source, reached.shape)
        codes, keys = codes[parent], next_keys
        codes[np.arange(len(parent)), arm] = pulled.reshape(-1)[source]
    # Values after the last pull are zero: one terminal state represents all of them.
    last = np.zeros((*codes.shape, 2), dtype=np.int32)
    return [*levels, _Level(keys=keys, codes=codes, after=last)]


def _require_distinct(keys: NDArray[np.int64]) -> None:
    if (keys[1:] == keys[:-1]).any():
        raise AssertionError("two belief states of different levels share a key")
