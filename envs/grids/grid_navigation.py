"""Grid navigation: find a hidden goal on a small grid.

Axes: `L` lanes, `N` tasks, `G` possible goals; cells are (x, y), x to the right, y upwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.drawing.layout import captioned, latest_episode, progress
from metarl.envs.grids import bayes_optimum, drawing, grid_references
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_positive

HIT = 1.0
"""reward of every step that ends on the goal"""
MISS = -0.1
"""reward of every other step"""
SHUFFLE_SEED = 0
"""seed of the shuffle that selects the held-out goals"""


@dataclass(frozen=True, kw_only=True)
class GridNavigation(TaskFamily):
    """An agent on a grid gets a positive reward on one hidden goal cell only.

        position[t + 1] = clip(position[t] + move[action[t]], 0, cells - 1),   position[0] = (0, 0)
        reward[t]       = 1 if position[t + 1] = goal else -0.1

    Actions are 0 stay, 1 up, 2 right, 3 down, 4 left. Episodes never terminate, so an agent should
    stay on the goal. The observation is the unscaled position, in cells, like the task.

    A task is the goal, drawn uniformly from all cells except (0, 0) and its three neighbours: 21
    cells. With `held_out_goals=0` both splits share them, as in the source, and the test split
    measures adaptation, but not generalisation to unseen tasks. Other cells are valid tasks too,
    but references that know the distribution do not expect them.

    Source: Zintgraf et al. 2020 (VariBAD), arXiv:1910.08348, as in its released code.
    """

    cells: int = 5
    """cells in each row and column"""
    steps: int = 15
    """steps after which an episode is truncated"""
    held_out_goals: int = 0
    """number of randomly chosen goals that are goals in the test split only"""

    defines_success: ClassVar[bool] = True
    can_render: ClassVar[bool] = True
    fixed_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("steps", self.steps)
        if self.cells < 3:
            raise ConfigError(
                f"cells={self.cells} must be at least 3: the start and its neighbours are never "
                "the goal, so a smaller grid has no goals."
            )
        goals = len(self.goals())
        if not 0 <= self.held_out_goals < goals:
            raise ConfigError(
                f"held_out_goals={self.held_out_goals} must lie between 0 and {goals - 1}: of "
                f"{goals} goals at least one must remain for training."
            )

    @property
    def observation_space(self) -> spaces.Box:
        """The position, in cells."""
        return spaces.Box(0.0, self.cells - 1.0, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Stay, up, right, down, left."""
        return spaces.Discrete(5)

    @property
    def task_space(self) -> spaces.Box:
        """The goal, in whole cells."""
        return spaces.Box(0, self.cells - 1, (2,), np.int64)

    @property
    def episode_steps(self) -> int:
        """The option `steps`."""
        return self.steps

    @property
    def splits_share_tasks(self) -> bool:
        """True unless goals are held out."""
        return self.held_out_goals == 0

    @property
    def trial_episodes(self) -> int:
        """Four, as in the source; two are enough to visit all goals."""
        return 4

    def goals(self, split: Split | None = None) -> Tensor:
        """All goals of a split, or of both splits: [G, 2] int64."""
        goals = bayes_optimum.possible_goals(self.cells)
        if split is not None and self.held_out_goals:
            order = np.random.default_rng(SHUFFLE_SEED).permutation(len(goals))
            held_out, kept = np.split(order, [self.held_out_goals])
            goals = goals[np.sort(kept if split == "train" else held_out)]
        return torch.from_numpy(goals)

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Goals [N, 2], drawn uniformly from the split."""
        goals = self.goals(split).to(generator.device)
        drawn = torch.randint(
            len(goals), (num_tasks,), generator=generator, device=generator.device
        )
        return goals[drawn]

    def reset(self, task: Tensor, noise: LaneNoise) -> Tensor:
        """Positions [L, 2] at the start."""
        return torch.zeros_like(task)

    def observe(self, task: Tensor, state: Tensor) -> Tensor:
        """The position [L, 2]."""
        return state.float()

    def step(
        self, task: Tensor, state: Tensor, action: Tensor, noise: LaneNoise
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Moves the agent, unless the border blocks the move."""
        position = grid_references.next_position(state, action, self.cells)
        found = self.success(task, position)
        reward = torch.full_like(found, MISS, dtype=torch.float32).masked_fill(found, HIT)
        return position, reward, torch.zeros_like(found)

    def success(self, task: Tensor, state: Tensor) -> Tensor:
        """Whether the position [L, 2] is the goal."""
        return (state == task).all(1)

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The goal, the path of this episode, and cells visited in earlier episodes, tinted."""
        episode = latest_episode(history)
        before, path = (
            [(x, y) for x, y in (frame.state[0].tolist() for frame in part)]
            for part in (history[: -len(episode)], episode)
        )
        x, y = task[0].tolist()
        image = drawing.draw_search(self.cells, (x, y), path, before)
        return captioned(image, progress(episode, self.steps))

    def optimal_returns(self, episodes: int) -> list[float]:
        """Expected return of each episode of a trial under the exact Bayes optimum.

        Raises:
            ConfigError: the grid is too large to be solved.
        """
        on_goal = bayes_optimum.best_walk(self.cells, self.steps, episodes).on_goal
        return [MISS * self.steps + (HIT - MISS) * share for share in on_goal]

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, Thompson sampling, an oracle, and the exact Bayes optimum where solvable."""
        return grid_references.references(self.cells, self.steps, episodes)
