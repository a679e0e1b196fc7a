"""A corridor that ends in a T: moves go in; a cue at the start says which way pays at the end.

Axes: `L` lanes, `N` tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.drawing.layout import captioned, latest_episode, progress
from metarl.envs.grids import drawing, t_maze_references
from metarl.envs.grids.t_maze_references import FORWARD
from metarl.errors import ConfigError
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_between, require_positive

MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""(x, y) of each action: forward, up, back, down"""


class TMazeState(NamedTuple):
    """Where each lane is, and what it has seen."""

    x: Tensor  # [L] int64  along the corridor
    y: Tensor  # [L] int64  0 in the corridor, 1 or -1 in the arms
    time: Tensor  # [L] int64  steps taken
    cue_was: Tensor  # [L] bool  the cue had been shown before
    cue_is: Tensor  # [L] bool  the cue is being shown


@dataclass(frozen=True, kw_only=True)
class TMaze(TaskFamily):
    """Walk down a corridor, then up or down: the way that was shown at the start, and never since.

                              o  up
        cue . . . . . . . . . +
                              o  down

        reward[t] = 1 if in the right arm else 0                            in the last step
                    -detour_cost / corridor if action[t] is not forward     in all steps before

    The observation is (0, cue) where the cue is, (0, 0) in the corridor and (1, y) from the
    junction on. The cue is 1 (up) or -1 (down) the first time one is there, then 0. An episode is
    as long as it takes to walk to the arm and no longer: `corridor` + 1 steps, all of them to be
    remembered over. Walls stop.

    With `active=True` one starts a step in front of the cue, must turn back to see it, at no cost,
    and has two steps more.

    A task is the way: 0 is down, 1 is up, equally likely, in both splits. The observation *shows*
    it: this is a test of memory, not of adaptation to what is hidden, and so
    `task_is_observable = True`. Who remembers earns 1; who cannot, at most .5.

    Sources: Ni et al. 2023, arXiv:2307.03864: lengths, cue, observations, a cost of 1 / corridor.
    Which steps cost is the rule of `TMazeAltPassive` and `TMazeAltActive` in UT-Austin-RPL/amago,
    where the cost is 0 unless told otherwise; then a random walk down a corridor of ten ends in the
    right arm in one of four million episodes.
    """

    corridor: int = 10
    """steps from the cue (active: from the start) to the junction"""
    active: bool = False
    """start beyond the cue, so that it must be looked for"""
    detour_cost: float = 1.0
    """cost of never walking forward, all steps together; 0 leaves the reward at the end alone"""

    defines_success: ClassVar[bool] = True
    can_render: ClassVar[bool] = True
    splits_share_tasks: ClassVar[bool] = True
    task_is_observable: ClassVar[bool] = True
    """an agent can read the task off the observation"""

    def __post_init__(self) -> None:
        require_positive("corridor", self.corridor)
        require_between("detour_cost", self.detour_cost, 0.0, float("inf"))
        if self.detour_cost == float("inf"):
            raise ConfigError("detour_cost=inf must be finite.")

    @property
    def start(self) -> int:
        """Steps from the cue to where an episode opens."""
        return int(self.active)

    @property
    def observation_space(self) -> spaces.Box:
        """Whether the junction is reached; the cue, or the arm one is in."""
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Forward, up, back, down."""
        return spaces.Discrete(len(MOVES))

    @property
    def task_space(self) -> spaces.Discrete:
        """Down or up."""
        return spaces.Discrete(2)

    @property
    def episode_steps(self) -> int:
        """To the cue and back, down the corridor, and into an arm."""
        return self.corridor + 1 + 2 * self.start

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Ways [N] int64."""
        return torch.randint(2, (num_tasks,), generator=generator, device=generator.device)

    def reset(self, task: Tensor, generator: Generator) -> TMazeState:
        """At the start; draws nothing."""
        zero, no = torch.zeros_like(task), torch.zeros_like(task, dtype=torch.bool)
        return TMazeState(zero + self.start, zero, zero, no, no | (not self.active))

    def observe(self, task: Tensor, state: TMazeState) -> Tensor:
        """Junction reached, cue or arm, [L, 2]."""
        junction = state.x == self.start + self.corridor
        shown = torch.where(state.cue_is, self._arm(task), state.y)
        return torch.stack([junction, shown], 1).float()

    def step(
        self, task: Tensor, state: TMazeState, action: Tensor, generator: Generator
    ) -> tuple[TMazeState, Tensor, Tensor]:
        """Moves, unless there is a wall; draws nothing."""
        end = self.start + self.corridor
        move = torch.tensor(MOVES, device=action.device)[action]
        x, y = state.x + move[:, 0], state.y + move[:, 1]
        free = (x >= 0) & (x <= end) & (y.abs() <= 1) & ((y == 0) | (x == end))
        x, y = torch.where(free, x, state.x), torch.where(free, y, state.y)
        time, seen = state.time + 1, state.cue_was | state.cue_is
        after = TMazeState(x, y, time, seen, (x == 0) & ~seen)
        last = time >= self.episode_steps
        # The way to the cue is free: it is no detour.
        costs = (action != FORWARD) & (time > self.start)
        price = torch.where(costs, -self.detour_cost / self.corridor, 0.0)
        return after, torch.where(last, (y == self._arm(task)).float(), price), last

    def success(self, task: Tensor, state: TMazeState) -> Tensor:
        """Whether the episode ended in the right arm."""
        return (state.y == self._arm(task)) & (state.time >= self.episode_steps)

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The corridor, the arm that pays, the way of this episode, and whether the cue is seen."""
        episode = latest_episode(life)
        picture = drawing.draw_corridor(
            self.start + self.corridor,
            int(self._arm(task)),
            [(int(moment.state.x), int(moment.state.y)) for moment in episode],
            "up" if int(task) else "down",
            cue_is_shown=bool(life[-1].state.cue_is),
        )
        return captioned(picture, progress(episode, self.episode_steps))

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, who walks but has no memory, and who knows the way: as good as any memory."""
        return t_maze_references.references(self.episode_steps, self._arm)

    def _arm(self, task: Tensor) -> Tensor:
        """The y of the arm that pays: -1 or 1."""
        return 2 * task - 1
