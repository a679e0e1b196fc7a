"""The oracle of Krazy World: plans the moves that take the most goals on a known board.

Axes: `L` lanes, `N` tasks, `C` cells of a board, `I` items (goals and energy), `T` steps.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.envs.grids import krazy_rules
from metarl.envs.grids.krazy_rules import DEATH, DIRECTIONS, ENERGY, GOAL
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

MOST_STATES = 200_000
"""largest number of cells times sets of items for which the best moves are searched"""
CHUNK_TASKS = 256
"""tasks searched at once; limits memory"""


def references(size: int, energy: int, replenish: int, *, items: int) -> Mapping[str, Reference]:
    """Random, and an oracle where boards have few enough items."""
    random = UniformPolicy(spaces.Discrete(len(DIRECTIONS)))
    found = {"random": Reference(role="floor", label="random", build=lambda _: random)}
    if size**2 << items <= MOST_STATES:
        found["oracle"] = Reference(
            role="ceiling",
            label="oracle (knows the board)",
            build=lambda tasks: Planner(best_moves(tasks, size, energy, replenish)),
            open_loop=True,
        )
    return found


class PlanMemory(NamedTuple):
    """Memory of a policy that follows a plan."""

    plan: Tensor  # [L, T + 1] int64 actions
    step: Tensor  # [L] int64 steps taken in the episode


class Planner:
    """Repeats a fixed list of actions in every episode of a task."""

    def __init__(self, plan: Tensor) -> None:
        """`plan` [N, T] int64: actions of every task; action 0 follows after the last one."""
        self._plan = torch.nn.functional.pad(plan, (0, 1))

    def initial_memory(self, lanes: int, horizon: int) -> PlanMemory:
        """The plan of each lane's task, at its start."""
        plan = self._plan.repeat_interleave(lanes // len(self._plan), 0)
        return PlanMemory(plan, torch.zeros_like(plan[:, 0]))

    def act(self, percept: Percept, memory: PlanMemory, noise: LaneNoise) -> PolicyOutput:
        """The next action of the plan."""
        plan, step = memory.plan, memory.step.masked_fill(percept.first_of_episode, 0)
        last = plan.shape[1] - 1
        action = plan.gather(1, step.clamp(max=last).unsqueeze(1)).squeeze(1)
        after = PlanMemory(plan, step + 1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), after)


def best_moves(tasks: Tensor, size: int, energy: int, replenish: int) -> Tensor:
    """Actions [N, T] that take the largest possible number of goals, as early as possible.

    Raises:
        ConfigError: a board holds too many items.
    """
    chunks = (tasks[row : row + CHUNK_TASKS] for row in range(0, len(tasks), CHUNK_TASKS))
    plans = [_Search(chunk, size, energy, replenish).plan() for chunk in chunks]
    longest = max(plan.shape[1] for plan in plans)
    padded = [torch.nn.functional.pad(plan, (0, longest - plan.shape[1])) for plan in plans]
    return torch.cat(padded)


class _Search:
    """Breadth-first search over states (cell, items taken), in all tasks at once.

    Transitions are deterministic, and taking the same items in fewer steps leaves more energy. The
    shortest path to a state is therefore the best one, and only that one is stored.
    """

    def __init__(self, tasks: Tensor, size: int, energy: int, replenish: int) -> None:
        self._energy, self._replenish = energy, replenish
        task = krazy_rules.unpack_task(tasks)
        self._board, self._start = task.board, task.start
        cells = task.board.shape[1]
        item = (task.board == GOAL) | (task.board == ENERGY)
        self._sets = 1 << int(item.sum(1).max())
        if cells * self._sets > MOST_STATES:
            raise ConfigError(
                f"A board has {self._sets.bit_length() - 1} goals and energy tiles on {cells} "
                "cells, too many for the oracle's search. Leave the oracle out, or use fewer items."
            )
        sets = torch.arange(self._sets, device=tasks.device)
        bits = torch.arange(self._sets.bit_length(), device=tasks.device)
        self._bits_set = (sets.unsqueeze(1) >> bits & 1).sum(1)
        order = (item.long().cumsum(1) - 1).clamp(min=0)
        self._bit = torch.where(item, 1 << order, 0)  # [N, C]
        self._goals = torch.where(task.board == GOAL, self._bit, 0).sum(1)  # [N] masks
        self._target = self._targets(task, size)

    def _targets(self, task: krazy_rules.KrazyTask, size: int) -> Tensor:
        """The cell that each action leads to from each cell, [N, C, 4]."""
        count, cells = task.board.shape
        cell = torch.arange(cells, device=task.board.device).repeat(count)
        board = task.board.repeat_interleave(cells, 0)
        ends = [
            krazy_rules.arrive(board, cell, direction.repeat_interleave(cells), size)
            for direction in task.direction.unbind(1)
        ]
        return torch.stack(ends, 1).view(count, cells, len(DIRECTIONS))

    def plan(self) -> Tensor:
        """The actions that take the most goals in the fewest steps, [N, T]."""
        count, cells = self._board.shape
        device = self._board.device
        # Edge to each state, coded as previous state * 4 + action; -1: never reached, -2: start.
        edges = torch.full((count * cells * self._sets,), -1, device=device)
        first = self._flat(torch.arange(count, device=device), self._start, 0 * self._start)
        edges[first] = -2
        best, best_state = torch.zeros_like(first), first
        frontier, step = first, 0
        while len(frontier):
            step += 1
            frontier = self._expand(frontier, edges)
            best, best_state = self._update_best(frontier, best, best_state)
            frontier = self._can_continue(frontier, step)
        return self._backtrack(best_state, edges)

    def _flat(self, task: Tensor, cell: Tensor, mask: Tensor) -> Tensor:
        """Index of each state [S]."""
        return (task * self._board.shape[1] + cell) * self._sets + mask

    def _unflat(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Task, cell and mask of states [S], the inverse of `_flat`."""
        place, mask = state.div(self._sets, rounding_mode="floor"), state % self._sets
        cells = self._board.shape[1]
        return place.div(cells, rounding_mode="floor"), place % cells, mask

    def _expand(self, frontier: Tensor, edges: Tensor) -> Tensor:
        """New states [S] one step after the frontier; writes their edges into `edges`."""
        task, cell, mask = self._unflat(frontier)
        target = self._target[task, cell]
        bit = self._bit[task.unsqueeze(1), target].masked_fill(target == cell.unsqueeze(1), 0)
        state = self._flat(task.unsqueeze(1), target, mask.unsqueeze(1) | bit).flatten()
        action = torch.arange(len(DIRECTIONS), device=state.device)
        edge = (frontier.unsqueeze(1) * len(DIRECTIONS) + action).flatten()
        new = edges[state] == -1
        state, edge = state[new], edge[new]
        # Ties between paths of equal length go to the lowest edge, so that all devices plan alike.
        edges[state] = torch.iinfo(torch.int64).max
        edges.scatter_reduce_(0, state, edge, "amin")
        return state[edges[state] == edge]

    def _update_best(self, frontier: Tensor, best: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The most goals taken in each task, and a state in which they are taken, [N] each."""
        task, _, mask = self._unflat(frontier)
        taken = self._popcount(mask & self._goals[task])
        most = best.scatter_reduce(0, task, taken, "amax")
        there = taken == most[task]
        latest = torch.full_like(state, -1).scatter_reduce(0, task[there], frontier[there], "amax")
        return most, torch.where(most > best, latest, state)

    def _can_continue(self, frontier: Tensor, step: int) -> Tensor:
        """States [S] that are not terminal, in tasks where not all goals are taken."""
        task, cell, mask = self._unflat(frontier)
        refills = self._popcount(mask & ~self._goals[task])
        energy = self._energy + self._replenish * refills - step
        active = (energy > 0) & (self._board[task, cell] != DEATH)
        finished = torch.zeros_like(self._goals, dtype=torch.bool)
        finished[task[mask & self._goals[task] == self._goals[task]]] = True
        return frontier[active & ~finished[task]]

    def _popcount(self, mask: Tensor) -> Tensor:
        """Number of bits set in each mask."""
        return self._bits_set[mask]

    def _backtrack(self, state: Tensor, edges: Tensor) -> Tensor:
        """Actions, in order, that lead to the given state of every task, [N, T]."""
        columns = []
        while bool((edges[state] >= 0).any()):
            edge = edges[state]
            columns.append(torch.where(edge >= 0, edge % len(DIRECTIONS), -1))
            before = edge.div(len(DIRECTIONS), rounding_mode="floor")
            state = torch.where(edge >= 0, before, state)
        if not columns:
            return torch.zeros(len(state), 0, dtype=torch.int64, device=state.device)
        backwards = torch.stack(columns, 1)
        # Plans have different lengths: each is reversed within its length.
        length = (backwards >= 0).sum(1, keepdim=True)
        step = torch.arange(backwards.shape[1], device=state.device)
        plan = backwards.gather(1, (length - 1 - step).clamp(min=0))
        return plan.masked_fill(step >= length, 0)
