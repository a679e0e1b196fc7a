"""The rules of Krazy World: boards, cells and moves go in, where they end and what is seen, out.

Axes: `L` lanes, `N` tasks, `C` cells of a board; cell x * size + y lies at (x, y). Whatever has
`[...]` takes any leading axes.
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
"""where the cells around a walker lie, in the order in which they are seen"""


class Parts(NamedTuple):
    """What a task is made of."""

    board: Tensor  # [L, C] the tile of each cell
    start: Tensor  # [L] the cell where an episode opens
    colour: Tensor  # [L, 6] what each tile looks like
    direction: Tensor  # [L, 4] where each action leads


def parts_of(task: Tensor) -> Parts:
    """Takes tasks [L, C + 11] apart."""
    colours = task.shape[1] - len(TILES) - len(DIRECTIONS)
    directions = colours + len(TILES)
    return Parts(
        board=task[:, : colours - 1],
        start=task[:, colours - 1],
        colour=task[:, colours:directions],
        direction=task[:, directions:],
    )


def draw_boards(
    num_tasks: int,
    size: int,
    counts: Mapping[int, int],
    min_goal_distance: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Boards [N, C] and starts [N], with so many tiles of each kind, all else normal.

    First the start, then everything but the goals, anywhere; then the goals on what is left, more
    than `min_goal_distance` steps from the start.
    """
    device, cells = generator.device, size * size
    luck = torch.rand(num_tasks, cells, generator=generator, device=device)
    order = luck.argsort(1, descending=True)
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
    free = luck.masked_fill(~far | (board != NORMAL), -1.0)
    goals = free.topk(counts[GOAL], dim=1).indices
    return board.scatter(1, goals, GOAL), start


def draw_orders(num_tasks: int, length: int, generator: Generator, *, vary: bool) -> Tensor:
    """Permutations [N, length]; the identity unless they `vary`."""
    luck = torch.rand(num_tasks, length, generator=generator, device=generator.device)
    return luck.argsort(1) if vary else torch.arange(length, device=luck.device).expand_as(luck)


def arrive(board: Tensor, cell: Tensor, direction: Tensor, size: int) -> Tensor:
    """Where a move ends, [L]: over the ice, and through a transporter.

    Args:
        board: [L, C] tiles.
        cell: [L] where the move begins.
        direction: [L] where it leads.
        size: cells in a row.

    The border stops a move; who does not leave the cell stays as if nothing had been there.
    """
    target = _next(cell, direction, size)
    leaves = target != cell
    for _ in range(size - 2):  # no slide is longer
        slides = leaves & (tile_at(board, target) == ICE)
        target = torch.where(slides, _next(target, direction, size), target)
    enters = leaves & (tile_at(board, target) == TRANSPORTER)
    return torch.where(enters, _partner(board, target), target)


def tile_at(board: Tensor, cell: Tensor) -> Tensor:
    """The tile of one cell of each board, [L, C] and [L] -> [L]."""
    return board.gather(1, cell.unsqueeze(1)).squeeze(1)


def look_around(colours: Tensor, cell: Tensor, size: int) -> Tensor:
    """Colours of the eight cells around, each one-hot, and the position: [L, 8 * 6 + 2].

    Beyond the border there is nothing, zeros. The position is (x, y) / (size - 1).

    Args:
        colours: [L, C] the colour of each cell.
        cell: [L] where the walker is.
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


def look_down(colours: Tensor, cell: Tensor) -> Tensor:
    """Colours of all cells, one-hot, with a seventh for the walker's own: [L, C * 7]."""
    walker = torch.full_like(cell, len(TILES)).unsqueeze(1)
    shown = colours.scatter(1, cell.unsqueeze(1), walker)
    return one_hot(shown, len(TILES) + 1).flatten(1).float()


def _next(cell: Tensor, direction: Tensor, size: int) -> Tensor:
    """The next cell in a direction, or the same at the border, [...]."""
    x, y = _coordinates(cell, size)
    x = x + (direction == RIGHT).long() - (direction == LEFT).long()
    y = y + (direction == UP).long() - (direction == DOWN).long()
    return x.clamp(0, size - 1) * size + y.clamp(0, size - 1)


def _partner(board: Tensor, cell: Tensor) -> Tensor:
    """The next transporter after `cell`, around the end of the board: of two, the other; [L]."""
    is_one = board == TRANSPORTER
    after = is_one & (torch.arange(board.shape[1], device=cell.device) > cell.unsqueeze(1))
    # The first of the largest: of those behind it where there are any, else of all.
    return torch.where(after.any(1), after.byte().argmax(1), is_one.byte().argmax(1))


def _coordinates(cell: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The two coordinates of cells [...]."""
    return cell.div(size, rounding_mode="floor"), cell % size
