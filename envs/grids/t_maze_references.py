"""Reference policies for the T-maze: two floors and a ceiling.

Axes: `L` lanes, `N` tasks.
"""

from collections.abc import Callable, Mapping

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

FORWARD, UP, BACK, DOWN = ACTIONS = range(4)


def references(steps: int, arm: Callable[[Tensor], Tensor]) -> Mapping[str, Reference]:
    """References for episodes of `steps` steps; `arm` maps tasks to 1 (up) or -1 (down)."""
    actions = spaces.Discrete(4)
    return {
        "random": Reference(role="floor", label="random", build=lambda _: UniformPolicy(actions)),
        "guess": Reference(
            role="floor",
            label="walks, then guesses (no memory)",
            build=lambda tasks: Walker(steps, None, tasks.device),
        ),
        "oracle": Reference(
            role="ceiling",
            label="oracle (knows the arm)",
            build=lambda tasks: Walker(steps, arm(tasks), tasks.device),
        ),
    }


class Walker:
    """Walks forward and, in the last step, into the given arm or a random one."""

    def __init__(self, steps: int, arms: Tensor | None, device: torch.device | str = "cpu") -> None:
        """`arms` [N]: arm of every task, 1 (up) or -1 (down); None: a random arm."""
        self._steps, self._arms, self._device = steps, arms, device

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        """Steps taken in the episode, [L] int64: zero."""
        return torch.zeros(lanes, dtype=torch.int64, device=self._device)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        """Forward; in the last step up or down."""
        time = torch.where(percept.first_of_episode, 0, memory)
        if self._arms is None:
            up = noise.uniform() < 0.5
        else:
            up = (self._arms > 0).repeat_interleave(len(time) // len(self._arms), 0)
        action = torch.where(time == self._steps - 1, torch.where(up, UP, DOWN), FORWARD)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), time + 1)
