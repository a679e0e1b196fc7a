"""Walking in the plane to a goal that is not shown: moves go in, positions and distances come out.

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

from metarl.envs.drawing.canvas import draw_ways
from metarl.envs.navigation import references
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive

MAX_MOVE = 0.1
"""longest move per step, in each coordinate"""
GOAL_RANGE = 0.5
"""point navigation: goals lie within this distance of the start, in each coordinate"""
GOAL_SIZE = 0.01
"""point navigation: nearer than this to the goal, in both coordinates, is there"""
GOAL_RADIUS = 0.2
"""sparse point navigation: not farther than this from the goal is there"""
NUM_GOALS = 100
"""sparse point navigation: goals on the half circle"""
NUM_TRAIN_GOALS = 80
"""sparse point navigation: of these, so many are for training; the others are the test split"""

SEEN = 0.25
"""so far beyond the goals and the start a picture reaches, and farther where the point walks off"""


@dataclass(frozen=True, kw_only=True)
class Navigation(TaskFamily):
    """What walks in the plane share: the start, the moves, and that the position is observed.

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
        """The position; nothing stops a point that walks away."""
        return spaces.Box(-np.inf, np.inf, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Box:
        """The move; longer ones are clipped."""
        return spaces.Box(-MAX_MOVE, MAX_MOVE, (2,), np.float32)

    @property
    def episode_steps(self) -> int:
        """As the option says."""
        return self.steps

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
        return position, *self.arrive(task, position)

    @abstractmethod
    def arrive(self, task: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Reward [L] of arriving at `position` [L, 2], and whether that ends the episode."""

    @property
    @abstractmethod
    def task_space(self) -> spaces.Box:
        """The goal."""

    @property
    @abstractmethod
    def goal_radius(self) -> float:
        """How near the goal is there."""

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The goal, the way of this episode, and palely those of the episodes before."""
        ways: list[list[NDArray[np.float64]]] = []
        for moment in life:
            if moment.action is None or not ways:
                ways.append([])
            ways[-1].append(moment.state[0].numpy())
        goals = self.task_space
        low, high = np.minimum(goals.low, 0) - SEEN, np.maximum(goals.high, 0) + SEEN
        return draw_ways(ways, task[0].numpy(), self.goal_radius, low, high)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, standing still, and an oracle that knows the goal."""
        return references.references(self.action_space)


@dataclass(frozen=True, kw_only=True)
class PointNavigation(Navigation):
    """A point walks from (0, 0) to a goal that it must find out from its rewards.

        position[t + 1] = position[t] + clip(action[t], -0.1, 0.1)
        reward[t]       = -||position[t + 1] - goal||_2

    The episode terminates on arrival: within 0.01 of the goal in both coordinates. A task is the
    goal, drawn from U[-0.5, 0.5]^2 in both splits: tasks are never drawn twice.

    Source: Finn et al. 2017, arXiv:1703.03400, as in its released code (the text squares the
    distance).
    """

    @property
    def task_space(self) -> spaces.Box:
        """The goal."""
        return spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)

    @property
    def goal_radius(self) -> float:
        """In each coordinate."""
        return GOAL_SIZE

    @property
    def trial_episodes(self) -> int:
        """Three: one to explore, two to show what was learnt."""
        return 3

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Goals [N, 2]."""
        unit = torch.rand(num_tasks, 2, generator=generator, device=generator.device)
        return GOAL_RANGE * (2 * unit - 1)

    def arrive(self, task: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the distance; the goal is the end."""
        return -_distance(task, position), self.success(task, position)

    def success(self, task: Tensor, state: Tensor) -> Tensor:
        """Whether the position [L, 2] is at the goal."""
        return ((state - task).abs() < GOAL_SIZE).all(1)


@dataclass(frozen=True, kw_only=True)
class SparsePointNavigation(Navigation):
    """A point walks from (0, 0) to a goal on a half circle, and feels nothing before it is there.

        position[t + 1] = position[t] + clip(action[t], -0.1, 0.1)
        distance[t]     = ||position[t + 1] - goal||_2
        reward[t]       = 1 - distance[t] if distance[t] <= 0.2 else 0

    Episodes never terminate: who has found the goal stays there. A task is the goal. There are
    100, evenly spaced on the upper half of the unit circle, both ends included; 80 of them are
    the train split, and the other 20 never are goals in training.

    Source: Rakelly et al. 2019 (PEARL), arXiv:1903.08254, as in its released code, the split
    included. There the dense reward is used in training, and the sparse one to test.
    """

    steps: int = 20
    """steps after which an episode is truncated"""
    dense: bool = False
    """reward -distance everywhere instead"""

    @property
    def task_space(self) -> spaces.Box:
        """The goal."""
        low, high = np.array([[-1, 0], [1, 1]], dtype=np.float32)
        return spaces.Box(low, high, (2,), np.float32)

    @property
    def goal_radius(self) -> float:
        """Of the disc that pays."""
        return GOAL_RADIUS

    @property
    def trial_episodes(self) -> int:
        """Six: five to explore, as in the source, and one more to show what was learnt.

        Who walks to the circle and then along it passes more than a third of the goals.
        """
        return 6

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Goals [N, 2] of the split, each as likely as every other."""
        goals = half_circle_goals(split).to(generator.device)
        drawn = torch.randint(
            len(goals), (num_tasks,), generator=generator, device=generator.device
        )
        return goals[drawn]

    def arrive(self, task: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """The reward; nothing ends the episode."""
        distance = _distance(task, position)
        forever = torch.zeros_like(distance, dtype=torch.bool)
        if self.dense:
            return -distance, forever
        # Selected by where it is zero, so that a distance that is NaN is not hidden.
        return torch.where(distance > GOAL_RADIUS, 0.0, 1 - distance), forever

    def success(self, task: Tensor, state: Tensor) -> Tensor:
        """Whether the position [L, 2] is within the radius of the goal."""
        return _distance(task, state) <= GOAL_RADIUS


@lru_cache
def half_circle_goals(split: Split) -> Tensor:
    """All goals of a split of sparse point navigation, [80 or 20, 2]."""
    angle = np.linspace(0, np.pi, NUM_GOALS)
    goals = np.stack([np.cos(angle), np.sin(angle)], 1)
    # NOTE: a legacy generator of its own, because the released code splits by this very shuffle.
    goals = goals[np.random.RandomState(1337).permutation(NUM_GOALS)]
    chosen = goals[:NUM_TRAIN_GOALS] if split == "train" else goals[NUM_TRAIN_GOALS:]
    return torch.as_tensor(chosen, dtype=torch.float32)


def _distance(goal: Tensor, position: Tensor) -> Tensor:
    """Euclidean, [L, 2] and [L, 2] -> [L]."""
    distance: Tensor = torch.linalg.vector_norm(position - goal, dim=1)
    return distance
