"""Drawing of classified images, and of predictions along a curve.

Axes: `S` guesses, `P` points of a curve.
"""

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from metarl.envs.drawing.canvas import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    PALE,
    PAPER,
    QUIET,
    SIZE,
    SKY,
    VERMILION,
    Canvas,
    Point,
    RGBImage,
    draw_image,
)
from metarl.envs.drawing.layout import stacked

MAX_THUMBNAILS = 20
"""number of latest guesses that are shown"""
PER_ROW = 10
THUMBNAIL, SLOT_WIDTH, SLOT_HEIGHT = 30, SIZE // PER_ROW, 64
"""pixels of a thumbnail, and of the slot for it and its labels"""


class LabelledGuess(NamedTuple):
    """An image, its guessed label, and its true label."""

    image: NDArray[np.float32]  # [h, w] or [h, w, 3]
    guess: int
    label: int


def as_image(pixels: ArrayLike) -> NDArray[np.float32]:
    """Flat pixels as a square image, grey or RGB, if possible; else as the squarest rectangle."""
    flat = np.asarray(pixels, dtype=np.float32).ravel()
    for channels in ((), (3,)):
        side = isqrt(flat.size // (3 if channels else 1))
        if side * side * (3 if channels else 1) == flat.size:
            return flat.reshape(side, side, *channels)
    height = next(rows for rows in range(isqrt(flat.size), 0, -1) if flat.size % rows == 0)
    return flat.reshape(height, -1)


def draw_guesses(
    image: ArrayLike, caption: str, guesses: Sequence[LabelledGuess], num_guesses: int
) -> RGBImage:
    """The current image, and below it thumbnails of the images guessed before.

    Args:
        image: [h, w] or [h, w, 3] in [0, 1].
        caption: text below the image.
        guesses: guesses of this episode, oldest first. Correct ones have a green frame and their
            label; wrong ones a vermilion frame, their label, and `not` with the guess.
        num_guesses: number of guesses of a whole episode.
    """
    shown = min(num_guesses, MAX_THUMBNAILS)
    rows = -(-shown // PER_ROW)
    canvas = Canvas((0, 0), (SIZE, rows * SLOT_HEIGHT))
    latest = guesses[-shown:]
    for number in range(shown):
        left, top = _slot(number)
        y = rows * SLOT_HEIGHT - top
        corners = (left, y - THUMBNAIL - 6), (left + THUMBNAIL + 6, y)
        if number >= len(latest):
            canvas.box(*corners, None, FAINT, 1)
            continue
        (_, guess, label), middle = latest[number], left + THUMBNAIL / 2 + 3
        correct = guess == label
        canvas.box(*corners, GREEN if correct else VERMILION)
        canvas.text((middle, y - THUMBNAIL - 14), str(label), INK, 13)
        if not correct:
            canvas.text((middle, y - THUMBNAIL - 26), f"not {guess}", INK, 10)
    strip = canvas.image()
    for number, labelled in enumerate(latest):
        left, top = _slot(number)
        rows_of_thumbnail = slice(top + 3, top + 3 + THUMBNAIL)
        strip[rows_of_thumbnail, left + 3 : left + 3 + THUMBNAIL] = _thumbnail(labelled.image)
    return stacked(draw_image(image, caption), strip)


def _slot(number: int) -> tuple[int, int]:
    """Left and top of the frame of a thumbnail."""
    row, column = divmod(number, PER_ROW)
    return column * SLOT_WIDTH + (SLOT_WIDTH - THUMBNAIL - 6) // 2, row * SLOT_HEIGHT


def _thumbnail(image: NDArray[np.float32]) -> RGBImage:
    grey = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    small = (
        Image.fromarray(grey).convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    )
    return np.array(small)


class Prediction(NamedTuple):
    """A point of the curve, and the value predicted there."""

    x: float
    y: float  # the true value
    predicted: float


def draw_curve(
    curve: Sequence[Point],
    predictions: Sequence[Prediction],
    current_x: float | None,
    low: Point,
    high: Point,
) -> RGBImage:
    """A curve and the predictions so far, each with a line to the true value.

    Args:
        curve: [P, 2] points of the curve.
        predictions: oldest first; the last one is marked.
        current_x: the x to predict next, if any.
        low: lower left corner of the window.
        high: its upper right corner.
    """
    canvas = Canvas(low, high)
    canvas.line([(low[0], 0), (high[0], 0)], FAINT, 1)
    canvas.line([(0, low[1]), (0, high[1])], FAINT, 1)
    if current_x is not None:
        canvas.line([(current_x, low[1]), (current_x, high[1])], SKY, 2)
    canvas.line(curve, PALE, 3)
    for number, (x, y, predicted) in enumerate(predictions):
        last = number == len(predictions) - 1
        canvas.line([(x, y), (x, predicted)], VERMILION, 2 if last else 1)
        canvas.disc((x, y), 4 * canvas.pixel, PAPER, QUIET, 1.5)
        canvas.disc((x, predicted), (6 if last else 4) * canvas.pixel, BLUE)
    return canvas.image()
