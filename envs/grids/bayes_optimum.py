"""The exact Bayes-optimal policy of grid navigation, found by searching for the best walk.

Until the goal is found, observations do not depend on its position: rewards only rule out the
visited cells. Before that, an optimal policy therefore follows one fixed walk. Afterwards nothing
is unknown: the policy stays on the goal, and takes a shortest path to it in later episodes. Only
the walk must be chosen. If goal g is first reached at step t (from 1) of episode e, a trial spends

    H - t + 1   steps of episode e, and   max(0, H - |g| + 1)   of each later episode

on the goal, where |g| is its distance from the start and H the number of steps per episode. Goals
are equally likely, so the best walk maximises the sum over all goals.

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
"""largest grid side for which the best walk is found within a second, for any other options"""

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Actions for a whole trial, followed until the goal is found."""

    actions: tuple[int, ...]  # [E x H]
    on_goal: tuple[float, ...]  # [E] expected steps on the goal per episode, of the whole policy


def possible_goals(cells: int) -> Ints:
    """All cells except the start and its three neighbours, [G, 2], column by column."""
    grid = np.indices((cells, cells)).reshape(2, -1).T
    return grid[(grid > 1).any(1)].astype(np.int64)


def solvable(cells: int) -> bool:
    """Whether the best walk can be found quickly."""
    return cells <= MOST_CELLS


@lru_cache(maxsize=16)
def best_walk(cells: int, steps: int, episodes: int) -> Walk:
    """The walk that maximises the expected return of a trial.

    Raises:
        ConfigError: the grid is too large.
    """
    if not solvable(cells):
        raise ConfigError(
            f"The exact Bayes optimum of cells={cells} cannot be found: there are too many "
            f"walks. Take at most {MOST_CELLS} cells, or compare with 'thompson' and 'oracle'."
        )
    search = _Search(cells, steps, episodes)
    # No walk exceeds the upper bound. A search that prunes everything below a threshold and still
    # finds a walk has found the best one; if it finds none, the threshold is lowered.
    gap, highest = 0, search.initial_bound()
    while (actions := search.find(highest - gap)) is None:
        gap = 2 * gap + 1
    return Walk(actions=actions, on_goal=search.on_goal(actions))


class _Search:
    """Branch and bound over states (bit mask of goals not reached yet, cell).

    Only the best value of each state is kept. A state is pruned where the upper bound on its total
    value is below a threshold.
    """

    def __init__(self, cells: int, steps: int, episodes: int) -> None:
        self.cells, self.steps, self.episodes = cells, steps, episodes
        grid = np.indices((cells, cells)).reshape(2, -1).T
        target = np.clip(grid[:, None] + np.array(MOVES), 0, cells - 1)
        goals = possible_goals(cells)
        self.after = target[..., 0] * cells + target[..., 1]  # [C, 5] cell after each move
        self.bit = np.zeros(cells**2, dtype=np.int64)  # [C] mask bit; 0 where no goal can be
        self.bit[goals @ [cells, 1]] = 1 << np.arange(len(goals))
        self.bits = self.bit[goals @ [cells, 1]]  # [G]
        self.later = np.maximum(0, steps - grid.sum(1) + 1)  # [C] steps on a known goal
        self.later_of_goal = self.later[goals @ [cells, 1]]  # [G]
        self.distance = np.abs(grid[:, None] - goals).sum(-1)  # [C, G]

    def initial_bound(self) -> int:
        """The upper bound before the first step."""
        start = np.zeros(1, dtype=np.int64)
        return int(self.bound(start + self.bits.sum(), start, 0, 0)[0])

    def bound(self, mask: Ints, cell: Ints, episode: int, step: int) -> Ints:
        """[S] upper bound on the value of goals not reached yet, after `step` steps of `episode`.

        At most one goal is reached per step, and the i-th not before the i-th nearest can be. Goals
        not reached in this episode are counted as known in the next.
        """
        open_goals = (mask[:, None] & self.bits) != 0
        known_later = (self.episodes - episode - 1) * (open_goals @ self.later_of_goal)
        far = self.steps + self.cells**2  # beyond every episode
        distance = np.sort(np.where(open_goals, self.distance[cell], far), 1)
        order = np.arange(len(self.bits))
        reached = step + order + np.maximum.accumulate(distance - order, 1)
        bound: Ints = known_later + np.maximum(0, self.steps - reached + 1).sum(1)
        return bound

    def find(self, threshold: int) -> tuple[int, ...] | None:
        """Actions of the best walk if its value is at least `threshold`, else None."""
        mask, cell, total = (
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
                total = (total[:, None] + np.where(found, value, 0)).reshape(-1)
                mask = (mask[:, None] & ~self.bit[target]).reshape(-1)
                cell, now = target.reshape(-1), (episode, step)
                if step == self.steps:
                    cell, now = np.zeros_like(cell), (episode + 1, 0)
                chosen = self._best_of_each(mask, cell, total)
                bound = total[chosen] + self.bound(mask[chosen], cell[chosen], *now)
                chosen = chosen[bound >= threshold]
                if not len(chosen):
                    return None
                mask, cell, total = mask[chosen], cell[chosen], total[chosen]
                history.append(chosen)
        return self._backtrack(history, int(total.argmax()))

    def _best_of_each(self, mask: Ints, cell: Ints, total: Ints) -> Ints:
        """For each state (mask, cell), the row with the highest total."""
        key = mask * self.cells**2 + cell
        order = np.lexsort((-total, key))
        first = np.ones(len(order), dtype=bool)
        first[1:] = key[order][1:] != key[order][:-1]
        return order[first]

    def _backtrack(self, history: list[Ints], row: int) -> tuple[int, ...]:
        """Actions, in order, that lead to `row` of the last step."""
        actions = []
        for chosen in reversed(history):
            row, action = divmod(int(chosen[row]), len(MOVES))
            actions.append(action)
        return tuple(reversed(actions))

    def on_goal(self, actions: tuple[int, ...]) -> tuple[float, ...]:
        """Expected steps on the goal in each episode, [E], of a policy that follows this walk."""
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
