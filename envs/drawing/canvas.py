"""Drawing of planes, bandit arms, grids and images as RGB images [H, W, 3] uint8.

Everything is drawn larger and then reduced, for smooth edges. Texts are plain ASCII: the font that
comes with Pillow has few other glyphs.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from metarl.errors import ShapeError

RGBImage: TypeAlias = NDArray[np.uint8]
"""[H, W, 3]"""
Colour: TypeAlias = str
"""hexadecimal, such as #0072B2"""
Point: TypeAlias = Sequence[float] | NDArray[Any]
"""(x, y), x to the right and y upwards"""

BLUE, VERMILION, GREEN, PURPLE, SKY, AMBER = COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
)
"""the colours of the figures: the colour-blind-safe palette of Okabe and Ito 2008"""
INK, QUIET, PALE, FAINT, PAPER = "#000000", "#595959", "#B8B8B8", "#EBEBEB", "#FFFFFF"
"""greys, from text to background"""

SIZE = 400
"""longer side of an image, in pixels"""
OVERSAMPLING = 3
"""factor by which images are drawn larger before they are reduced"""
MAX_LABELLED_ARMS = 15
"""labels of more arms would be too small to read"""


class Canvas:
    """An image of a window of the plane; shapes outside it or at non-finite points are not drawn.

    Positions and radii are in units of the window, line widths and font sizes in pixels.
    """

    def __init__(self, low: Point = (0.0, 0.0), high: Point = (1.0, 1.0)) -> None:
        """Shows the window between the corners `low` and `high`, with equal scales on both axes."""
        self.low, self.high = np.array(low, dtype=float), np.array(high, dtype=float)
        extent = self.high - self.low
        self.pixel = float(extent.max()) / SIZE
        """side of a pixel, in units of the window"""
        width, height = (max(1, round(side / self.pixel)) * OVERSAMPLING for side in extent)
        self._large_image = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self._large_image)

    def box(
        self,
        low: Point,
        high: Point,
        fill: Colour | None = None,
        edge: Colour | None = None,
        width: float = 1.0,
    ) -> None:
        """Draws a rectangle between two corners; the edge is inside."""
        (left, bottom), (right, top) = self._at(low), self._at(high)
        corners = np.array([min(left, right), min(bottom, top), max(left, right), max(bottom, top)])
        if np.isfinite(corners).all():
            # Pillow includes the lower right corner in the rectangle.
            corners[2:] = np.maximum(corners[:2], corners[2:] - 1)
            self._draw.rectangle(corners.tolist(), fill, edge, _oversampled(width) if edge else 0)

    def disc(
        self,
        centre: Point,
        radius: float,
        fill: Colour | None = None,
        edge: Colour | None = None,
        width: float = 1.0,
    ) -> None:
        """Draws a disc; the edge is inside."""
        x, y = self._at(centre)
        if np.isfinite([x, y]).all():
            r = radius / self.pixel * OVERSAMPLING
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill, edge, _oversampled(width))

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """Draws a filled polygon."""
        corners = [self._at(point) for point in points]
        if np.isfinite(corners).all():
            self._draw.polygon(corners, fill)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draws a polyline; non-finite points are skipped."""
        corners = [self._at(point) for point in points]
        corners = [corner for corner in corners if np.isfinite(corner).all()]
        if len(corners) > 1:
            self._draw.line(corners, colour, _oversampled(width), joint="curve")

    def text(
        self, at: Point, text: str, colour: Colour = INK, size: float = 12.0, anchor: str = "mm"
    ) -> None:
        """Draws a line of text; `anchor` is one of Pillow's, such as `lm`: left, middle."""
        x, y = self._at(at)
        if np.isfinite([x, y]).all():
            self._draw.text((x, y), text, colour, _font(_oversampled(size)), anchor)

    def image(self) -> RGBImage:
        """The image drawn so far, [H, W, 3]."""
        return np.array(self._large_image.reduce(OVERSAMPLING))

    def _at(self, point: Point) -> tuple[float, float]:
        """Pixel coordinates of a point; points far outside are clipped."""
        x, y = (float(part) for part in point)
        far = 10 * SIZE * OVERSAMPLING
        scale = OVERSAMPLING / self.pixel
        right, down = (x - self.low[0]) * scale, (self.high[1] - y) * scale
        return float(np.clip(right, -far, far)), float(np.clip(down, -far, far))


def window_around(
    points: ArrayLike, low: Point, high: Point, margin: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the window from `low` to `high`, enlarged evenly where points lie outside.

    The aspect ratio is kept, so that all frames of a rollout have one size.

    Args:
        points: [n, 2]; non-finite points are ignored.
        low: lower left corner of the smallest window.
        high: its upper right corner.
        margin: smallest distance of points from the border.
    """
    given = np.asarray(points, dtype=float).reshape(-1, 2)
    given = given[np.isfinite(given).all(1)]
    lower, upper = np.array(low, dtype=float), np.array(high, dtype=float)
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    farthest = (np.abs(given - middle) + margin).max(0, initial=0.0)
    half = half * max(1.0, float((farthest / half).max()))
    return middle - half, middle + half


class Pull(NamedTuple):
    """The latest pull of an arm, and its reward."""

    arm: int
    reward: float


def draw_arms(payouts: ArrayLike, pulls: ArrayLike, last: Pull | None = None) -> RGBImage:
    """Arms of a bandit: mean payouts above, numbers of pulls below.

    Args:
        payouts: [arms] expected rewards.
        pulls: [arms] number of pulls of each arm so far.
        last: the latest pull, marked.
    """
    pays, counts = np.asarray(payouts, dtype=float), np.asarray(pulls, dtype=int)
    canvas = Canvas()
    left, step = 0.03, 0.94 / len(pays)
    middle = left + step * (np.arange(len(pays)) + 0.5)
    half = step * (0.36 if len(pays) <= MAX_LABELLED_ARMS else 0.45)
    font_size = float(np.clip(0.36 * step * SIZE, 7, 15))
    low, high = min(0.0, float(pays.min())), max(1.0, float(pays.max()))
    floor, top, ground = 0.47, 0.84, 0.33  # of the upper bars; top of the lower bars
    ys = floor + (top - floor) * (np.append(pays, 0.0) - low) / (high - low)
    zero = float(ys[-1])
    canvas.text((left, 0.97), "mean payout of each arm (not shown to the agent)", QUIET, 12, "lm")
    canvas.text((left, floor - 0.06), "pulls so far", QUIET, 12, "lm")
    most = max(10, int(counts.max()))
    for arm, x in enumerate(middle):
        latest = last is not None and last.arm == arm
        colour = BLUE if latest else SKY
        canvas.box((x - half, zero), (x + half, float(ys[arm])), colour)
        depth = 0.25 * counts[arm] / most
        canvas.box((x - half, ground), (x + half, ground - depth), INK if latest else PALE)
        if len(pays) <= MAX_LABELLED_ARMS and counts[arm]:
            below = (x, ground - depth - 0.035)
            canvas.text(below, str(counts[arm]), INK if latest else QUIET, font_size)
    canvas.line([(left, zero), (1 - left, zero)], QUIET, 1)
    canvas.line([(left, ground), (1 - left, ground)], QUIET, 1)
    if last is not None:
        # With many arms the coin is above all bars, so that it hides none.
        height = ys[[last.arm, -1]] if len(pays) <= MAX_LABELLED_ARMS else ys
        x = float(np.clip(middle[last.arm], 0.07, 0.93))
        _draw_coin(canvas, (x, float(height.max()) + 0.055), last.reward)
    return canvas.image()


def _draw_coin(canvas: Canvas, at: Point, reward: float) -> None:
    """The reward of a pull; filled if positive."""
    amount = f"{reward:+.3g}" if reward else "0"
    fill, colour = (AMBER, INK) if reward > 0 else (PAPER, QUIET)
    if len(amount) <= 2:
        canvas.disc(at, 0.042, fill, colour, 1.5)
    canvas.text(at, amount, colour, 15)


def draw_paths(
    paths: Sequence[Sequence[Point]], goal: Point, radius: float, low: Point, high: Point
) -> RGBImage:
    """Paths through the plane and their goal: the last path dark, earlier ones pale.

    Args:
        paths: points of each episode so far; the last point of the last path is the current one.
        goal: centre of the goal.
        radius: distance within which the goal is reached.
        low: lower left corner of the smallest window.
        high: its upper right corner.
    """
    points = [np.asarray(point, dtype=float) for path in paths for point in path]
    margin = max(radius, 0.04 * float(np.subtract(high, low).max()))
    canvas = Canvas(*window_around([*points, np.asarray(goal)], low, high, margin))
    _draw_lattice(canvas)
    canvas.disc(goal, radius, "#FBE3D3", VERMILION, 1)
    _draw_star(canvas, goal, max(0.5 * radius, 9 * canvas.pixel))
    for path in paths[:-1]:
        canvas.line(path, PALE, 2)
    canvas.line(paths[-1], SKY, 3)
    for point in paths[-1]:
        canvas.disc(point, 2.5 * canvas.pixel, BLUE)
    canvas.disc(paths[-1][0], 5 * canvas.pixel, PAPER, INK, 1.5)
    canvas.disc(paths[-1][-1], 7 * canvas.pixel, BLUE, PAPER, 1.5)
    return canvas.image()


def _draw_lattice(canvas: Canvas) -> None:
    """Grid lines 0.5 apart, or farther where more than 16 would fit."""
    extent = float((canvas.high - canvas.low).max())
    spacing = 0.5 * 2.0 ** max(0, int(np.ceil(np.log2(extent / 8))))
    (left, bottom), (right, top) = canvas.low, canvas.high
    for x in spacing * np.arange(np.ceil(left / spacing), np.floor(right / spacing) + 1):
        canvas.line([(x, bottom), (x, top)], FAINT, 1)
    for y in spacing * np.arange(np.ceil(bottom / spacing), np.floor(top / spacing) + 1):
        canvas.line([(left, y), (right, y)], FAINT, 1)


def _draw_star(canvas: Canvas, at: Point, radius: float) -> None:
    angles = np.pi * (0.5 + np.arange(10) / 5)
    radii = radius * np.where(np.arange(10) % 2, 0.42, 1.0)
    corners = np.array(at) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    canvas.polygon(corners.tolist(), VERMILION)


RIGHT, DOWN, LEFT, UP = range(4)
"""headings in a grid, numbered as in MiniGrid"""


def draw_grid(
    cells: ArrayLike,
    colours: Sequence[Colour],
    *,
    agent: tuple[int, int] | None = None,
    heading: int | None = None,
    trail: Sequence[tuple[int, int]] = (),
    marks: Mapping[tuple[int, int], str] | None = None,
) -> RGBImage:
    """A grid of square cells, the first row on top.

    Args:
        cells: [rows, columns] int, the colour index of each cell.
        colours: colours by index.
        agent: row and column of the agent.
        heading: heading of the agent (0 right, 1 down, 2 left, 3 up); None for a disc.
        trail: cells of the agent's path, oldest first.
        marks: short texts on cells, by row and column.

    Raises:
        ShapeError: `cells` does not have two axes.
    """
    numbers = np.asarray(cells)
    if numbers.ndim != 2:
        raise ShapeError(f"Cells of a grid must be [rows, columns]; got {list(numbers.shape)}.")
    rows, columns = numbers.shape
    canvas = Canvas((0, -rows), (columns, 0))
    for row, column in np.ndindex(rows, columns):
        colour = colours[int(numbers[row, column])]
        canvas.box((column, -row - 1), (column + 1, -row), colour, FAINT, 1)
    font_size = 0.4 / canvas.pixel
    for (row, column), text in (marks or {}).items():
        size = min(font_size, 1.5 * font_size / max(1, len(text)))
        canvas.text((column + 0.5, -row - 0.5), text, INK, size)
    path = [(column + 0.5, -row - 0.5) for row, column in trail]
    canvas.line(path, SKY, 0.12 / canvas.pixel)
    if agent is not None:
        _draw_agent(canvas, np.array([agent[1] + 0.5, -agent[0] - 0.5]), heading)
    return canvas.image()


def _draw_agent(canvas: Canvas, at: NDArray[np.float64], heading: int | None) -> None:
    if heading is None:
        canvas.disc(at.tolist(), 0.3, BLUE, PAPER, 0.05 / canvas.pixel)
        return
    ahead = np.array([(1, 0), (0, -1), (-1, 0), (0, 1)][heading], dtype=float)
    aside = np.array([-ahead[1], ahead[0]])
    back = at - 0.28 * ahead
    canvas.polygon([at + 0.36 * ahead, back + 0.28 * aside, back - 0.28 * aside], BLUE)


def draw_image(image: ArrayLike, caption: str = "", edge: Colour | None = None) -> RGBImage:
    """An image that the agent observes, enlarged without smoothing, with a line of text below.

    Args:
        image: [h, w] grey or [h, w, 3] RGB: uint8, or floats from 0 to 1.
        caption: text below the image, such as its label.
        edge: colour of a frame around it, such as GREEN after a correct answer.

    Raises:
        ShapeError: `image` has other axes.
    """
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise ShapeError(
            f"An image must be [height, width] or [height, width, 3]; got {list(pixels.shape)}."
        )
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels.astype(float), 0, 1) * 255).astype(np.uint8)
    below, border = 40, 12
    space = SIZE - below - 2 * border
    scale = space / max(pixels.shape[:2])
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    enlarged = Image.fromarray(pixels).convert("RGB").resize((width, height), Image.Resampling.BOX)
    canvas = Canvas((0, 0), (SIZE, SIZE))
    canvas.text((SIZE / 2, below / 2), caption, INK, 16)
    page = Image.fromarray(canvas.image())
    corner = (SIZE - width) // 2, border + (space - height) // 2
    frame = [corner[0] - 6, corner[1] - 6, corner[0] + width + 5, corner[1] + height + 5]
    ImageDraw.Draw(page).rectangle(frame, outline=edge or FAINT, width=6 if edge else 1)
    page.paste(enlarged, corner)
    return np.array(page)


def _oversampled(pixels: float) -> int:
    return max(1, round(pixels * OVERSAMPLING))


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
