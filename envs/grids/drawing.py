"""Drawing of grids, boards, corridors and tables of states.

Axes: `C` cells of a board, `S` states, `A` actions; a cell of an image is (row, column), the first
row on top.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from metarl.envs.drawing.canvas import (
    AMBER,
    BLUE,
    FAINT,
    GREEN,
    INK,
    PALE,
    PAPER,
    PURPLE,
    QUIET,
    SIZE,
    SKY,
    VERMILION,
    Canvas,
    Colour,
    RGBImage,
    draw_grid,
)
from metarl.envs.drawing.layout import PALE_BLUE
from metarl.envs.grids.krazy_rules import DEATH, DIRECTIONS, ENERGY, GOAL, ICE, TILES, TRANSPORTER

Place = tuple[int, int]
"""(x, y) from 0, x to the right and y upwards"""


def draw_search(
    cells: int, goal: Place, path: Sequence[Place], before: Sequence[Place] = ()
) -> RGBImage:
    """An agent on a grid with a goal.

    Args:
        cells: cells in each row and column.
        goal: cell of the goal.
        path: cells visited in this episode, oldest first; the last is the current one.
        before: cells visited in earlier episodes, drawn tinted.
    """
    grid = np.zeros((cells, cells), dtype=int)
    for place in before:
        grid[_on_board(place, cells)] = 1
    grid[_on_board(goal, cells)] = 2
    trail = [_on_board(place, cells) for place in path]
    return draw_grid(
        grid,
        (PAPER, PALE_BLUE, VERMILION),
        agent=trail[-1],
        trail=trail,
        marks={_on_board(goal, cells): "goal"},
    )


TILE_COLOURS: tuple[Colour, ...] = (PAPER, VERMILION, AMBER, PURPLE, PALE_BLUE, GREEN)
"""one per tile, in the order of `TILES`"""
TILE_LETTERS = {GOAL: "G", TRANSPORTER: "T", DEATH: "D", ICE: "I", ENERGY: "E"}
LEGEND = 78
"""height of the legend, in pixels"""


def draw_board(
    board: NDArray[np.int64], size: int, path: Sequence[int], *, local_view: bool
) -> RGBImage:
    """An agent in Krazy World. Tiles have fixed colours, unlike the colours that it observes.

    Args:
        board: [C] the tile of each cell, with taken items removed; cell x * size + y.
        size: cells in each row and column.
        path: cells visited in this episode, oldest first; the last is the current one. A diagonal
            line is a move through the transporter.
        local_view: whether the agent observes the eight cells around it only; they are framed.
    """
    tiles = np.asarray(board).reshape(size, size).T[::-1]
    trail = [_on_board((cell // size, cell % size), size) for cell in path]
    marks = {
        (row, column): TILE_LETTERS[int(tiles[row, column])]
        for row, column in np.argwhere(np.isin(tiles, list(TILE_LETTERS))).tolist()
    }
    image = draw_grid(tiles, TILE_COLOURS, agent=trail[-1], trail=trail, marks=marks)
    return _framed(image, size, trail[-1], 1) if local_view else image


def _framed(image: RGBImage, rows: int, cell: tuple[int, int], around: int = 0) -> RGBImage:
    """The image with a frame around a cell and the cells within distance `around`."""
    pixels = image.shape[0] / rows
    columns = round(image.shape[1] / pixels)
    top, left = (max(0, index - around) * pixels for index in cell)
    bottom, right = (
        min(most, index + around + 1) * pixels - 1
        for index, most in zip(cell, (rows, columns), strict=True)
    )
    page = Image.fromarray(image)
    ImageDraw.Draw(page).rectangle((left, top, right, bottom), outline=INK, width=2)
    return np.array(page)


def draw_krazy_legend(colours: Sequence[int], directions: Sequence[int]) -> RGBImage:
    """Legend of tiles, the colour number that the agent observes, and the direction of each action.

    Args:
        colours: [6] colour number of each tile.
        directions: [4] direction of each action.
    """
    canvas = Canvas((0, 0), (SIZE, LEGEND))
    for tile, name in enumerate(TILES):
        left, y = 12 + 130 * (tile % 3), LEGEND - 14 - 22 * (tile // 3)
        canvas.box((left, y - 7), (left + 14, y + 7), TILE_COLOURS[tile], QUIET, 1)
        canvas.text((left + 7, y), TILE_LETTERS.get(tile, ""), INK, 10)
        canvas.text((left + 20, y), f"{name}: colour {colours[tile]}", QUIET, 11, "lm")
    meanings = ", ".join(f"{action} {DIRECTIONS[to]}" for action, to in enumerate(directions))
    canvas.text((12, LEGEND - 60), f"actions: {meanings}", QUIET, 11, "lm")
    return canvas.image()


def draw_corridor(
    end: int, arm: int, path: Sequence[Place], cue: str, *, cue_is_shown: bool
) -> RGBImage:
    """A corridor that ends in a T, drawn with the same length for any number of cells.

    Args:
        end: the x of the junction; the cue is at 0.
        arm: y of the goal arm, 1 or -1.
        path: cells visited in this episode, oldest first; y is 0 in the corridor.
        cue: text of the cue.
        cue_is_shown: whether the agent observes it now.
    """
    height, half, middle = 200, 22, 100
    canvas = Canvas((0, 0), (SIZE, height))

    def at(place: Place) -> tuple[float, float]:
        x, y = place
        return 40 + (SIZE - 80) * x / end, middle + 2 * half * y

    across, _ = at((end, 0))
    canvas.box((40 - half, middle - half), (across + half, middle + half), FAINT)
    for y in (-1, 1):
        low, high = sorted((middle + half * y, middle + 3 * half * y))
        canvas.box((across - half, low), (across + half, high), VERMILION if y == arm else FAINT)
    if end <= SIZE // 10:
        for x in range(end + 1):
            canvas.disc(at((x, 0)), 2, PALE)
    canvas.text(at((end, arm)), "goal", INK, 13)
    suffix, colour = ("", INK) if cue_is_shown else (" (not in sight)", QUIET)
    canvas.text((40 - half, middle + half + 14), f"cue: {cue}{suffix}", colour, 14, "lm")
    canvas.line([at(place) for place in path], SKY, 5)
    canvas.disc(at(path[-1]), 13, BLUE, PAPER, 2)
    return canvas.image()


class Choice(NamedTuple):
    """An action in a state."""

    state: int
    action: int


SHADES: tuple[Colour, ...] = tuple(
    f"#{round(255 - 25 * share):02X}{round(255 - 96 * share):02X}{round(255 - 255 * share):02X}"
    for share in np.linspace(0, 1, 64)
)
"""from PAPER to AMBER"""


def draw_table(
    rewards: ArrayLike, tried: ArrayLike, state: int, last: Choice | None = None
) -> RGBImage:
    """A table of mean rewards, darker where higher: one row per state, one column per action.

    Args:
        rewards: [S, A] mean rewards.
        tried: [S, A] how often each action was taken in each state.
        state: the current state, marked in the first column.
        last: the latest choice, framed.
    """
    means, counts = np.asarray(rewards, dtype=float), np.asarray(tried, dtype=int)
    spread = float(np.ptp(means)) or 1.0
    shade = np.rint((means - means.min()) / spread * (len(SHADES) - 1)).astype(int)
    grid = np.pad(shade, ((0, 0), (1, 0)), constant_values=len(SHADES))
    marks = {
        (row, column + 1): str(counts[row, column])
        for row, column in np.argwhere(counts > 0).tolist()
    }
    marks |= {(row, 0): f"s{row}" for row in range(len(means)) if row != state}
    image = draw_grid(grid, (*SHADES, PALE_BLUE), agent=(state, 0), marks=marks)
    return _framed(image, len(means), (last.state, last.action + 1)) if last else image


def _on_board(place: Place, cells: int) -> tuple[int, int]:
    """Row and column of a cell (x, y)."""
    return cells - 1 - place[1], place[0]
