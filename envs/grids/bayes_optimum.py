"""The exact Bayes optimum of grid navigation: a grid goes in, the best walk of a search comes out.

As long as the goal has not been found, nothing that is seen depends on where it is: the rewards
tell only that it was on none of the cells visited. So whatever a policy does before it has found
the goal is one walk, fixed beforehand, and once it has there is nothing left to find out: staying
there, and in later episodes going there by a shortest path, is best. What remains is to choose the
walk. Where the goal g is met first, at step t (from 1) of episode e, a trial spends

    H - t + 1   steps of episode e, and   max(0, H - |g| + 1)   of each later one

on the goal, |g| being its distance from the start and H the steps of an episode; the best walk has
the greatest sum of these over all goals, because all are equally likely.

Axes: `S` states of the search, `G` possible goals, `C` cells, `E` episodes.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from metarl.errors import ConfigError

MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))
"""stay, up, right, down, left"""
MOST_CELLS = 5
"""cells in a row up to which the best walk is found within a second, whatever the other numbers"""

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What to do in every step of a trial as long as the goal has not been found."""

    actions: tuple[int, ...]  # E x H of them
    on_goal: tuple[
        float, ...
    ]  # [E] expected steps of each episode on the goal, of the whole policy


def possible_goals(cells: int) -> Ints:
    """Every cell but the start and its three neighbours, [G, 2], column by column."""
    grid = np.indices((cells, cells)).reshape(2, -1).T
    return grid[(grid > 1).any(1)].astype(np.int64)


def solvable(cells: int) -> bool:
    """Whether the best walk is found quickly."""
    return cells <= MOST_CELLS


@lru_cache(maxsize=16)
def best_walk(cells: int, steps: int, episodes: int) -> Walk:
    """The walk that makes a trial's expected return as great as anybody's.

    Raises:
        ConfigError: the grid is too large.
    """
    if not solvable(cells):
        raise ConfigError(
            f"The exact Bayes optimum of cells={cells} cannot be found: there are too many ways "
            f"to search. Take at most {MOST_CELLS}, or compare with 'thompson' and 'oracle'."
        )
    search = _Search(cells, steps, episodes)
    # No walk is worth more than the bound, so a search that drops everything below it and still
    # ends somewhere has found the best. If it ends nowhere, the next one drops less.
    gap, highest = 0, search.bound_of_nothing()
    while (actions := search.find(highest - gap)) is None:
        gap = 2 * gap + 1
    return Walk(actions=actions, on_goal=search.on_goal(actions))


class _Search:
    """Forward search over (goals not met yet, cell), the best worth of each, with an upper bound.

    Goals not met yet are a bit mask. A state is dropped where even the bound on what it can still
    come to is below a threshold.
    """

    def __init__(self, cells: int, steps: int, episodes: int) -> None:
        self.cells, self.steps, self.episodes = cells, steps, episodes
        grid = np.indices((cells, cells)).reshape(2, -1).T
        target = np.clip(grid[:, None] + np.array(MOVES), 0, cells - 1)
        goals = possible_goals(cells)
        self.after = target[..., 0] * cells + target[..., 1]  # [C, 5] where moves lead to
        self.bit = np.zeros(cells**2, dtype=np.int64)  # [C] of the mask; 0 where no goal can be
        self.bit[goals @ [cells, 1]] = 1 << np.arange(len(goals))
        self.bits = self.bit[goals @ [cells, 1]]  # [G]
        self.later = np.maximum(0, steps - grid.sum(1) + 1)  # [C] steps on a goal that is known
        self.later_of_goal = self.later[goals @ [cells, 1]]  # [G]
        self.distance = np.abs(grid[:, None] - goals).sum(-1)  # [C, G]

    def bound_of_nothing(self) -> int:
        """The bound before the first step."""
        start = np.zeros(1, dtype=np.int64)
        return int(self.bound(start + self.bits.sum(), start, 0, 0)[0])

    def bound(self, mask: Ints, cell: Ints, episode: int, step: int) -> Ints:
        """[S] what goals not met yet can be worth at most, after `step` steps of `episode`.

        They are met one at a time, the i-th not before there was time to reach the i-th nearest,
        and all that are not met in this episode are as good as known in the next.
        """
        open_goals = (mask[:, None] & self.bits) != 0
        known_later = (self.episodes - episode - 1) * (open_goals @ self.later_of_goal)
        far = self.steps + self.cells**2  # beyond every episode
        distance = np.sort(np.where(open_goals, self.distance[cell], far), 1)
        order = np.arange(len(self.bits))
        met = step + order + np.maximum.accumulate(distance - order, 1)
        bound: Ints = known_later + np.maximum(0, self.steps - met + 1).sum(1)
        return bound

    def find(self, threshold: int) -> tuple[int, ...] | None:
        """The best walk if it is worth at least `threshold`, else None."""
        mask, cell, worth = (
            self.bits.sum(keepdims=True),
            np.zeros(1, np.int64),
            np.zeros(1, np.int64),
        )
        history = []
        for episode in range(self.episodes):
            for step in range(1, self.steps + 1):
                target = self.after[cell]
                found = (mask[:, None] & self.bit[target]) != 0
                value = self.steps - step + 1 + (self.episodes - episode - 1) * self.later[target]
                worth = (worth[:, None] + np.where(found, value, 0)).reshape(-1)
                mask = (mask[:, None] & ~self.bit[target]).reshape(-1)
                cell, now = target.reshape(-1), (episode, step)
                if step == self.steps:
                    cell, now = np.zeros_like(cell), (episode + 1, 0)
                chosen = self._best_of_each(mask, cell, worth)
                bound = worth[chosen] + self.bound(mask[chosen], cell[chosen], *now)
                chosen = chosen[bound >= threshold]
                if not len(chosen):
                    return None
                mask, cell, worth = mask[chosen], cell[chosen], worth[chosen]
                history.append(chosen)
        return self._traced(history, int(worth.argmax()))

    def _best_of_each(self, mask: Ints, cell: Ints, worth: Ints) -> Ints:
        """The rows of each mask and cell that are worth most."""
        key = mask * self.cells**2 + cell
        order = np.lexsort((-worth, key))
        first = np.ones(len(order), dtype=bool)
        first[1:] = key[order][1:] != key[order][:-1]
        return order[first]

    def _traced(self, history: list[Ints], row: int) -> tuple[int, ...]:
        """Back from the row of the last step to the first: its actions in order."""
        actions = []
        for chosen in reversed(history):
            row, action = divmod(int(chosen[row]), len(MOVES))
            actions.append(action)
        return tuple(reversed(actions))

    def on_goal(self, actions: tuple[int, ...]) -> tuple[float, ...]:
        """Expected steps of each episode on the goal, [E], of whoever searches by this walk."""
        total, mask, cell = [0] * self.episodes, int(self.bits.sum()), 0
        for taken, action in enumerate(actions):
            episode, step = divmod(taken, self.steps)
            cell = int(self.after[0 if step == 0 else cell, action])
            if mask & int(self.bit[cell]):
                mask &= ~int(self.bit[cell])
                total[episode] += self.steps - step
                for later in range(episode + 1, self.episodes):
                    total[later] += int(self.later[cell])
        return tuple(sum_ / len(self.bits) for sum_ in total)
