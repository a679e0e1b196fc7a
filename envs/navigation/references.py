"""Reference policies for navigation: two floors and a ceiling.

Axes: `L` lanes, `N` tasks; points have two coordinates.
"""

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept


def references(action_space: spaces.Box) -> Mapping[str, Reference]:
    """Random, standing still, and an oracle with access to the goal."""
    max_move = float(action_space.high[0])
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
            build=lambda tasks: GoalOracle(tasks, max_move),
        ),
    }


class StandingStill:
    """Never moves."""

    def initial_memory(self, lanes: int, horizon: int) -> None:
        """No memory."""

    def act(self, percept: Percept, memory: None, noise: LaneNoise) -> PolicyOutput:
        """Zero moves."""
        move = torch.zeros_like(percept.previous_action)
        return PolicyOutput(move, torch.zeros_like(percept.previous_reward), None)


class GoalOracle:
    """Moves straight to the goal, by at most `max_move` per coordinate and step, and stays.

    After every step no other path is nearer to the goal in either coordinate, so the oracle is
    optimal for every reward that decreases with the distance, dense or sparse.
    """

    def __init__(self, goals: Tensor, max_move: float) -> None:
        """`goals` [N, 2]: the goal of every task."""
        self._goals, self._max_move = goals, max_move

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        """The goal of each lane's task, [L, 2]; the position is observed."""
        return self._goals.repeat_interleave(lanes // len(self._goals), 0)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        """The largest move towards the goal that does not overshoot."""
        move = (memory - percept.obs).clamp(-self._max_move, self._max_move)
        return PolicyOutput(move, torch.zeros_like(percept.previous_reward), memory)
