"""Videos with captions, written as animated GIF or MP4.

Axes: a frame is [H, W, 3] uint8.
"""

import errno
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from metarl.errors import ConfigError, MissingPackageError
from metarl.results.files import atomic_write, make_parent

Frame: TypeAlias = NDArray[np.uint8]

HOLD = 1.5
"""seconds for which the last frame is shown"""
ENDINGS = (".gif", ".mp4")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """The text above a frame."""

    subject: str  # such as "MAML, test task 0, after 2 adaptation steps"
    episode: int  # from 1 on
    episodes: int  # in total
    step: int  # of the episode; 0 at its initial observation
    episode_return: float
    total_return: float  # of all episodes so far

    @property
    def lines(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Two lines of text, each with its left-aligned and right-aligned part."""
        where = f"episode {self.episode} of {self.episodes}"
        return (
            (f"{where}, step {self.step}", f"return {_number(self.episode_return)}"),
            (
                self.subject,
                f"all episodes {_number(self.total_return)}" if self.episodes > 1 else "",
            ),
        )


class Video:
    """Frames with captions, in order; stored compressed to save memory."""

    def __init__(self, size: int, tick: Callable[[], None] = lambda: None) -> None:
        """Creates an empty video.

        Args:
            size: pixels of the longer side of a frame without its caption.
            tick: called whenever a frame is added or read.
        """
        self._size, self._tick = size, tick
        self._frames: list[tuple[tuple[int, ...], bytes]] = []

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[Frame]:
        for shape, packed in self._frames:
            self._tick()
            yield np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)

    def add(self, frame: Frame, caption: Caption) -> None:
        """Appends a frame [H, W, 3], resized and with its caption."""
        captioned = _with_caption(_resized(frame, self._size), caption)
        self._frames.append((captioned.shape, zlib.compress(captioned.tobytes(), 1)))
        self._tick()


def write_video(video: Video, path: Path, fps: float) -> None:
    """Writes a video atomically; its last frame is shown for `HOLD` more seconds.

    Raises:
        RunFolderError: the file cannot be written.
    """
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    make_parent(path)
    with atomic_write(path) as draft:
        write(video, draft, fps)


def _write_gif(video: Video, path: Path, fps: float) -> None:
    durations = [round(1000 / fps)] * len(video)
    durations[-1] += round(1000 * HOLD)
    images = map(_quantised, video)
    next(images).save(
        path, save_all=True, append_images=images, duration=durations, loop=0, optimize=False
    )


def _quantised(frame: Frame) -> Image.Image:
    """The frame with its own palette; no dithering, because renderings have flat colours."""
    image = Image.fromarray(frame)
    return image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _write_mp4(video: Video, path: Path, fps: float) -> None:
    imageio: Any = import_module("imageio")  # optional dependency, with incomplete type hints
    last = list(itertools.islice(video, len(video) - 1, None)) * round(HOLD * fps)
    with imageio.get_writer(path, fps=fps, macro_block_size=2, quality=8) as writer:
        for frame in itertools.chain(video, last):
            writer.append_data(frame)
    _require_whole(path, len(video) + len(last))


def _require_whole(path: Path, frames: int) -> None:
    """Raises `OSError` unless an MP4 has all frames: its writer does not say where it failed."""
    ffmpeg: Any = import_module("imageio_ffmpeg")
    try:
        written, _ = ffmpeg.count_frames_and_secs(str(path))
    except (RuntimeError, OSError):
        written = 0
    if written < frames:
        raise OSError(errno.ENOSPC, f"only {written} of {frames} frames reached the file")


def require_ending(path: Path) -> None:
    """Raises `ConfigError` unless a video of this ending can be written."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(
            f"{path} is not a video: its ending must be {' or '.join(ENDINGS)}, which selects the "
            "format."
        )
    if ending == ".mp4" and not (find_spec("imageio") and find_spec("imageio_ffmpeg")):
        raise MissingPackageError(
            f"{path} is an MP4, and the packages that write it are not installed: pip install "
            "'metarl-suite[video]'. A GIF needs no further packages."
        )


def _number(value: float) -> str:
    """No decimals for whole numbers, else one or two."""
    if not math.isfinite(value) or value == int(value):
        return f"{value:.0f}"
    return f"{value:.{2 if abs(value) < 100 else 1}f}"


def _resized(frame: Frame, size: int) -> Frame:
    """The frame scaled so that its longer side has `size` pixels."""
    height, width = frame.shape[:2]
    if max(height, width) == size:
        return frame
    scale = size / max(height, width)
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(frame).resize(sides, Image.Resampling.LANCZOS))


def _with_caption(frame: Frame, caption: Caption) -> Frame:
    """The frame below a strip of text, [H + strip, W, 3]; both sides even, as MP4 requires."""
    height, width = frame.shape[:2]
    text_size = max(8, round(width / 27))
    pad, line = text_size // 2, round(1.4 * text_size)
    strip = 2 * pad + 2 * line
    page = Image.new("RGB", (width + width % 2, strip + height + (strip + height) % 2), "#FFFFFF")
    page.paste(Image.fromarray(frame), (0, strip))
    draw = ImageDraw.Draw(page)
    styles = ((_font(text_size), "#000000"), (_font(max(7, round(0.8 * text_size))), "#595959"))
    for number, ((left, right), (font, colour)) in enumerate(
        zip(caption.lines, styles, strict=True)
    ):
        y = pad + line * number + line // 2
        draw.text((width - pad, y), right, colour, font, "rm")
        room = width - 3 * pad - font.getlength(right)
        draw.text((pad, y), _shortened(left, font, room), colour, font, "lm")
    draw.line([(0, strip - 1), (width, strip - 1)], "#B8B8B8")
    return np.array(page)


def _shortened(text: str, font: Any, room: float) -> str:
    """The text, cut to `room` pixels."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}...") > room:
        text = text[:-1]
    return f"{text}..."


@lru_cache
def _font(size: int) -> Any:
    """The font of the figures: it has the characters of all labels, such as superscripts."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
