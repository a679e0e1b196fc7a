"""Who knows the board of Krazy World: tasks go in, the moves that take the most goals come out.

Axes: `N` tasks, `B` copies of each task, `C` cells of a board, `I` items (goals and energy), `T`
steps.
"""

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import PolicyOutput
from metarl.envs.grids import krazy_rules
from metarl.envs.grids.krazy_rules import DEATH, DIRECTIONS, ENERGY, GOAL
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

MOST_STATES = 200_000
"""cells times sets of items up to which the best moves are searched for"""
TOGETHER = 256
"""tasks searched at once, for the sake of memory"""


def references(size: int, energy: int, replenish: int, *, items: int) -> Mapping[str, Reference]:
    """Random, and an oracle where there are few enough items on a board."""
    random = UniformPolicy(spaces.Discrete(len(DIRECTIONS)))
    found = {"random": Reference(role="floor", label="random", build=lambda _: random)}
    if size**2 << items <= MOST_STATES:
        found["oracle"] = Reference(
            role="ceiling",
            label="oracle (knows the board)",
            build=lambda tasks: Planner(best_moves(tasks, size, energy, replenish)),
        )
    return found


class Planner:
    """Repeats a list of actions in every episode of its task."""

    def __init__(self, plan: Tensor) -> None:
        """Takes the actions of every task, [N, T] int64; behind the last one it takes action 0."""
        self._plan = torch.nn.functional.pad(plan, (0, 1))

    def initial_memory(self, num_tasks: int, copies: int) -> Tensor:
        """No step of the episode was taken, [N, B]."""
        return torch.zeros(num_tasks, copies, dtype=torch.int64, device=self._plan.device)

    def act(self, percept: Percept, memory: Tensor, generator: Generator) -> PolicyOutput:
        """The next action of the plan."""
        step = memory.masked_fill(percept.first_of_episode, 0)
        last = self._plan.shape[1] - 1
        action = self._plan.gather(1, step.clamp(max=last))
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), step + 1)


def best_moves(tasks: Tensor, size: int, energy: int, replenish: int) -> Tensor:
    """Actions [N, T] that take as many goals as can be taken, and these as early as possible.

    Raises:
        ConfigError: a board holds too many items.
    """
    parts = (tasks[row : row + TOGETHER] for row in range(0, len(tasks), TOGETHER))
    plans = [_Search(part, size, energy, replenish).plan() for part in parts]
    longest = max(plan.shape[1] for plan in plans)
    padded = [torch.nn.functional.pad(plan, (0, longest - plan.shape[1])) for plan in plans]
    return torch.cat(padded)


class _Search:
    """Breadth first over (cell, items taken), in all tasks at once.

    The rules leave nothing to chance, and who took the same items sooner has more energy left. So
    of all ways to a state the shortest is the best, and there is no need to remember another.
    """

    def __init__(self, tasks: Tensor, size: int, energy: int, replenish: int) -> None:
        self._energy, self._replenish = energy, replenish
        parts = krazy_rules.parts_of(tasks)
        self._board, self._start = parts.board, parts.start
        cells = parts.board.shape[1]
        item = (parts.board == GOAL) | (parts.board == ENERGY)
        self._sets = 1 << int(item.sum(1).max())
        if cells * self._sets > MOST_STATES:
            raise ConfigError(
                f"A board has {self._sets.bit_length() - 1} goals and energy tiles on {cells} "
                "cells: too many for an oracle to order them. Leave it out, or give fewer."
            )
        sets = torch.arange(self._sets, device=tasks.device)
        bits = torch.arange(self._sets.bit_length(), device=tasks.device)
        self._bits_set = (sets.unsqueeze(1) >> bits & 1).sum(1)
        order = (item.long().cumsum(1) - 1).clamp(min=0)
        self._bit = torch.where(item, 1 << order, 0)  # [N, C]
        self._goals = torch.where(parts.board == GOAL, self._bit, 0).sum(1)  # [N] masks
        self._target = self._targets(parts, size)

    def _targets(self, parts: krazy_rules.Parts, size: int) -> Tensor:
        """Where each action leads from each cell, [N, C, 4]."""
        count, cells = parts.board.shape
        cell = torch.arange(cells, device=parts.board.device).repeat(count)
        board = parts.board.repeat_interleave(cells, 0)
        ends = [
            krazy_rules.arrive(board, cell, direction.repeat_interleave(cells), size)
            for direction in parts.direction.unbind(1)
        ]
        return torch.stack(ends, 1).view(count, cells, len(DIRECTIONS))

    def plan(self) -> Tensor:
        """The actions that take the most goals, the soonest, [N, T]."""
        count, cells = self._board.shape
        device = self._board.device
        # The state before each one and the action that led here, as one number; -1: never reached.
        came = torch.full((count * cells * self._sets,), -1, device=device)
        first = self._flat(torch.arange(count, device=device), self._start, 0 * self._start)
        came[first] = -2
        best, best_state = torch.zeros_like(first), first
        frontier, step = first, 0
        while len(frontier):
            step += 1
            frontier = self._reach(frontier, came)
            best, best_state = self._better(frontier, best, best_state)
            frontier = self._alive(frontier, step)
        return self._traced(best_state, came)

    def _flat(self, task: Tensor, cell: Tensor, mask: Tensor) -> Tensor:
        """One number for each state [S]."""
        return (task * self._board.shape[1] + cell) * self._sets + mask

    def _apart(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Task, cell and mask of states [S]."""
        place, mask = state.div(self._sets, rounding_mode="floor"), state % self._sets
        cells = self._board.shape[1]
        return place.div(cells, rounding_mode="floor"), place % cells, mask

    def _reach(self, frontier: Tensor, came: Tensor) -> Tensor:
        """States [S] one step on that nobody reached before; writes into `came` how."""
        task, cell, mask = self._apart(frontier)
        target = self._target[task, cell]
        bit = self._bit[task.unsqueeze(1), target].masked_fill(target == cell.unsqueeze(1), 0)
        state = self._flat(task.unsqueeze(1), target, mask.unsqueeze(1) | bit).flatten()
        action = torch.arange(len(DIRECTIONS), device=state.device)
        way = (frontier.unsqueeze(1) * len(DIRECTIONS) + action).flatten()
        new = came[state] == -1
        state, way = state[new], way[new]
        # Of several ways of equal length the lowest, so that every device plans alike.
        came[state] = torch.iinfo(torch.int64).max
        came.scatter_reduce_(0, state, way, "amin")
        return state[came[state] == way]

    def _better(self, frontier: Tensor, best: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The most goals taken in each task, and the state in which they were, [N] each."""
        task, _, mask = self._apart(frontier)
        taken = self._popcount(mask & self._goals[task])
        most = best.scatter_reduce(0, task, taken, "amax")
        there = taken == most[task]
        latest = torch.full_like(state, -1).scatter_reduce(0, task[there], frontier[there], "amax")
        return most, torch.where(most > best, latest, state)

    def _alive(self, frontier: Tensor, step: int) -> Tensor:
        """States [S] from which it can go on, in tasks in which there is a goal left."""
        task, cell, mask = self._apart(frontier)
        refills = self._popcount(mask & ~self._goals[task])
        energy = self._energy + self._replenish * refills - step
        goes_on = (energy > 0) & (self._board[task, cell] != DEATH)
        finished = torch.zeros_like(self._goals, dtype=torch.bool)
        finished[task[mask & self._goals[task] == self._goals[task]]] = True
        return frontier[goes_on & ~finished[task]]

    def _popcount(self, mask: Tensor) -> Tensor:
        """How many bits of each mask are set."""
        return self._bits_set[mask]

    def _traced(self, state: Tensor, came: Tensor) -> Tensor:
        """Back from the last state of every task to its first: its actions in order, [N, T]."""
        columns = []
        while bool((came[state] >= 0).any()):
            way = came[state]
            columns.append(torch.where(way >= 0, way % len(DIRECTIONS), -1))
            before = way.div(len(DIRECTIONS), rounding_mode="floor")
            state = torch.where(way >= 0, before, state)
        if not columns:
            return torch.zeros(len(state), 0, dtype=torch.int64, device=state.device)
        backwards = torch.stack(columns, 1)
        # Plans end at different times: each is turned around within its own length.
        length = (backwards >= 0).sum(1, keepdim=True)
        step = torch.arange(backwards.shape[1], device=state.device)
        plan = backwards.gather(1, (length - 1 - step).clamp(min=0))
        return plan.masked_fill(step >= length, 0)
