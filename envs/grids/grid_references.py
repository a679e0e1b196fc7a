"""Policies for grid navigation that need no training: a grid goes in, floor to ceiling come out.

Axes: `N` tasks, `B` copies of each task, `G` possible goals; cells are (x, y).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import PolicyOutput
from metarl.envs.grids.bayes_optimum import MOVES, Walk, best_walk, possible_goals, solvable
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

STAY, UP, RIGHT, DOWN, LEFT = range(len(MOVES))


def references(cells: int, steps: int, episodes: int) -> Mapping[str, Reference]:
    """Random, Thompson sampling, the exact Bayes optimum where it is found, an oracle."""
    random = UniformPolicy(spaces.Discrete(len(MOVES)))
    return {
        "random": Reference(role="floor", label="random", build=lambda _: random),
        "thompson": Reference(
            role="baseline",
            label="Thompson sampling",
            build=lambda tasks: ThompsonWalker(cells, tasks.device),
        ),
        **_bayes_optimal(cells, steps, episodes),
        "oracle": Reference(role="ceiling", label="oracle (knows the goal)", build=GoalWalker),
    }


def _bayes_optimal(cells: int, steps: int, episodes: int) -> Mapping[str, Reference]:
    """The ceiling for anybody who does not know the task; empty where it is too large to solve."""
    if not solvable(cells):
        return {}
    reference = Reference(
        role="ceiling",
        label="exact Bayes optimum",
        build=lambda tasks: BayesOptimalWalker(
            cells, best_walk(cells, steps, episodes), tasks.device
        ),
    )
    return {"bayes_optimal": reference}


def moved(position: Tensor, action: Tensor, cells: int) -> Tensor:
    """Where an action [...] leads to from a position [..., 2] int64."""
    right = (action == RIGHT).long() - (action == LEFT).long()
    up = (action == UP).long() - (action == DOWN).long()
    return (position + torch.stack((right, up), -1)).clamp(0, cells - 1)


def towards(position: Tensor, goal: Tensor) -> Tensor:
    """The next action [...] of a shortest path between cells [..., 2], first along the row."""
    x, y = (goal - position).unbind(-1)
    along = torch.where(y > 0, UP, torch.where(y < 0, DOWN, STAY))
    return torch.where(x > 0, RIGHT, torch.where(x < 0, LEFT, along))


class GoalWalker:
    """Goes to the goal by a shortest path and stays."""

    def __init__(self, goals: Tensor) -> None:
        """Takes the goal of every task, [N, 2]."""
        self._goals = goals.unsqueeze(1)

    def initial_memory(self, num_tasks: int, copies: int) -> None:
        """Nothing to remember: the position is observed."""

    def act(self, percept: Percept, memory: None, generator: Generator) -> PolicyOutput:
        """Towards the goal."""
        action = towards(percept.obs.long(), self._goals)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), None)


class Search(NamedTuple):
    """What somebody knows who walks by a plan until the goal is found."""

    before: Tensor  # [N, B, 2] int64 where the last action was taken
    goal: Tensor  # [N, B, 2] int64 once found; -1 before
    taken: Tensor  # [N, B] int64 steps of the trial


class BayesOptimalWalker:
    """Searches by the best walk there is, then goes to the goal by a shortest path and stays."""

    def __init__(self, cells: int, walk: Walk, device: torch.device | str = "cpu") -> None:
        self._cells = cells
        self._plan = torch.tensor(walk.actions, device=device)

    def initial_memory(self, num_tasks: int, copies: int) -> Search:
        """Nothing is known, at the start."""
        start = torch.zeros(num_tasks, copies, 2, dtype=torch.int64, device=self._plan.device)
        return Search(start, start - 1, start[..., 0])

    def act(self, percept: Percept, memory: Search, generator: Generator) -> PolicyOutput:
        """The next step of the plan, or towards the goal that was found.

        Raises:
            ConfigError: the trial is longer than the walk that was searched for.
        """
        if bool((memory.taken >= len(self._plan)).any()):
            raise ConfigError(
                f"The Bayes optimum was searched for trials of {len(self._plan)} steps, but this "
                "one is longer; ask for the references of as many episodes as there are."
            )
        # The last step of an episode is not observed: what was found there is told by its reward.
        arrived = moved(memory.before, percept.previous_action, self._cells)
        goal = torch.where(_hit(percept).unsqueeze(-1), arrived, memory.goal)
        position = percept.obs.long()
        searching = (goal < 0).any(-1)
        action = torch.where(searching, self._plan[memory.taken], towards(position, goal))
        after = Search(position, goal, memory.taken + 1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), after)


class Belief(NamedTuple):
    """What somebody knows who keeps track of the goals that are still possible."""

    before: Tensor  # [N, B, 2] int64 where the last action was taken
    possible: Tensor  # [N, B, G] bool
    target: Tensor  # [N, B] int64 the goal that is being tried


class ThompsonWalker:
    """Draws one of the goals still possible, goes there by a shortest path, and draws anew.

    It draws when an episode opens, and when the goal tried is out of question. This is the
    posterior sampling of Zintgraf et al. 2020, arXiv:1910.08348, figure 1.
    """

    def __init__(self, cells: int, device: torch.device | str = "cpu") -> None:
        self._cells = cells
        self._goals = torch.from_numpy(possible_goals(cells)).to(device)

    def initial_memory(self, num_tasks: int, copies: int) -> Belief:
        """Every goal is possible."""
        lead, device = (num_tasks, copies), self._goals.device
        start = torch.zeros(*lead, 2, dtype=torch.int64, device=device)
        possible = torch.ones(*lead, len(self._goals), dtype=torch.bool, device=device)
        return Belief(start, possible, start[..., 0])

    def act(self, percept: Percept, memory: Belief, generator: Generator) -> PolicyOutput:
        """Towards the goal that is being tried."""
        arrived = moved(memory.before, percept.previous_action, self._cells)
        here = (self._goals == arrived.unsqueeze(-2)).all(-1)
        learnt = torch.where(_hit(percept).unsqueeze(-1), here, memory.possible & ~here)
        possible = torch.where(percept.first_of_trial.unsqueeze(-1), memory.possible, learnt)
        luck = torch.rand(possible.shape, generator=generator, device=possible.device)
        drawn = luck.masked_fill(~possible, -1.0).argmax(-1)
        tried = possible.gather(-1, memory.target.unsqueeze(-1)).squeeze(-1)
        target = torch.where(tried & ~percept.first_of_episode, memory.target, drawn)
        position = percept.obs.long()
        action = towards(position, self._goals[target])
        after = Belief(position, possible, target)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), after)


def _hit(percept: Percept) -> Tensor:
    """Whether the last step ended on the goal, [N, B]; nothing was lived before a trial."""
    return percept.previous_reward > 0
