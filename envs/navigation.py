"""Walking in the plane to a goal that is not shown: moves go in, positions and distances come out.

Axes: `L` lanes, `N` tasks; points have two coordinates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import require_positive
from metarl.envs import navigation_references
from metarl.tasks import Reference, Split, TaskFamily

GOAL_RANGE = 0.5
"""goals lie within this distance of the start, in each coordinate"""
MAX_MOVE = 0.1
"""longest move per step, in each coordinate"""
GOAL_SIZE = 0.01
"""nearer than this to the goal, in both coordinates, is there"""


@dataclass(frozen=True, kw_only=True)
class PointNavigation(TaskFamily):
    """A point walks from (0, 0) to a goal that it must find out from its rewards.

        position[t + 1] = position[t] + clip(action[t], -0.1, 0.1)
        reward[t]       = -||position[t + 1] - goal||_2

    The episode terminates on arrival: within 0.01 of the goal in both coordinates. A task is the
    goal, drawn from U[-0.5, 0.5]^2 in both splits: tasks are never drawn twice.

    Source: Finn et al. 2017, arXiv:1703.03400, as in its released code (the text squares the
    distance).
    """

    steps: int = 100
    """steps after which an episode is truncated"""

    defines_success: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("steps", self.steps)

    @property
    def observation_space(self) -> spaces.Box:
        """The position; nothing stops a point that walks away."""
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The move; longer ones are clipped."""
        return spaces.Box(-MAX_MOVE, MAX_MOVE, (2,), np.float32)

    @property
    def task_space(self) -> spaces.Box:
        """The goal."""
        return spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)

    @property
    def episode_steps(self) -> int:
        """As the option says."""
        return self.steps

    @property
    def trial_episodes(self) -> int:
        """Three: one to explore, two to show what was learnt."""
        return 3

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Goals [N, 2]."""
        unit = torch.rand(num_tasks, 2, generator=generator, device=generator.device)
        return GOAL_RANGE * (2 * unit - 1)

    def reset(self, task: Tensor, generator: Generator) -> Tensor:
        """Positions [L, 2] at the start."""
        return torch.zeros_like(task)

    def observe(self, task: Tensor, state: Tensor) -> Tensor:
        """The position [L, 2]."""
        return state.clone()

    def step(
        self, task: Tensor, state: Tensor, action: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Moves. An action that is not finite makes the position NaN, for good."""
        move = action.clamp(-MAX_MOVE, MAX_MOVE)
        # Clipping alone would turn the infinite action of a policy that diverged into a good one.
        position = state + torch.where(action.isfinite(), move, torch.nan)
        reward = -torch.linalg.vector_norm(position - task, dim=1)
        return position, reward, self.success(task, position)

    def success(self, task: Tensor, state: Tensor) -> Tensor:
        """Whether the position [L, 2] is at the goal."""
        return ((state - task).abs() < GOAL_SIZE).all(1)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, and an oracle that knows the goal."""
        return navigation_references.references(self.action_space)
