"""What is lived on boards, in a corridor or in a table of states goes in, pictures come out.

Axes: `C` cells of a board, `S` states, `A` actions; a cell of a picture is (row, column), the
first row on top.
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
    Picture,
    draw_grid,
)
from metarl.envs.drawing.layout import PALE_BLUE
from metarl.envs.grids.krazy_rules import DEATH, DIRECTIONS, ENERGY, GOAL, ICE, TILES, TRANSPORTER

Place = tuple[int, int]
"""x to the right and y upwards, from 0"""


def draw_search(
    cells: int, goal: Place, way: Sequence[Place], before: Sequence[Place] = ()
) -> Picture:
    """A walker looking for a goal.

    Args:
        cells: cells in each row and column.
        goal: where it is.
        way: of this episode, oldest first; the last place is now.
        before: places that were met in earlier episodes, which are tinted.
    """
    grid = np.zeros((cells, cells), dtype=int)
    for place in before:
        grid[_on_board(place, cells)] = 1
    grid[_on_board(goal, cells)] = 2
    trail = [_on_board(place, cells) for place in way]
    return draw_grid(
        grid,
        (PAPER, PALE_BLUE, VERMILION),
        agent=trail[-1],
        trail=trail,
        marks={_on_board(goal, cells): "goal"},
    )


TILE_COLOURS: tuple[Colour, ...] = (PAPER, VERMILION, AMBER, PURPLE, PALE_BLUE, GREEN)
"""of normal, goal, transporter, death, ice, energy, as `TILES` numbers them"""
TILE_LETTERS = {GOAL: "G", TRANSPORTER: "T", DEATH: "D", ICE: "I", ENERGY: "E"}
LEGEND = 78
"""height of the legend, in pixels"""


def draw_board(
    board: NDArray[np.int64], size: int, way: Sequence[int], *, sees_around: bool
) -> Picture:
    """A walker in Krazy World. Tiles have colours of their own, not those that the agent is shown.

    Args:
        board: [C] the tile of each cell, without what has been taken; cell x * size + y.
        size: cells in each row and column.
        way: cells of this episode, oldest first; the last one is now. Where it leads aslant it
            went through the transporter.
        sees_around: whether the eight cells around are what the agent sees; they are framed.
    """
    tiles = np.asarray(board).reshape(size, size).T[::-1]
    trail = [_on_board((cell // size, cell % size), size) for cell in way]
    marks = {
        (row, column): TILE_LETTERS[int(tiles[row, column])]
        for row, column in np.argwhere(np.isin(tiles, list(TILE_LETTERS))).tolist()
    }
    picture = draw_grid(tiles, TILE_COLOURS, agent=trail[-1], trail=trail, marks=marks)
    return _framed(picture, size, trail[-1], 1) if sees_around else picture


def _framed(picture: Picture, rows: int, cell: tuple[int, int], around: int = 0) -> Picture:
    """With a frame around a cell and those so near to it."""
    pixels = picture.shape[0] / rows
    columns = round(picture.shape[1] / pixels)
    top, left = (max(0, index - around) * pixels for index in cell)
    bottom, right = (
        min(most, index + around + 1) * pixels - 1
        for index, most in zip(cell, (rows, columns), strict=True)
    )
    page = Image.fromarray(picture)
    ImageDraw.Draw(page).rectangle((left, top, right, bottom), outline=INK, width=2)
    return np.array(page)


def draw_krazy_legend(colours: Sequence[int], directions: Sequence[int]) -> Picture:
    """What the tiles are, the number of the colour that the agent sees, and where actions lead.

    Args:
        colours: [6] of each tile.
        directions: [4] of each action.
    """
    canvas = Canvas((0, 0), (SIZE, LEGEND))
    for tile, name in enumerate(TILES):
        left, y = 12 + 130 * (tile % 3), LEGEND - 14 - 22 * (tile // 3)
        canvas.box((left, y - 7), (left + 14, y + 7), TILE_COLOURS[tile], QUIET, 1)
        canvas.text((left + 7, y), TILE_LETTERS.get(tile, ""), INK, 10)
        canvas.text((left + 20, y), f"{name}: colour {colours[tile]}", QUIET, 11, "lm")
    meant = ", ".join(f"{action} {DIRECTIONS[way]}" for action, way in enumerate(directions))
    canvas.text((12, LEGEND - 60), f"actions: {meant}", QUIET, 11, "lm")
    return canvas.picture()


def draw_corridor(
    end: int, arm: int, way: Sequence[Place], cue: str, *, cue_is_shown: bool
) -> Picture:
    """A corridor that ends in a T, of one length in the picture however long it is.

    Args:
        end: the x of the junction; the cue is at 0.
        arm: y of the arm that pays, 1 or -1.
        way: of this episode, oldest first, y being 0 in the corridor; the last place is now.
        cue: what the cue says.
        cue_is_shown: whether the agent sees it at this moment.
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
    said, colour = ("", INK) if cue_is_shown else (" (not in sight)", QUIET)
    canvas.text((40 - half, middle + half + 14), f"cue: {cue}{said}", colour, 14, "lm")
    canvas.line([at(place) for place in way], SKY, 5)
    canvas.disc(at(way[-1]), 13, BLUE, PAPER, 2)
    return canvas.picture()


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
) -> Picture:
    """A table of mean rewards, the higher the darker; states from top to bottom, then actions.

    Args:
        rewards: [S, A] mean rewards.
        tried: [S, A] how often each action was taken in each state.
        state: the one it is in now, marked in the first column.
        last: the latest choice, which is framed.
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
    picture = draw_grid(grid, (*SHADES, PALE_BLUE), agent=(state, 0), marks=marks)
    return _framed(picture, len(means), (last.state, last.action + 1)) if last else picture


def _on_board(place: Place, cells: int) -> tuple[int, int]:
    """Row and column of a place."""
    return cells - 1 - place[1], place[0]
