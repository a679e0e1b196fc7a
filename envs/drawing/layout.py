"""Lives and pictures go in; their latest episode, and pictures with words below, come out.

What the pens of several families share.
"""

from collections.abc import Sequence

import numpy as np

from metarl.envs.drawing.canvas import INK, QUIET, SIZE, Canvas, Colour, Picture
from metarl.tasks.family import RenderFrame

LINE = 26
"""height of a line of words, in pixels"""
LETTERS = 14
"""size of its letters; smaller where the line is long"""
ROOM = 54
"""letters of that size for which a line has room"""

PALE_GOAL, PALE_BLUE, PALE_AMBER = "#FBE3D3", "#DCEAF4", "#FBEBC8"
"""tints of VERMILION, BLUE and AMBER, for what lies in the background"""


def latest_episode(life: Sequence[RenderFrame]) -> Sequence[RenderFrame]:
    """The moments since the latest episode opened; all, if that has been forgotten."""
    for index in reversed(range(len(life))):
        if life[index].action is None:
            return life[index:]
    return life


def captioned(picture: Picture, *lines: str) -> Picture:
    """A picture and words below, the first line in black, further ones in grey."""
    strips = [_line(text, QUIET if number else INK) for number, text in enumerate(lines)]
    return stacked(picture, *strips)


def stacked(*pictures: Picture) -> Picture:
    """Pictures one below the other, narrower ones in the middle."""
    width = max(picture.shape[1] for picture in pictures)
    padded = []
    for picture in pictures:
        left = (width - picture.shape[1]) // 2
        sides = (0, 0), (left, width - picture.shape[1] - left), (0, 0)
        padded.append(np.pad(picture, sides, constant_values=255))
    return np.concatenate(padded)


def progress(episode: Sequence[RenderFrame], steps: int) -> str:
    """How far an episode of so many steps has come, and what it earned just now."""
    last = episode[-1]
    earned = (
        "" if last.action is None else f", reward {f'{last.reward:+.3g}' if last.reward else 0}"
    )
    return f"step {steps_so_far(episode)} of {steps}{earned}"


def steps_so_far(episode: Sequence[RenderFrame], each: int = 1) -> str:
    """How many rounds of `each` steps have begun; a question mark where that has been forgotten."""
    return "?" if episode[0].action is not None else str((len(episode) - 2 + each) // each)


def _line(text: str, colour: Colour) -> Picture:
    canvas = Canvas((0, 0), (SIZE, LINE))
    size = LETTERS * min(1.0, ROOM / max(1, len(text)))
    canvas.text((SIZE / 2, LINE / 2), text, colour, size)
    return canvas.picture()
