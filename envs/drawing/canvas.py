"""What a family wants to be seen goes in, pictures [H, W, 3] uint8 come out.

All are drawn larger and then reduced, which makes edges smooth. Texts are plain ASCII: the font
that comes with Pillow knows little else.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from metarl.errors import ShapeError

Picture: TypeAlias = NDArray[np.uint8]
"""[H, W, 3]"""
Colour: TypeAlias = str
"""such as #0072B2"""
Point: TypeAlias = Sequence[float] | NDArray[Any]
"""x to the right and y upwards"""

BLUE, VERMILION, GREEN, PURPLE, SKY, AMBER = COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
)
"""those of the figures: Okabe and Ito 2008, told apart by the colour-blind too"""
INK, QUIET, PALE, FAINT, PAPER = "#000000", "#595959", "#B8B8B8", "#EBEBEB", "#FFFFFF"
"""greys, from text to background"""

SIZE = 400
"""pixels of the longer side of a picture"""
FINE = 3
"""a picture is drawn so many times larger"""
MOST_LABELS = 15
"""of arms; more would be too small to read"""


class Canvas:
    """A window on the plane, to be drawn on; what is not finite or outside is left out.

    Places and radii are in units of the window, widths of lines and sizes of letters in pixels.
    """

    def __init__(self, low: Point = (0.0, 0.0), high: Point = (1.0, 1.0)) -> None:
        """Shows what lies between the corners `low` and `high`, all to one scale."""
        self.low, self.high = np.array(low, dtype=float), np.array(high, dtype=float)
        extent = self.high - self.low
        self.pixel = float(extent.max()) / SIZE
        """side of a pixel in units of the window"""
        width, height = (max(1, round(side / self.pixel)) * FINE for side in extent)
        self._image = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def box(
        self,
        low: Point,
        high: Point,
        fill: Colour | None = None,
        edge: Colour | None = None,
        width: float = 1.0,
    ) -> None:
        """A rectangle between two corners; the edge is inside."""
        (left, bottom), (right, top) = self._at(low), self._at(high)
        corners = np.array([min(left, right), min(bottom, top), max(left, right), max(bottom, top)])
        if np.isfinite(corners).all():
            # Pillow's lower right corner belongs to the rectangle.
            corners[2:] = np.maximum(corners[:2], corners[2:] - 1)
            self._draw.rectangle(corners.tolist(), fill, edge, _fine(width) if edge else 0)

    def disc(
        self,
        centre: Point,
        radius: float,
        fill: Colour | None = None,
        edge: Colour | None = None,
        width: float = 1.0,
    ) -> None:
        """A circle; the edge is inside."""
        x, y = self._at(centre)
        if np.isfinite([x, y]).all():
            r = radius / self.pixel * FINE
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill, edge, _fine(width))

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        corners = [self._at(point) for point in points]
        if np.isfinite(corners).all():
            self._draw.polygon(corners, fill)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """A way through some points."""
        places = [self._at(point) for point in points]
        places = [place for place in places if np.isfinite(place).all()]
        if len(places) > 1:
            self._draw.line(places, colour, _fine(width), joint="curve")

    def text(
        self, at: Point, text: str, colour: Colour = INK, size: float = 12.0, anchor: str = "mm"
    ) -> None:
        """A line of letters; `anchor` is Pillow's, such as `lm`: left and in the middle."""
        x, y = self._at(at)
        if np.isfinite([x, y]).all():
            self._draw.text((x, y), text, colour, _font(_fine(size)), anchor)

    def picture(self) -> Picture:
        """What was drawn, [H, W, 3]."""
        return np.array(self._image.reduce(FINE))

    def _at(self, point: Point) -> tuple[float, float]:
        """Where a point lies on the image, in its pixels; very far outside is brought nearer."""
        x, y = (float(part) for part in point)
        far = 10 * SIZE * FINE
        scale = FINE / self.pixel
        right, down = (x - self.low[0]) * scale, (self.high[1] - y) * scale
        return float(np.clip(right, -far, far)), float(np.clip(down, -far, far))


def window_around(
    points: ArrayLike, low: Point, high: Point, margin: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of a window from `low` to `high` that is made larger, evenly, where points leave it.

    The shape stays, so that all pictures of a life are of one size.

    Args:
        points: [n, 2]; those that are not finite do not count.
        low: lower left corner of what is seen in any case.
        high: upper right corner.
        margin: how far from the border points shall be.
    """
    given = np.asarray(points, dtype=float).reshape(-1, 2)
    given = given[np.isfinite(given).all(1)]
    lower, upper = np.array(low, dtype=float), np.array(high, dtype=float)
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    farthest = (np.abs(given - middle) + margin).max(0, initial=0.0)
    half = half * max(1.0, float((farthest / half).max()))
    return middle - half, middle + half


class Pull(NamedTuple):
    """What was pulled last, and what it paid."""

    arm: int
    reward: float


def draw_arms(payouts: ArrayLike, pulls: ArrayLike, last: Pull | None = None) -> Picture:
    """Arms of a bandit: above what each pays on average, below how often it has been pulled.

    Args:
        payouts: [arms] expected rewards.
        pulls: [arms] how often each arm has been pulled so far.
        last: the latest pull, which is marked.
    """
    pays, counts = np.asarray(payouts, dtype=float), np.asarray(pulls, dtype=int)
    canvas = Canvas()
    left, step = 0.03, 0.94 / len(pays)
    middle = left + step * (np.arange(len(pays)) + 0.5)
    half = step * (0.36 if len(pays) <= MOST_LABELS else 0.45)
    letters = float(np.clip(0.36 * step * SIZE, 7, 15))
    low, high = min(0.0, float(pays.min())), max(1.0, float(pays.max()))
    floor, top, ground = 0.47, 0.84, 0.33  # of the bars above; of those below
    ys = floor + (top - floor) * (np.append(pays, 0.0) - low) / (high - low)
    zero = float(ys[-1])
    canvas.text((left, 0.97), "mean payout of each arm (not shown to the agent)", QUIET, 12, "lm")
    canvas.text((left, floor - 0.06), "pulls so far", QUIET, 12, "lm")
    most = max(10, int(counts.max()))
    for arm, x in enumerate(middle):
        pulled = last is not None and last.arm == arm
        colour = BLUE if pulled else SKY
        canvas.box((x - half, zero), (x + half, float(ys[arm])), colour)
        depth = 0.25 * counts[arm] / most
        canvas.box((x - half, ground), (x + half, ground - depth), INK if pulled else PALE)
        if len(pays) <= MOST_LABELS and counts[arm]:
            below = (x, ground - depth - 0.035)
            canvas.text(below, str(counts[arm]), INK if pulled else QUIET, letters)
    canvas.line([(left, zero), (1 - left, zero)], QUIET, 1)
    canvas.line([(left, ground), (1 - left, ground)], QUIET, 1)
    if last is not None:
        # Where arms stand close together the coin floats above all, not to hide any.
        height = ys[[last.arm, -1]] if len(pays) <= MOST_LABELS else ys
        x = float(np.clip(middle[last.arm], 0.07, 0.93))
        _draw_coin(canvas, (x, float(height.max()) + 0.055), last.reward)
    return canvas.picture()


def _draw_coin(canvas: Canvas, at: Point, reward: float) -> None:
    """A payout: filled where there is one."""
    amount = f"{reward:+.3g}" if reward else "0"
    fill, letters = (AMBER, INK) if reward > 0 else (PAPER, QUIET)
    if len(amount) <= 2:
        canvas.disc(at, 0.042, fill, letters, 1.5)
    canvas.text(at, amount, letters, 15)


def draw_ways(
    ways: Sequence[Sequence[Point]], goal: Point, radius: float, low: Point, high: Point
) -> Picture:
    """Ways through the plane to a goal: the last one dark, those before pale.

    Args:
        ways: of each episode, its points so far; the last point of the last one is now.
        goal: where to go.
        radius: how near is there.
        low: lower left corner of what is seen in any case.
        high: upper right corner.
    """
    points = [np.asarray(point, dtype=float) for way in ways for point in way]
    margin = max(radius, 0.04 * float(np.subtract(high, low).max()))
    canvas = Canvas(*window_around([*points, np.asarray(goal)], low, high, margin))
    _draw_lattice(canvas)
    canvas.disc(goal, radius, "#FBE3D3", VERMILION, 1)
    _draw_star(canvas, goal, max(0.5 * radius, 9 * canvas.pixel))
    for way in ways[:-1]:
        canvas.line(way, PALE, 2)
    canvas.line(ways[-1], SKY, 3)
    for point in ways[-1]:
        canvas.disc(point, 2.5 * canvas.pixel, BLUE)
    canvas.disc(ways[-1][0], 5 * canvas.pixel, PAPER, INK, 1.5)
    canvas.disc(ways[-1][-1], 7 * canvas.pixel, BLUE, PAPER, 1.5)
    return canvas.picture()


def _draw_lattice(canvas: Canvas) -> None:
    """Lines at multiples of a half, and farther apart where more than 16 would be seen."""
    extent = float((canvas.high - canvas.low).max())
    between = 0.5 * 2.0 ** max(0, int(np.ceil(np.log2(extent / 8))))
    (left, bottom), (right, top) = canvas.low, canvas.high
    for x in between * np.arange(np.ceil(left / between), np.floor(right / between) + 1):
        canvas.line([(x, bottom), (x, top)], FAINT, 1)
    for y in between * np.arange(np.ceil(bottom / between), np.floor(top / between) + 1):
        canvas.line([(left, y), (right, y)], FAINT, 1)


def _draw_star(canvas: Canvas, at: Point, radius: float) -> None:
    turns = np.pi * (0.5 + np.arange(10) / 5)
    reach = radius * np.where(np.arange(10) % 2, 0.42, 1.0)
    corners = np.array(at) + reach[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)
    canvas.polygon(corners.tolist(), VERMILION)


RIGHT, DOWN, LEFT, UP = range(4)
"""headings in a grid, as MiniGrid numbers them"""


def draw_grid(
    cells: ArrayLike,
    colours: Sequence[Colour],
    *,
    agent: tuple[int, int] | None = None,
    heading: int | None = None,
    trail: Sequence[tuple[int, int]] = (),
    marks: Mapping[tuple[int, int], str] | None = None,
) -> Picture:
    """A world of square cells, the first row on top.

    Args:
        cells: [rows, columns] int, the number of each cell's colour.
        colours: what is drawn where `cells` says 0, 1, ...
        agent: row and column of the one who acts.
        heading: which way it looks (0 right, 1 down, 2 left, 3 up); None for a disc.
        trail: the cells of its way, oldest first.
        marks: short texts on cells, by row and column.

    Raises:
        ShapeError: `cells` has not two axes.
    """
    numbers = np.asarray(cells)
    if numbers.ndim != 2:
        raise ShapeError(f"Cells of a grid must be [rows, columns]; got {list(numbers.shape)}.")
    rows, columns = numbers.shape
    canvas = Canvas((0, -rows), (columns, 0))
    for row, column in np.ndindex(rows, columns):
        colour = colours[int(numbers[row, column])]
        canvas.box((column, -row - 1), (column + 1, -row), colour, FAINT, 1)
    letters = 0.4 / canvas.pixel
    for (row, column), text in (marks or {}).items():
        size = min(letters, 1.5 * letters / max(1, len(text)))
        canvas.text((column + 0.5, -row - 0.5), text, INK, size)
    way = [(column + 0.5, -row - 0.5) for row, column in trail]
    canvas.line(way, SKY, 0.12 / canvas.pixel)
    if agent is not None:
        _draw_agent(canvas, np.array([agent[1] + 0.5, -agent[0] - 0.5]), heading)
    return canvas.picture()


def _draw_agent(canvas: Canvas, at: NDArray[np.float64], heading: int | None) -> None:
    if heading is None:
        canvas.disc(at.tolist(), 0.3, BLUE, PAPER, 0.05 / canvas.pixel)
        return
    ahead = np.array([(1, 0), (0, -1), (-1, 0), (0, 1)][heading], dtype=float)
    aside = np.array([-ahead[1], ahead[0]])
    back = at - 0.28 * ahead
    canvas.polygon([at + 0.36 * ahead, back + 0.28 * aside, back - 0.28 * aside], BLUE)


def draw_image(image: ArrayLike, caption: str = "", edge: Colour | None = None) -> Picture:
    """An image that is shown to the agent, enlarged pixel by pixel, with a line of text below.

    Args:
        image: [h, w] grey or [h, w, 3] red, green, blue: uint8, or real numbers from 0 to 1.
        caption: what else there is to know, such as the answer.
        edge: colour of a frame around it, such as GREEN where the last answer was right.

    Raises:
        ShapeError: other axes.
    """
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise ShapeError(
            f"An image must be [height, width] or [height, width, 3]; got {list(pixels.shape)}."
        )
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels.astype(float), 0, 1) * 255).astype(np.uint8)
    below, border = 40, 12
    room = SIZE - below - 2 * border
    scale = room / max(pixels.shape[:2])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    enlarged = Image.fromarray(pixels).convert("RGB").resize((width, height), Image.Resampling.BOX)
    canvas = Canvas((0, 0), (SIZE, SIZE))
    canvas.text((SIZE / 2, below / 2), caption, INK, 16)
    page = Image.fromarray(canvas.picture())
    corner = (SIZE - width) // 2, border + (room - height) // 2
    frame = [corner[0] - 6, corner[1] - 6, corner[0] + width + 5, corner[1] + height + 5]
    ImageDraw.Draw(page).rectangle(frame, outline=edge or FAINT, width=6 if edge else 1)
    page.paste(enlarged, corner)
    return np.array(page)


def _fine(pixels: float) -> int:
    return max(1, round(pixels * FINE))


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
