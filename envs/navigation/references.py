"""Policies for navigation that need no training: goals go in, floors and a ceiling come out.

Axes: `N` tasks, `B` copies of each task; points have two coordinates.
"""

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import PolicyOutput
from metarl.networks.policies import UniformPolicy
from metarl.tasks.family import Reference
from metarl.trajectory import Percept


def references(action_space: spaces.Box) -> Mapping[str, Reference]:
    """Random, standing still, and an oracle that knows the goal."""
    longest = float(action_space.high[0])
    return {
        "random": Reference(
            role="floor", label="random", build=lambda _: UniformPolicy(action_space)
        ),
        "standing_still": Reference(
            role="floor", label="standing still", build=lambda _: StandingStill()
        ),
        "oracle": Reference(
            role="ceiling",
            label="oracle (knows the goal)",
            build=lambda tasks: GoalOracle(tasks, longest),
        ),
    }


class StandingStill:
    """Never moves."""

    def initial_memory(self, num_tasks: int, copies: int) -> None:
        """Nothing to remember."""

    def act(self, percept: Percept, memory: None, generator: Generator) -> PolicyOutput:
        """Zeros."""
        move = torch.zeros_like(percept.previous_action)
        return PolicyOutput(move, torch.zeros_like(percept.previous_reward), None)


class GoalOracle:
    """Walks to the goal as fast as moves of at most `longest` per coordinate allow, and stays.

    At every step no path is nearer to the goal, in either coordinate: so no reward that falls
    with the distance, dense or sparse, can be bettered.
    """

    def __init__(self, goals: Tensor, longest: float) -> None:
        """Takes the goal of every task, [N, 2]."""
        self._goals, self._longest = goals.unsqueeze(1), longest

    def initial_memory(self, num_tasks: int, copies: int) -> None:
        """Nothing to remember: the position is observed."""

    def act(self, percept: Percept, memory: None, generator: Generator) -> PolicyOutput:
        """The longest move towards the goal that does not pass it."""
        move = (self._goals - percept.obs).clamp(-self._longest, self._longest)
        return PolicyOutput(move, torch.zeros_like(percept.previous_reward), None)
