"""Krazy World: moves on a board of unknown colours go in, what is seen around and goals come out.

Axes: `L` lanes, `N` tasks, `C` cells of a board.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, TypeAlias, get_args

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
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_between, require_positive

View: TypeAlias = Literal["local", "board"]


class KrazyState(NamedTuple):
    """Where a walker is, and what it has left."""

    cell: Tensor  # [L] int64
    energy: Tensor  # [L] int64 steps that it can still take
    taken: Tensor  # [L, C] bool cells whose goal or energy is gone


@dataclass(frozen=True, kw_only=True)
class KrazyWorld(TaskFamily):
    """A board of tiles whose looks, and actions whose meanings, differ from task to task.

    Every action takes one unit of energy and moves one cell, unless the border is in the way. What
    happens on arrival depends on the tile:

    - goal: pays 1, once in an episode;
    - energy: gives `replenish` units, once in an episode;
    - death: ends the episode;
    - ice: the move goes on in its direction until it leaves the ice or meets the border, at no
      further cost;
    - transporter: the walker stands on the other transporter at once;
    - normal: nothing.

    The episode terminates when no energy is left, and at the latest after `energy` plus
    `replenish` for each energy tile steps. Energy is not observed. Each episode of a trial opens
    with the same start and the same, complete board. Success is to have all goals.

    A task is a row of whole numbers: the tile of each cell, the start, the colour of each tile and
    the direction of each action, the last two in any order (24 x 720 of them). Both splits draw
    from the same boards, of which there are so many that none is met twice.

    Source: Stadie et al. 2018 (E-MAML, E-RL^2), arXiv:1803.01118, with the numbers of its released
    code. What differs from that code:

    - any cell may hold a tile or be the start; there the last row and column never do;
    - the start is drawn first, is a normal cell, and goals lie more than `min_goal_distance` steps
      from it; there the distance is taken to the start of the board before, with x and y mixed up;
    - a move over ice costs one unit in all, as its manual says; there it costs one for each cell;
    - a move against the border does nothing to the tile stood on; there a transporter sends back;
    - colours are what one-hot observations show; there only pictures have colours, and one-hot
      observations name the tile. Tiles that its boards never hold (holes, doors, keys) are left
      out, and the walker's own colour never changes.

    The local view holds what its local observation does, the eight cells around and the position,
    without a board of zeros about them; the tile stood on is hidden in both views, as there.
    """

    size: int = 10
    """cells in each row and column"""
    goals: int = 3
    """goals on a board"""
    min_goal_distance: int = 2
    """goals are farther than so many steps from the start"""
    death_share: float = 0.1
    """share of all cells that are deadly"""
    ice_share: float = 0.05
    """share of all cells that are ice"""
    energy_share: float = 0.05
    """share of all cells that give energy"""
    transporters: int = 1
    """pairs of transporters: none or one"""
    energy: int = 11
    """units that an episode opens with"""
    replenish: int = 8
    """units that an energy tile gives"""
    vary_colours: bool = True
    """whether every task has colours of its own"""
    vary_dynamics: bool = True
    """whether every task has an order of its actions of its own"""
    view: View = "local"
    """what is observed: the eight cells around and the position (local), or the whole board"""

    defines_success: ClassVar[bool] = True
    can_render: ClassVar[bool] = True
    # The board is seen; what its colours and the actions mean is not.
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
        if self.view not in get_args(View):
            raise ConfigError(f"view={self.view!r} must be one of {', '.join(get_args(View))}.")
        tiles = sum(self._counts.values())
        near = 2 * self.min_goal_distance * (self.min_goal_distance + 1) + 1  # start included
        if tiles + near > self.size**2:
            raise ConfigError(
                f"size={self.size} gives {self.size**2} cells; they must hold {tiles} tiles that "
                f"are not normal and leave room for the start and, at most, {near - 1} cells "
                "around it that are too near for a goal. Take a larger board, or less on it."
            )

    @property
    def _counts(self) -> Mapping[int, int]:
        """How many tiles there are of each kind that is not normal."""
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
        """What the view shows, flat."""
        local = len(krazy_rules.NEIGHBOURS) * len(TILES) + 2
        whole = self.size**2 * (len(TILES) + 1)
        return spaces.Box(0.0, 1.0, (local if self.view == "local" else whole,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """One of four, whose directions differ from task to task."""
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
        """As long as all the energy there is may last."""
        return self.energy + self.replenish * self._counts[ENERGY]

    @property
    def trial_episodes(self) -> int:
        """Three: two to explore, one to show what was learnt."""
        return 3

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Tasks [N, C + 11]."""
        board, start = krazy_rules.draw_boards(
            num_tasks, self.size, self._counts, self.min_goal_distance, generator
        )
        colour = krazy_rules.draw_orders(num_tasks, len(TILES), generator, vary=self.vary_colours)
        direction = krazy_rules.draw_orders(
            num_tasks, len(DIRECTIONS), generator, vary=self.vary_dynamics
        )
        return torch.cat((board, start.unsqueeze(1), colour, direction), 1)

    def reset(self, task: Tensor, generator: Generator) -> KrazyState:
        """At the start, with the first energy, nothing taken."""
        board, start, _, _ = krazy_rules.parts_of(task)
        return KrazyState(
            start.clone(), torch.full_like(start, self.energy), torch.zeros_like(board).bool()
        )

    def observe(self, task: Tensor, state: KrazyState) -> Tensor:
        """What the view shows, [L, D]."""
        board, _, colour, _ = krazy_rules.parts_of(task)
        colours = colour.gather(1, board.masked_fill(state.taken, NORMAL))
        if self.view == "local":
            return krazy_rules.look_around(colours, state.cell, self.size)
        return krazy_rules.look_down(colours, state.cell)

    def step(
        self, task: Tensor, state: KrazyState, action: Tensor, generator: Generator
    ) -> tuple[KrazyState, Tensor, Tensor]:
        """Moves, and what the tile does."""
        board, _, _, direction = krazy_rules.parts_of(task)
        towards = krazy_rules.tile_at(direction, action)
        cell = krazy_rules.arrive(board, state.cell, towards, self.size)
        tile = krazy_rules.tile_at(board, cell).masked_fill(cell == state.cell, NORMAL)
        gone = krazy_rules.tile_at(state.taken, cell)
        found, refilled = (tile == GOAL) & ~gone, (tile == ENERGY) & ~gone
        energy = state.energy - 1 + self.replenish * refilled.long()
        taken = state.taken.scatter(1, cell.unsqueeze(1), (gone | found | refilled).unsqueeze(1))
        terminated = (tile == DEATH) | (energy < 1)
        return KrazyState(cell, energy, taken), found.float(), terminated

    def success(self, task: Tensor, state: KrazyState) -> Tensor:
        """Whether all goals are taken, [L]."""
        board = krazy_rules.parts_of(task).board
        return ~((board == GOAL) & ~state.taken).any(1)

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The board as it is by now and the way of this episode; in the local view what is seen."""
        board, _, colour, direction = krazy_rules.parts_of(task)
        state: KrazyState = life[-1].state
        left = board.masked_fill(state.taken, NORMAL)[0]
        picture = drawing.draw_board(
            left.numpy(),
            self.size,
            [int(moment.state.cell) for moment in latest_episode(life)],
            sees_around=self.view == "local",
        )
        found = int(((board == GOAL) & state.taken).sum())
        words = f"energy {int(state.energy)}, goals {found} of {int((board == GOAL).sum())}"
        if left[state.cell] == DEATH:
            words += ", dead"
        legend = drawing.draw_krazy_legend(colour[0].tolist(), direction[0].tolist())
        return stacked(captioned(picture, words), legend)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, and an oracle where one can be computed."""
        return krazy_oracle.references(
            self.size, self.energy, self.replenish, items=self.goals + self._counts[ENERGY]
        )
