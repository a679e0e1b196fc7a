"""Guesses and what they were about go in, pictures come out: images named, points of a curve.

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
    Picture,
    Point,
    draw_image,
)
from metarl.envs.drawing.layout import stacked

MOST_SHOWN = 20
"""guesses that are shown in small; of more, the latest"""
IN_A_ROW = 10
THUMB, SLOT, SLOT_HEIGHT = 30, SIZE // IN_A_ROW, 64
"""pixels of a small image, and of the place for it and for what was said"""


class Guess(NamedTuple):
    """An image, what it was called, and what it is."""

    image: NDArray[np.float32]  # [h, w] or [h, w, 3]
    said: int
    label: int


def as_image(pixels: ArrayLike) -> NDArray[np.float32]:
    """Flat pixels as rows: square, of one colour or three, if that can be; else nearly so."""
    flat = np.asarray(pixels, dtype=np.float32).ravel()
    for channels in ((), (3,)):
        side = isqrt(flat.size // (3 if channels else 1))
        if side * side * (3 if channels else 1) == flat.size:
            return flat.reshape(side, side, *channels)
    height = next(rows for rows in range(isqrt(flat.size), 0, -1) if flat.size % rows == 0)
    return flat.reshape(height, -1)


def draw_guesses(image: ArrayLike, caption: str, guesses: Sequence[Guess], places: int) -> Picture:
    """The image shown now, large, and below, small, those guessed before it: frame and words.

    Args:
        image: [h, w] or [h, w, 3] in [0, 1].
        caption: what there is to know about it.
        guesses: of this episode, oldest first. Framed in green and with the label alone: right;
            in vermilion and with `not` what was said: wrong.
        places: guesses of a whole episode.
    """
    shown = min(places, MOST_SHOWN)
    rows = -(-shown // IN_A_ROW)
    canvas = Canvas((0, 0), (SIZE, rows * SLOT_HEIGHT))
    latest = guesses[-shown:]
    for number in range(shown):
        left, top = _slot(number)
        y = rows * SLOT_HEIGHT - top
        corners = (left, y - THUMB - 6), (left + THUMB + 6, y)
        if number >= len(latest):
            canvas.box(*corners, None, FAINT, 1)
            continue
        guess, middle = latest[number], left + THUMB / 2 + 3
        right = guess.said == guess.label
        canvas.box(*corners, GREEN if right else VERMILION)
        canvas.text((middle, y - THUMB - 14), str(guess.label), INK, 13)
        if not right:
            canvas.text((middle, y - THUMB - 26), f"not {guess.said}", INK, 10)
    strip = canvas.picture()
    for number, guess in enumerate(latest):
        left, top = _slot(number)
        strip[top + 3 : top + 3 + THUMB, left + 3 : left + 3 + THUMB] = _thumb(guess.image)
    return stacked(draw_image(image, caption), strip)


def _slot(number: int) -> tuple[int, int]:
    """Left and top of the frame of a small image."""
    row, column = divmod(number, IN_A_ROW)
    return column * SLOT + (SLOT - THUMB - 6) // 2, row * SLOT_HEIGHT


def _thumb(image: NDArray[np.float32]) -> Picture:
    grey = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    small = Image.fromarray(grey).convert("RGB").resize((THUMB, THUMB), Image.Resampling.BOX)
    return np.array(small)


class Answer(NamedTuple):
    """A point that was asked for, and what was said."""

    x: float
    y: float  # the true value
    said: float


def draw_curve(
    curve: Sequence[Point],
    answers: Sequence[Answer],
    asked: float | None,
    low: Point,
    high: Point,
) -> Picture:
    """A curve that is to be found out, and answers so far, each with a line to the truth.

    Args:
        curve: [P, 2] points of it.
        answers: oldest first; the last one is marked.
        asked: the x that is asked for now, if any.
        low: lower left corner of what is seen.
        high: upper right corner.
    """
    canvas = Canvas(low, high)
    canvas.line([(low[0], 0), (high[0], 0)], FAINT, 1)
    canvas.line([(0, low[1]), (0, high[1])], FAINT, 1)
    if asked is not None:
        canvas.line([(asked, low[1]), (asked, high[1])], SKY, 2)
    canvas.line(curve, PALE, 3)
    for number, (x, y, said) in enumerate(answers):
        last = number == len(answers) - 1
        canvas.line([(x, y), (x, said)], VERMILION, 2 if last else 1)
        canvas.disc((x, y), 4 * canvas.pixel, PAPER, QUIET, 1.5)
        canvas.disc((x, said), (6 if last else 4) * canvas.pixel, BLUE)
    return canvas.picture()
