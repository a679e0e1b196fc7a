"""Reference policies for grid navigation, from floor to ceiling.

Axes: `L` lanes, `N` tasks, `G` possible goals; cells are (x, y).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.envs.grids.bayes_optimum import MOVES, Walk, best_walk, possible_goals, solvable
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

STAY, UP, RIGHT, DOWN, LEFT = range(len(MOVES))


def references(cells: int, steps: int, episodes: int) -> Mapping[str, Reference]:
    """Random, Thompson sampling, an oracle, and the exact Bayes optimum where solvable."""
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
    """The ceiling for agents that do not know the task; empty if too large to solve."""
    if not solvable(cells):
        return {}
    reference = Reference(
        role="ceiling",
        label="exact Bayes optimum",
        build=lambda tasks: BayesOptimalWalker(
            cells, best_walk(cells, steps, episodes), tasks.device
        ),
        open_loop=True,  # until the goal is found
    )
    return {"bayes_optimal": reference}


def next_position(position: Tensor, action: Tensor, cells: int) -> Tensor:
    """Position [..., 2] int64 after an action [...]."""
    right = (action == RIGHT).long() - (action == LEFT).long()
    up = (action == UP).long() - (action == DOWN).long()
    return (position + torch.stack((right, up), -1)).clamp(0, cells - 1)


def towards(position: Tensor, goal: Tensor) -> Tensor:
    """The first action [...] of a shortest path between cells [..., 2]; along x first."""
    x, y = (goal - position).unbind(-1)
    along = torch.where(y > 0, UP, torch.where(y < 0, DOWN, STAY))
    return torch.where(x > 0, RIGHT, torch.where(x < 0, LEFT, along))


class GoalWalker:
    """Takes a shortest path to the goal and stays there."""

    def __init__(self, goals: Tensor) -> None:
        """`goals` [N, 2]: the goal of every task."""
        self._goals = goals

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        """The goal of each lane's task, [L, 2]; the position is observed."""
        return self._goals.repeat_interleave(lanes // len(self._goals), 0)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        """A step towards the goal."""
        action = towards(percept.obs.long(), memory)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), memory)


class WalkMemory(NamedTuple):
    """Memory of a policy that follows a fixed walk until the goal is found."""

    position: Tensor  # [L, 2] int64 before the last action
    goal: Tensor  # [L, 2] int64; -1 until it is found
    steps: Tensor  # [L] int64 steps taken in the trial


class BayesOptimalWalker:
    """Follows the best walk until the goal is found, then takes shortest paths to it and stays."""

    def __init__(self, cells: int, walk: Walk, device: torch.device | str = "cpu") -> None:
        self._cells = cells
        self._walk = torch.tensor(walk.actions, device=device)

    def initial_memory(self, lanes: int, horizon: int) -> WalkMemory:
        """At the start, goal unknown."""
        start = torch.zeros(lanes, 2, dtype=torch.int64, device=self._walk.device)
        return WalkMemory(start, start - 1, start[..., 0])

    def act(self, percept: Percept, memory: WalkMemory, noise: LaneNoise) -> PolicyOutput:
        """The next action of the walk; after the goal is found, a step towards it.

        Raises:
            ConfigError: the trial is longer than the walk.
        """
        if bool((memory.steps >= len(self._walk)).any()):
            raise ConfigError(
                f"The Bayes optimum was solved for trials of {len(self._walk)} steps, but this one "
                "is longer; build the references for as many episodes as the trial has."
            )
        # The last position of an episode is not observed, so it is computed from the action.
        arrived = next_position(memory.position, percept.previous_action, self._cells)
        goal = torch.where(_hit(percept).unsqueeze(-1), arrived, memory.goal)
        position = percept.obs.long()
        searching = (goal < 0).any(-1)
        action = torch.where(searching, self._walk[memory.steps], towards(position, goal))
        after = WalkMemory(position, goal, memory.steps + 1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), after)


class BeliefMemory(NamedTuple):
    """Memory of a policy that tracks which goals are still possible."""

    position: Tensor  # [L, 2] int64 before the last action
    possible: Tensor  # [L, G] bool
    target: Tensor  # [L] int64 index of the goal that is tried next


class ThompsonWalker:
    """Thompson sampling: samples a goal from the posterior and takes a shortest path to it.

    A new goal is sampled at every episode start and when the current one is ruled out. This is
    posterior sampling as in Zintgraf et al. 2020, arXiv:1910.08348, figure 1.
    """

    def __init__(self, cells: int, device: torch.device | str = "cpu") -> None:
        self._cells = cells
        self._goals = torch.from_numpy(possible_goals(cells)).to(device)

    def initial_memory(self, lanes: int, horizon: int) -> BeliefMemory:
        """Every goal is possible."""
        device = self._goals.device
        start = torch.zeros(lanes, 2, dtype=torch.int64, device=device)
        possible = torch.ones(lanes, len(self._goals), dtype=torch.bool, device=device)
        return BeliefMemory(start, possible, start[..., 0])

    def act(self, percept: Percept, memory: BeliefMemory, noise: LaneNoise) -> PolicyOutput:
        """A step towards the sampled goal."""
        arrived = next_position(memory.position, percept.previous_action, self._cells)
        here = (self._goals == arrived.unsqueeze(-2)).all(-1)
        updated = torch.where(_hit(percept).unsqueeze(-1), here, memory.possible & ~here)
        possible = torch.where(percept.first_of_trial.unsqueeze(-1), memory.possible, updated)
        sampled = noise.uniform(len(self._goals)).masked_fill(~possible, -1.0).argmax(-1)
        target_possible = possible.gather(-1, memory.target.unsqueeze(-1)).squeeze(-1)
        keep = target_possible & ~percept.first_of_episode
        target = torch.where(keep, memory.target, sampled)
        position = percept.obs.long()
        action = towards(position, self._goals[target])
        after = BeliefMemory(position, possible, target)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), after)


def _hit(percept: Percept) -> Tensor:
    """Whether the last step ended on the goal, [L]; false at the start of a trial."""
    return percept.previous_reward > 0
