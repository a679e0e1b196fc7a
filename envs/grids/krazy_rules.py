"""The rules of Krazy World: sampling of boards, moves, and observations.

Axes: `L` lanes, `N` tasks, `C` cells of a board; cell x * size + y lies at (x, y). `[...]` means
any leading axes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

TILES = ("normal", "goal", "transporter", "death", "ice", "energy")
NORMAL, GOAL, TRANSPORTER, DEATH, ICE, ENERGY = range(len(TILES))
DIRECTIONS = ("right", "left", "up", "down")
RIGHT, LEFT, UP, DOWN = range(len(DIRECTIONS))
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""offsets of the cells around the agent, in the order of the observation"""


class KrazyTask(NamedTuple):
    """The fields of a task."""

    board: Tensor  # [L, C] the tile of each cell
    start: Tensor  # [L] the start cell of an episode
    colour: Tensor  # [L, 6] the colour of each tile
    direction: Tensor  # [L, 4] the direction of each action


def unpack_task(task: Tensor) -> KrazyTask:
    """Splits tasks [L, C + 11] into their fields."""
    colours = task.shape[1] - len(TILES) - len(DIRECTIONS)
    directions = colours + len(TILES)
    return KrazyTask(
        board=task[:, : colours - 1],
        start=task[:, colours - 1],
        colour=task[:, colours:directions],
        direction=task[:, directions:],
    )


def sample_boards(
    num_tasks: int,
    size: int,
    counts: Mapping[int, int],
    min_goal_distance: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Boards [N, C] and starts [N]; `counts` gives the tiles of each kind, the rest are normal.

    The start and all tiles except goals are placed uniformly at random. Goals are then placed on
    free cells that are more than `min_goal_distance` steps from the start.
    """
    device, cells = generator.device, size * size
    noise = torch.rand(num_tasks, cells, generator=generator, device=device)
    order = noise.argsort(1, descending=True)
    placed = [NORMAL]  # the start
    for tile, count in counts.items():
        placed += [tile] * (count if tile != GOAL else 0)
    placed += [NORMAL] * (cells - len(placed))
    tiles = torch.tensor(placed, device=device).expand_as(order)
    board = torch.empty_like(order).scatter(1, order, tiles)
    start = order[:, 0]
    x, y = _coordinates(torch.arange(cells, device=device), size)
    start_x, start_y = _coordinates(start.unsqueeze(1), size)
    far = (x - start_x).abs() + (y - start_y).abs() > min_goal_distance
    free = noise.masked_fill(~far | (board != NORMAL), -1.0)
    goals = free.topk(counts[GOAL], dim=1).indices
    return board.scatter(1, goals, GOAL), start


def sample_orders(num_tasks: int, length: int, generator: Generator, *, vary: bool) -> Tensor:
    """Permutations [N, length]: random if `vary`, else the identity."""
    noise = torch.rand(num_tasks, length, generator=generator, device=generator.device)
    return noise.argsort(1) if vary else torch.arange(length, device=noise.device).expand_as(noise)


def arrive(board: Tensor, cell: Tensor, direction: Tensor, size: int) -> Tensor:
    """The cell in which a move ends, [L], after sliding over ice and through a transporter.

    Args:
        board: [L, C] tiles.
        cell: [L] start of the move.
        direction: [L] direction of the move.
        size: cells in a row.

    The border stops a move. A move that does not leave the cell has no effect.
    """
    target = _next(cell, direction, size)
    leaves = target != cell
    for _ in range(size - 2):  # the longest possible slide
        slides = leaves & (tile_at(board, target) == ICE)
        target = torch.where(slides, _next(target, direction, size), target)
    enters = leaves & (tile_at(board, target) == TRANSPORTER)
    return torch.where(enters, _partner(board, target), target)


def tile_at(board: Tensor, cell: Tensor) -> Tensor:
    """The tile in one cell of each board, [L, C] and [L] -> [L]."""
    return board.gather(1, cell.unsqueeze(1)).squeeze(1)


def local_observation(colours: Tensor, cell: Tensor, size: int) -> Tensor:
    """One-hot colours of the eight cells around the agent, and its position: [L, 8 * 6 + 2].

    Cells beyond the border are zeros. The position is (x, y) / (size - 1).

    Args:
        colours: [L, C] the colour of each cell.
        cell: [L] the cell of the agent.
        size: cells in a row.
    """
    x, y = _coordinates(cell, size)
    offset = torch.tensor(NEIGHBOURS, device=cell.device)
    around_x, around_y = x.unsqueeze(1) + offset[:, 0], y.unsqueeze(1) + offset[:, 1]
    inside = (around_x >= 0) & (around_x < size) & (around_y >= 0) & (around_y < size)
    around = around_x.clamp(0, size - 1) * size + around_y.clamp(0, size - 1)
    seen = one_hot(colours.gather(1, around), len(TILES)) * inside.unsqueeze(2)
    position = torch.stack((x, y), 1) / (size - 1)
    return torch.cat((seen.flatten(1).float(), position), 1)


def board_observation(colours: Tensor, cell: Tensor) -> Tensor:
    """One-hot colours of all cells, with a seventh colour for the agent: [L, C * 7]."""
    agent = torch.full_like(cell, len(TILES)).unsqueeze(1)
    shown = colours.scatter(1, cell.unsqueeze(1), agent)
    return one_hot(shown, len(TILES) + 1).flatten(1).float()


def _next(cell: Tensor, direction: Tensor, size: int) -> Tensor:
    """The next cell in a direction, or the same cell at the border, [...]."""
    x, y = _coordinates(cell, size)
    x = x + (direction == RIGHT).long() - (direction == LEFT).long()
    y = y + (direction == UP).long() - (direction == DOWN).long()
    return x.clamp(0, size - 1) * size + y.clamp(0, size - 1)


def _partner(board: Tensor, cell: Tensor) -> Tensor:
    """The next transporter after `cell`, cyclically: with two on a board, the other one; [L]."""
    is_one = board == TRANSPORTER
    after = is_one & (torch.arange(board.shape[1], device=cell.device) > cell.unsqueeze(1))
    # Argmax gives the first transporter after the cell if there is one, else the first of all.
    return torch.where(after.any(1), after.byte().argmax(1), is_one.byte().argmax(1))


def _coordinates(cell: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates x and y of cells [...]."""
    return cell.div(size, rounding_mode="floor"), cell % size
