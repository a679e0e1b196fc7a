"""Layout shared by the renderings of several families: captions, stacking, episode progress."""

from collections.abc import Sequence

import numpy as np

from metarl.envs.drawing.canvas import INK, QUIET, SIZE, Canvas, Colour, RGBImage
from metarl.tasks.family import RenderFrame

LINE_HEIGHT = 26
"""height of a caption line, in pixels"""
FONT_SIZE = 14
"""font size of a caption line; smaller where the line is long"""
LINE_CAPACITY = 54
"""characters of that font size that fit into a line"""

PALE_GOAL, PALE_BLUE, PALE_AMBER = "#FBE3D3", "#DCEAF4", "#FBEBC8"
"""tints of VERMILION, BLUE and AMBER, for backgrounds"""


def latest_episode(history: Sequence[RenderFrame]) -> Sequence[RenderFrame]:
    """The frames since the latest episode start; all frames if that start is not kept."""
    for index in reversed(range(len(history))):
        if history[index].action is None:
            return history[index:]
    return history


def captioned(image: RGBImage, *lines: str) -> RGBImage:
    """An image with lines of text below, the first in black, further ones in grey."""
    strips = [_line(text, QUIET if number else INK) for number, text in enumerate(lines)]
    return stacked(image, *strips)


def stacked(*images: RGBImage) -> RGBImage:
    """Images one below the other, narrower ones centred."""
    width = max(image.shape[1] for image in images)
    padded = []
    for image in images:
        left = (width - image.shape[1]) // 2
        sides = (0, 0), (left, width - image.shape[1] - left), (0, 0)
        padded.append(np.pad(image, sides, constant_values=255))
    return np.concatenate(padded)


def progress(episode: Sequence[RenderFrame], steps: int) -> str:
    """The current step of an episode of `steps` steps, and the latest reward."""
    last = episode[-1]
    reward = (
        "" if last.action is None else f", reward {f'{last.reward:+.3g}' if last.reward else 0}"
    )
    return f"step {steps_so_far(episode)} of {steps}{reward}"


def steps_so_far(episode: Sequence[RenderFrame], each: int = 1) -> str:
    """Number of rounds of `each` steps begun; a question mark if the episode start is not kept."""
    return "?" if episode[0].action is not None else str((len(episode) - 2 + each) // each)


def _line(text: str, colour: Colour) -> RGBImage:
    canvas = Canvas((0, 0), (SIZE, LINE_HEIGHT))
    size = FONT_SIZE * min(1.0, LINE_CAPACITY / max(1, len(text)))
    canvas.text((SIZE / 2, LINE_HEIGHT / 2), text, colour, size)
    return canvas.image()
