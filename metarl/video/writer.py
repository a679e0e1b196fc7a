"""Pictures and what is to be written above them go in, an animated GIF or an MP4 comes out.

Axes: a picture is [H, W, 3] uint8.
"""

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

from metarl.errors import ConfigError, RunFolderError
from metarl.results.files import written_whole

Picture: TypeAlias = NDArray[np.uint8]

HOLD = 1.5
"""seconds that the last picture stays"""
ENDINGS = (".gif", ".mp4")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is written above a picture."""

    subject: str  # such as "MAML, test task 0, after 2 adaptation steps"
    episode: int  # from 1 on
    episodes: int  # that will be lived
    step: int  # of the episode; 0 where it opens
    episode_return: float
    total_return: float  # of all episodes so far

    @property
    def lines(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Two lines, each with its left and right end."""
        where = f"episode {self.episode} of {self.episodes}"
        return (
            (f"{where}, step {self.step}", f"return {_number(self.episode_return)}"),
            (
                self.subject,
                f"all episodes {_number(self.total_return)}" if self.episodes > 1 else "",
            ),
        )


class Film:
    """Pictures in their order, each with its caption above; packed, because there may be many."""

    def __init__(self, size: int, tick: Callable[[], None] = lambda: None) -> None:
        """Makes pictures `size` pixels long, and calls `tick` whenever one is taken or read."""
        self._size, self._tick = size, tick
        self._reel: list[tuple[tuple[int, ...], bytes]] = []

    def __len__(self) -> int:
        return len(self._reel)

    def __iter__(self) -> Iterator[Picture]:
        for shape, packed in self._reel:
            self._tick()
            yield np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)

    def add(self, picture: Picture, caption: Caption) -> None:
        """Another picture, [H, W, 3]."""
        whole = _with_caption(_resized(picture, self._size), caption)
        self._reel.append((whole.shape, zlib.compress(whole.tobytes(), 1)))
        self._tick()


def write_film(film: Film, path: Path, fps: float) -> None:
    """Writes a film, whole or not at all; the last picture stays a little.

    Raises:
        RunFolderError: it cannot be written there.
    """
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as draft:
            write(film, draft, fps)
    except OSError as error:
        raise RunFolderError(
            f"The film cannot be written to {path}: {error.strerror or error}. Choose another "
            "place with `out`."
        ) from error


def _write_gif(film: Film, path: Path, fps: float) -> None:
    durations = [round(1000 / fps)] * len(film)
    durations[-1] += round(1000 * HOLD)
    pictures = map(_few_colours, film)
    next(pictures).save(
        path, save_all=True, append_images=pictures, duration=durations, loop=0, optimize=False
    )


def _few_colours(picture: Picture) -> Image.Image:
    """With a palette of its own, and no dots where colours are mixed: pictures are drawn."""
    image = Image.fromarray(picture)
    return image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _write_mp4(film: Film, path: Path, fps: float) -> None:
    imageio: Any = import_module("imageio")  # optional, and typed otherwise than it is
    last = list(itertools.islice(film, len(film) - 1, None)) * round(HOLD * fps)
    with imageio.get_writer(path, fps=fps, macro_block_size=2, quality=8) as writer:
        for picture in itertools.chain(film, last):
            writer.append_data(picture)


def require_ending(path: Path) -> None:
    """Raises `ConfigError` unless the ending is one that can be written here."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(
            f"{path} is no film: its ending must be {' or '.join(ENDINGS)}, which says how it is "
            "written."
        )
    if ending == ".mp4" and not (find_spec("imageio") and find_spec("imageio_ffmpeg")):
        raise ConfigError(
            f"{path} is an MP4, and what writes these is not installed: pip install "
            "'metarl-suite[video]'. A GIF needs nothing more."
        )


def _number(value: float) -> str:
    """Decimals only where there are any, and no more of them than one can read in passing."""
    if not math.isfinite(value) or value == int(value):
        return f"{value:.0f}"
    return f"{value:.{2 if abs(value) < 100 else 1}f}"


def _resized(picture: Picture, size: int) -> Picture:
    """Its longer side `size` pixels."""
    height, width = picture.shape[:2]
    if max(height, width) == size:
        return picture
    scale = size / max(height, width)
    sides = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(picture).resize(sides, Image.Resampling.LANCZOS))


def _with_caption(picture: Picture, caption: Caption) -> Picture:
    """The picture under a strip of text, [H + strip, W, 3]; both sides even, as MP4 wants them."""
    height, width = picture.shape[:2]
    letters = max(8, round(width / 27))
    pad, line = letters // 2, round(1.4 * letters)
    strip = 2 * pad + 2 * line
    page = Image.new("RGB", (width + width % 2, strip + height + (strip + height) % 2), "#FFFFFF")
    page.paste(Image.fromarray(picture), (0, strip))
    draw = ImageDraw.Draw(page)
    looks = ((_font(letters), "#000000"), (_font(max(7, round(0.8 * letters))), "#595959"))
    for number, ((left, right), (font, colour)) in enumerate(
        zip(caption.lines, looks, strict=True)
    ):
        y = pad + line * number + line // 2
        draw.text((width - pad, y), right, colour, font, "rm")
        room = width - 3 * pad - font.getlength(right)
        draw.text((pad, y), _cut(left, font, room), colour, font, "lm")
    draw.line([(0, strip - 1), (width, strip - 1)], "#B8B8B8")
    return np.array(page)


def _cut(text: str, font: Any, room: float) -> str:
    """As much of a text as there is room for."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}...") > room:
        text = text[:-1]
    return f"{text}..."


@lru_cache
def _font(size: int) -> Any:
    """The font of the figures: it knows every sign that a label may have."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
