"""The T-maze: a cue at the start of a corridor shows which arm at its end is rewarded.

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
from metarl.envs.grids.t_maze_references import ACTIONS, BACK, DOWN, FORWARD, UP
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_between, require_positive


class TMazeState(NamedTuple):
    """Position, time and cue of each lane."""

    x: Tensor  # [L] int64  along the corridor
    y: Tensor  # [L] int64  0 in the corridor, 1 or -1 in the arms
    time: Tensor  # [L] int64  steps taken
    cue_was: Tensor  # [L] bool  the cue was shown before
    cue_is: Tensor  # [L] bool  the cue is shown now


@dataclass(frozen=True, kw_only=True)
class TMaze(TaskFamily):
    """Walk down a corridor, then into the arm that was shown by a cue at the start only.

                              o  up
        cue . . . . . . . . . +
                              o  down

        reward[t] = 1 if in the goal arm else 0                             in the last step
                    -detour_cost / corridor if action[t] is not forward     in earlier steps

    The observation is (0, cue) at the cue, (0, 0) in the corridor and (1, y) at the junction and in
    the arms. The cue is 1 (up) or -1 (down) on the first visit, then 0. An episode lasts exactly
    as long as the walk to an arm: `corridor` + 1 steps, over which the cue must be remembered.
    Walls block moves.

    With `active=True` an episode starts one step after the cue. The agent must turn back to see it,
    at no cost, and has two more steps.

    A task is the goal arm: 0 is down, 1 is up, equally likely in both splits. The observation
    *shows* it: this tests memory, not adaptation to a hidden task, so `task_is_observable = True`.
    An optimal agent with memory earns 1, one without memory at most .5.

    Sources: Ni et al. 2023, arXiv:2307.03864: lengths, cue, observations, a cost of 1 / corridor.
    Which steps cost follows `TMazeAltPassive` and `TMazeAltActive` in UT-Austin-RPL/amago, where
    the default cost is 0; a random walk then ends in the goal arm of a corridor of ten in one of
    four million episodes.
    """

    corridor: int = 10
    """steps from the cue (active: from the start) to the junction"""
    active: bool = False
    """start after the cue, so that the agent must turn back to see it"""
    detour_cost: float = 1.0
    """total cost of an episode without forward steps; 0 leaves only the final reward"""

    defines_success: ClassVar[bool] = True
    can_render: ClassVar[bool] = True
    fixed_length: ClassVar[bool] = True
    splits_share_tasks: ClassVar[bool] = True
    task_is_observable: ClassVar[bool] = True
    """an agent can read the task from the observation"""

    def __post_init__(self) -> None:
        require_positive("corridor", self.corridor)
        require_between("detour_cost", self.detour_cost, 0.0, float("inf"))
        if self.detour_cost == float("inf"):
            raise ConfigError("detour_cost=inf must be finite.")

    @property
    def start(self) -> int:
        """Steps from the cue to the start of an episode."""
        return int(self.active)

    @property
    def observation_space(self) -> spaces.Box:
        """Whether the junction is reached; the cue, or the current arm."""
        return spaces.Box(-1.0, 1.0, (2,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Forward, up, back, down."""
        return spaces.Discrete(len(ACTIONS))

    @property
    def task_space(self) -> spaces.Discrete:
        """Down or up."""
        return spaces.Discrete(2)

    @property
    def episode_steps(self) -> int:
        """To the cue and back, down the corridor, and into an arm."""
        return self.corridor + 1 + 2 * self.start

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Goal arms [N] int64, 0 or 1."""
        return torch.randint(2, (num_tasks,), generator=generator, device=generator.device)

    def reset(self, task: Tensor, noise: LaneNoise) -> TMazeState:
        """At the start; deterministic."""
        zero, no = torch.zeros_like(task), torch.zeros_like(task, dtype=torch.bool)
        return TMazeState(zero + self.start, zero, zero, no, no | (not self.active))

    def observe(self, task: Tensor, state: TMazeState) -> Tensor:
        """(junction reached, cue or arm), [L, 2]."""
        junction = state.x == self.start + self.corridor
        shown = torch.where(state.cue_is, self._arm(task), state.y)
        return torch.stack([junction, shown], 1).float()

    def step(
        self, task: Tensor, state: TMazeState, action: Tensor, noise: LaneNoise
    ) -> tuple[TMazeState, Tensor, Tensor]:
        """Moves the agent, unless a wall blocks the move; deterministic."""
        end = self.start + self.corridor
        x = state.x + (action == FORWARD).long() - (action == BACK).long()
        y = state.y + (action == UP).long() - (action == DOWN).long()
        free = (x >= 0) & (x <= end) & (y.abs() <= 1) & ((y == 0) | (x == end))
        x, y = torch.where(free, x, state.x), torch.where(free, y, state.y)
        time, seen = state.time + 1, state.cue_was | state.cue_is
        after = TMazeState(x, y, time, seen, (x == 0) & ~seen)
        last = time >= self.episode_steps
        # The step back to the cue costs nothing.
        detour = (action != FORWARD) & (time > self.start)
        penalty = torch.where(detour, -self.detour_cost / self.corridor, 0.0)
        return after, torch.where(last, (y == self._arm(task)).float(), penalty), last

    def success(self, task: Tensor, state: TMazeState) -> Tensor:
        """Whether the episode ended in the goal arm."""
        return (state.y == self._arm(task)) & (state.time >= self.episode_steps)

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The corridor, the goal arm, the path of this episode, and whether the cue is shown."""
        episode = latest_episode(history)
        image = drawing.draw_corridor(
            self.start + self.corridor,
            int(self._arm(task)),
            [(int(frame.state.x), int(frame.state.y)) for frame in episode],
            "up" if int(task) else "down",
            cue_is_shown=bool(history[-1].state.cue_is),
        )
        return captioned(image, progress(episode, self.episode_steps))

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, a walk that guesses the arm (no memory), and an oracle with access to the arm."""
        return t_maze_references.references(self.episode_steps, self._arm)

    def _arm(self, task: Tensor) -> Tensor:
        """The y of the goal arm, -1 or 1."""
        return 2 * task - 1
