"""Krazy World: find goals on a board whose tile colours and action directions are unknown.

Axes: `L` lanes, `N` tasks, `C` cells of a board.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.drawing.layout import captioned, latest_episode, stacked
from metarl.envs.grids import drawing, krazy_oracle, krazy_rules
from metarl.envs.grids.krazy_rules import (
    DEATH,
    DIRECTIONS,
    ENERGY,
    GOAL,
    ICE,
    NORMAL,
    TILES,
    TRANSPORTER,
)
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_between, require_positive

View: TypeAlias = Literal["local", "board"]


class KrazyState(NamedTuple):
    """Position, energy and taken items of each lane."""

    cell: Tensor  # [L] int64
    energy: Tensor  # [L] int64 steps left
    taken: Tensor  # [L, C] bool cells whose goal or energy was taken


@dataclass(frozen=True, kw_only=True)
class KrazyWorld(TaskFamily):
    """A board of tiles; tile colours and action directions differ from task to task.

    Every action costs one unit of energy and moves one cell, unless the border blocks it. The tile
    arrived at has an effect:

    - goal: reward 1, once per episode;
    - energy: gives `replenish` units, once per episode;
    - death: terminates the episode;
    - ice: the move continues in its direction until it leaves the ice or reaches the border, at no
      further cost;
    - transporter: moves the agent to the other transporter;
    - normal: no effect.

    The episode terminates when no energy is left, and at the latest after `energy` plus
    `replenish` per energy tile steps. Energy is not observed. Every episode of a trial starts in
    the same cell with the complete board. An episode is a success when all goals are taken.

    A task is a row of integers: the tile of each cell, the start, a permutation of the colours and
    a permutation of the directions (720 x 24 of them). Both splits use the same distribution of
    boards, which is so large that tasks practically never repeat.

    Source: Stadie et al. 2018 (E-MAML, E-RL^2), arXiv:1803.01118, with the parameters of its
    released code. Differences from that code:

    - any cell may hold a tile or be the start; there, never the last row and column;
    - the start is drawn first, is a normal cell, and goals lie more than `min_goal_distance` steps
      from it; there, the distance is to the start of the previous board, with x and y swapped;
    - a move over ice costs one unit in total, as in its manual; there, one unit per cell;
    - a move against the border has no effect; there, it triggers a transporter stood on;
    - one-hot observations show colours; there, only images have colours, and one-hot observations
      show the tile itself. Tiles that its boards never hold (holes, doors, keys) are left out, and
      the agent's colour never changes.

    The local view contains the same as its local observation, the eight cells around the agent and
    the position, but not padded to a board of zeros. As there, the tile stood on is hidden.
    """

    size: int = 10
    """cells in each row and column"""
    goals: int = 3
    """goals on a board"""
    min_goal_distance: int = 2
    """goals are more than this many steps from the start"""
    death_share: float = 0.1
    """fraction of cells that are death tiles"""
    ice_share: float = 0.05
    """fraction of cells that are ice"""
    energy_share: float = 0.05
    """fraction of cells that are energy tiles"""
    transporters: int = 1
    """pairs of transporters: 0 or 1"""
    energy: int = 11
    """units of energy at the start of an episode"""
    replenish: int = 8
    """units of energy that an energy tile gives"""
    vary_colours: bool = True
    """whether tile colours vary between tasks"""
    vary_dynamics: bool = True
    """whether action directions vary between tasks"""
    view: View = "local"
    """observation: the eight cells around the agent and its position (local), or the whole board"""

    defines_success: ClassVar[bool] = True
    can_render: ClassVar[bool] = True
    # The board is observed; the meaning of colours and actions is not.
    task_is_observable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("goals", "energy"):
            require_positive(name, getattr(self, name))
        for name in ("death_share", "ice_share", "energy_share"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        for name in ("min_goal_distance", "replenish"):
            require_between(name, getattr(self, name), 0, float("inf"))
        require_between("transporters", self.transporters, 0, 1)
        require_between("size", self.size, 2, float("inf"))
        tiles = sum(self._counts.values())
        near = 2 * self.min_goal_distance * (self.min_goal_distance + 1) + 1  # start included
        if tiles + near > self.size**2:
            raise ConfigError(
                f"size={self.size} gives {self.size**2} cells; they must hold {tiles} tiles that "
                f"are not normal, the start and up to {near - 1} cells around it that are too near "
                "for a goal. Use a larger board or fewer tiles."
            )

    @property
    def _counts(self) -> Mapping[int, int]:
        """Number of tiles of each kind except normal."""
        cells = self.size**2
        return {
            DEATH: int(cells * self.death_share),
            ENERGY: int(cells * self.energy_share),
            ICE: int(cells * self.ice_share),
            TRANSPORTER: 2 * self.transporters,
            GOAL: self.goals,
        }

    @property
    def observation_space(self) -> spaces.Box:
        """The observation of the view, flattened."""
        local = len(krazy_rules.NEIGHBOURS) * len(TILES) + 2
        whole = self.size**2 * (len(TILES) + 1)
        return spaces.Box(0.0, 1.0, (local if self.view == "local" else whole,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """Four actions, whose directions differ from task to task."""
        return spaces.Discrete(len(DIRECTIONS))

    @property
    def task_space(self) -> spaces.Box:
        """Tiles, start, colours, directions."""
        cells = self.size**2
        highest = [len(TILES) - 1] * cells + [cells - 1]
        highest += [len(TILES) - 1] * len(TILES) + [len(DIRECTIONS) - 1] * len(DIRECTIONS)
        high = np.array(highest)
        return spaces.Box(np.zeros_like(high), high, dtype=np.int64)

    @property
    def episode_steps(self) -> int:
        """The number of steps that all energy on the board lasts."""
        return self.energy + self.replenish * self._counts[ENERGY]

    @property
    def trial_episodes(self) -> int:
        """Three: two to explore, one to exploit."""
        return 3

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Tasks [N, C + 11]."""
        board, start = krazy_rules.sample_boards(
            num_tasks, self.size, self._counts, self.min_goal_distance, generator
        )
        colour = krazy_rules.sample_orders(num_tasks, len(TILES), generator, vary=self.vary_colours)
        direction = krazy_rules.sample_orders(
            num_tasks, len(DIRECTIONS), generator, vary=self.vary_dynamics
        )
        return torch.cat((board, start.unsqueeze(1), colour, direction), 1)

    def reset(self, task: Tensor, noise: LaneNoise) -> KrazyState:
        """At the start, with the initial energy and no items taken."""
        board, start, _, _ = krazy_rules.unpack_task(task)
        return KrazyState(
            start.clone(), torch.full_like(start, self.energy), torch.zeros_like(board).bool()
        )

    def observe(self, task: Tensor, state: KrazyState) -> Tensor:
        """The observation of the view, [L, D]."""
        board, _, colour, _ = krazy_rules.unpack_task(task)
        colours = colour.gather(1, board.masked_fill(state.taken, NORMAL))
        if self.view == "local":
            return krazy_rules.local_observation(colours, state.cell, self.size)
        return krazy_rules.board_observation(colours, state.cell)

    def step(
        self, task: Tensor, state: KrazyState, action: Tensor, noise: LaneNoise
    ) -> tuple[KrazyState, Tensor, Tensor]:
        """Moves the agent and applies the effect of the tile."""
        board, _, _, direction = krazy_rules.unpack_task(task)
        towards = krazy_rules.tile_at(direction, action)
        cell = krazy_rules.arrive(board, state.cell, towards, self.size)
        tile = krazy_rules.tile_at(board, cell).masked_fill(cell == state.cell, NORMAL)
        was_taken = krazy_rules.tile_at(state.taken, cell)
        found, refilled = (tile == GOAL) & ~was_taken, (tile == ENERGY) & ~was_taken
        energy = state.energy - 1 + self.replenish * refilled.long()
        now_taken = was_taken | found | refilled
        taken = state.taken.scatter(1, cell.unsqueeze(1), now_taken.unsqueeze(1))
        terminated = (tile == DEATH) | (energy < 1)
        return KrazyState(cell, energy, taken), found.float(), terminated

    def success(self, task: Tensor, state: KrazyState) -> Tensor:
        """Whether all goals are taken, [L]."""
        board = krazy_rules.unpack_task(task).board
        return ~((board == GOAL) & ~state.taken).any(1)

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The current board and the path of this episode; the observed cells of the local view."""
        board, _, colour, direction = krazy_rules.unpack_task(task)
        state: KrazyState = history[-1].state
        left = board.masked_fill(state.taken, NORMAL)[0]
        image = drawing.draw_board(
            left.numpy(),
            self.size,
            [int(frame.state.cell) for frame in latest_episode(history)],
            local_view=self.view == "local",
        )
        found = int(((board == GOAL) & state.taken).sum())
        caption = f"energy {int(state.energy)}, goals {found} of {int((board == GOAL).sum())}"
        if left[state.cell] == DEATH:
            caption += ", dead"
        legend = drawing.draw_krazy_legend(colour[0].tolist(), direction[0].tolist())
        return stacked(captioned(image, caption), legend)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, and an oracle where it can be computed."""
        return krazy_oracle.references(
            self.size, self.energy, self.replenish, items=self.goals + self._counts[ENERGY]
        )
