"""Point navigation: reach a hidden goal in the plane.

Axes: `L` lanes, `N` tasks; points have two coordinates.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.drawing.canvas import draw_paths
from metarl.envs.navigation import references
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive

MAX_MOVE = 0.1
"""largest move per step, in each coordinate"""
GOAL_RANGE = 0.5
"""point navigation: goals lie within this distance of the start, in each coordinate"""
GOAL_SIZE = 0.01
"""point navigation: the goal is reached within this distance, in both coordinates"""
GOAL_RADIUS = 0.2
"""sparse point navigation: the goal is reached within this distance"""
NUM_GOALS = 100
"""sparse point navigation: goals on the half circle"""
NUM_TRAIN_GOALS = 80
"""sparse point navigation: goals of the train split; the others are the test split"""

MARGIN = 0.25
"""margin of rendered frames around the goals and the start; larger if the point leaves it"""


@dataclass(frozen=True, kw_only=True)
class Navigation(TaskFamily):
    """Base class of point navigation: start, moves and observations.

    position[t + 1] = position[t] + clip(action[t], -0.1, 0.1),   position[0] = (0, 0)
    """

    steps: int = 100
    """steps after which an episode is truncated"""

    defines_success: ClassVar[bool] = True
    can_render: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("steps", self.steps)

    @property
    def observation_space(self) -> spaces.Box:
        """The position, which is unbounded."""
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The move; larger ones are clipped."""
        return spaces.Box(-MAX_MOVE, MAX_MOVE, (2,), np.float32)

    @property
    def episode_steps(self) -> int:
        """The option `steps`."""
        return self.steps

    def reset(self, task: Tensor, noise: LaneNoise) -> Tensor:
        """Positions [L, 2] at the start."""
        return torch.zeros_like(task)

    def observe(self, task: Tensor, state: Tensor) -> Tensor:
        """The position [L, 2]."""
        return state.clone()

    def step(
        self, task: Tensor, state: Tensor, action: Tensor, noise: LaneNoise
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Moves the point. A non-finite action makes the position NaN until the next reset."""
        move = action.clamp(-MAX_MOVE, MAX_MOVE)
        # Clipping alone would turn the infinite action of a diverged policy into a valid one.
        position = state + torch.where(action.isfinite(), move, torch.nan)
        return position, *self.arrive(task, position)

    @abstractmethod
    def arrive(self, task: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Reward [L] at the new `position` [L, 2], and whether the episode terminates, [L]."""

    @property
    @abstractmethod
    def task_space(self) -> spaces.Box:
        """The goal."""

    @property
    @abstractmethod
    def goal_radius(self) -> float:
        """Distance within which the goal is reached."""

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The goal, the path of this episode, and in pale the paths of earlier episodes."""
        paths: list[list[NDArray[np.float64]]] = []
        for frame in history:
            if frame.action is None or not paths:
                paths.append([])
            paths[-1].append(frame.state[0].numpy())
        goals = self.task_space
        low, high = np.minimum(goals.low, 0) - MARGIN, np.maximum(goals.high, 0) + MARGIN
        return draw_paths(paths, task[0].numpy(), self.goal_radius, low, high)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, standing still, and an oracle with access to the goal."""
        return references.references(self.action_space)


@dataclass(frozen=True, kw_only=True)
class PointNavigation(Navigation):
    """A point moves from (0, 0) to a hidden goal, which it must infer from its rewards.

        position[t + 1] = position[t] + clip(action[t], -0.1, 0.1)
        reward[t]       = -||position[t + 1] - goal||_2

    The episode terminates on arrival: within 0.01 of the goal in both coordinates. A task is the
    goal, drawn from U[-0.5, 0.5]^2 in both splits; tasks never repeat.

    Source: Finn et al. 2017, arXiv:1703.03400, as in its released code (the text squares the
    distance).
    """

    @property
    def task_space(self) -> spaces.Box:
        """The goal."""
        return spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)

    @property
    def goal_radius(self) -> float:
        """The distance in each coordinate."""
        return GOAL_SIZE

    @property
    def trial_episodes(self) -> int:
        """Three: one to explore, two to exploit."""
        return 3

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Goals [N, 2]."""
        unit = torch.rand(num_tasks, 2, generator=generator, device=generator.device)
        return GOAL_RANGE * (2 * unit - 1)

    def arrive(self, task: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the distance; the episode terminates at the goal."""
        return -_distance(task, position), self.success(task, position)

    def success(self, task: Tensor, state: Tensor) -> Tensor:
        """Whether the position [L, 2] is at the goal."""
        return ((state - task).abs() < GOAL_SIZE).all(1)


@dataclass(frozen=True, kw_only=True)
class SparsePointNavigation(Navigation):
    """A point moves from (0, 0) to a goal on a half circle, with zero reward until it is there.

        position[t + 1] = position[t] + clip(action[t], -0.1, 0.1)
        distance[t]     = ||position[t + 1] - goal||_2
        reward[t]       = 1 - distance[t] if distance[t] <= 0.2 else 0

    Episodes never terminate, so an agent should stay at the goal. A task is the goal. There are
    100 goals, evenly spaced on the upper half of the unit circle, both ends included; 80 of them
    are the train split and the other 20 the test split.

    Source: Rakelly et al. 2019 (PEARL), arXiv:1903.08254, as in its released code, including the
    split. The source trains on the dense reward and tests on the sparse one.
    """

    steps: int = 20
    """steps after which an episode is truncated"""
    dense: bool = False
    """use the reward -distance everywhere instead"""

    fixed_length: ClassVar[bool] = True

    @property
    def task_space(self) -> spaces.Box:
        """The goal."""
        low, high = np.array([[-1, 0], [1, 1]], dtype=np.float32)
        return spaces.Box(low, high, (2,), np.float32)

    @property
    def goal_radius(self) -> float:
        """Radius of the rewarded disc."""
        return GOAL_RADIUS

    @property
    def trial_episodes(self) -> int:
        """Six: five to explore, as in the source, and one more to exploit.

        A path to the circle and then along it passes more than a third of the goals.
        """
        return 6

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Goals [N, 2], drawn uniformly from the split."""
        goals = half_circle_goals(split).to(generator.device)
        drawn = torch.randint(
            len(goals), (num_tasks,), generator=generator, device=generator.device
        )
        return goals[drawn]

    def arrive(self, task: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """The sparse or dense reward; the episode never terminates."""
        distance = _distance(task, position)
        terminated = torch.zeros_like(distance, dtype=torch.bool)
        if self.dense:
            return -distance, terminated
        # The condition is false for NaN, so that a NaN distance gives a NaN reward.
        return torch.where(distance > GOAL_RADIUS, 0.0, 1 - distance), terminated

    def success(self, task: Tensor, state: Tensor) -> Tensor:
        """Whether the position [L, 2] is within the goal radius."""
        return _distance(task, state) <= GOAL_RADIUS


@lru_cache
def half_circle_goals(split: Split) -> Tensor:
    """All goals of a split of sparse point navigation, [80 or 20, 2]."""
    angle = np.linspace(0, np.pi, NUM_GOALS)
    goals = np.stack([np.cos(angle), np.sin(angle)], 1)
    # NOTE: a local legacy generator, because the released code splits goals by this shuffle.
    goals = goals[np.random.RandomState(1337).permutation(NUM_GOALS)]
    chosen = goals[:NUM_TRAIN_GOALS] if split == "train" else goals[NUM_TRAIN_GOALS:]
    return torch.as_tensor(chosen, dtype=torch.float32)


def _distance(goal: Tensor, position: Tensor) -> Tensor:
    """Euclidean distance, [L, 2] and [L, 2] -> [L]."""
    distance: Tensor = torch.linalg.vector_norm(position - goal, dim=1)
    return distance
