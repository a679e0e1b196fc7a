"""Style shared by all figures, and saving them to files."""

import io
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from metarl.errors import ConfigError
from metarl.results.files import atomic_write, make_parent

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""of agents: Okabe and Ito 2008, distinguishable by colour-blind readers"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""one more than there are colours, so that combinations of both repeat late"""
DASHES: tuple[Any, ...] = ("-", (0, (7, 1.5)), (0, (7, 1.5, 1.5, 1.5)), (0, (3, 1)))
REFERENCE_STYLES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "ceiling": ("black", ((0, (5, 2)), (0, (5, 2, 1, 2)), (0, (5, 2, 1, 2, 1, 2)))),
    "baseline": (
        "0.35",
        (
            (0, (3, 1.5)),
            (0, (3, 1.5, 1, 1.5)),
            (0, (8, 2)),
            (0, (2, 4)),
            (0, (8, 2, 1, 1.5, 1, 2)),
            (0, (3, 1, 1, 1, 1, 1)),
            (0, (8, 2, 3, 2)),
            (0, (3, 1, 3, 4)),
        ),
    ),
    "floor": ("0.55", ((0, (1, 1.2)), (0, (1, 3)), (0, (1, 1.2, 4, 1.2)))),
}
"""colour and dashes of references, by role"""
DASHES_SALT = 2767
"""hash salt, found by search, with which the built-in references of each family get distinct
dashes"""
LABEL_CHARS = 44
"""of a line in a legend"""
LABEL_HEIGHT, LABEL_GAP = 0.16, 0.035
"""inches of a line in a legend, and between two labels"""
FONT_SIZES = (9, 7)
"""of legends; the smaller one where the other has no room"""
NOTE_CHARS_PER_INCH = 16
LABEL_CHAR_WIDTH, LEGEND_HANDLE_WIDTH = 0.066, 0.7
"""inches of a character and of the line next to it in a legend"""
MAX_LEGEND_SHARE = 0.4
"""of a figure that a legend may take; one too wide for a place next to the axes goes above"""
MAX_LEGEND_HEIGHT = 4.5
"""inches of a legend next to the axes"""
MUTED = "0.35"
"""colour of titles and notes"""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.titlesize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",  # text is stored as text, not as paths
    "text.parse_math": False,  # a label is text, also with a dollar sign
    "text.usetex": False,
    "svg.hashsalt": "metarl",  # equal figures give equal files
}
METADATA: dict[str, dict[str, None]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
"""of the supported formats; without dates, so that equal figures give equal files"""


def reference_dashes(role: str, names: Sequence[str]) -> list[Any]:
    """Dashes for all references of one role in a figure, distinct as far as there are enough.

    The preferred dashes are a hash of the reference's name, so a reference looks the same in all
    figures. Of references with equal hashes, the alphabetically first gets the preferred dashes
    and the others get unused ones.
    """
    _, dashes = REFERENCE_STYLES[role]
    preferred = [zlib.crc32(f"{DASHES_SALT}{name}".encode()) % len(dashes) for name in names]
    alphabetical = sorted(range(len(names)), key=names.__getitem__)
    assigned: dict[int, int] = {}
    for index in alphabetical:
        if preferred[index] not in assigned.values():
            assigned[index] = preferred[index]
    unused = [number for number in range(len(dashes)) if number not in assigned.values()]
    for index in alphabetical:
        if index not in assigned:
            assigned[index] = unused.pop(0) if unused else preferred[index]
    return [dashes[assigned[index]] for index in range(len(names))]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure with constrained layout; width and height in inches."""
    figure = Figure(figsize=(width, height), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_figure(target: Axes | FigureBase | None, size: tuple[float, float]) -> FigureBase:
    """The figure, or subfigure, into which several panels are drawn.

    Args:
        target: what the user gave to draw into; None for a new figure. Axes are replaced by a
            subfigure in their place, so check all else before.
        size: width and height of a new figure, in inches.

    Raises:
        ConfigError: the axes have no place in a grid.
    """
    if target is None:
        return new_figure(*size)
    if not isinstance(target, Axes):
        return target
    place, parent = target.get_subplotspec(), target.get_figure()
    if place is None or parent is None:
        raise ConfigError(
            "The given axes are not part of a grid (or no longer, because another figure of "
            "several panels has taken their place), and this figure has several panels: give axes "
            "of plt.subplots, or a figure or subfigure."
        )
    target.remove()
    return parent.add_subfigure(place)


def wrapped_label(label: str) -> str:
    """The label on several lines if it would leave too little room for the axes."""
    return label if len(label) <= LABEL_CHARS else textwrap.fill(label, LABEL_CHARS)


def agent_dashes(index: int) -> Any:
    """Dashes of the agent with this number; they and its colour differ among the first 24."""
    return DASHES[(index + index // 12) % len(DASHES)]


class LegendLayout(NamedTuple):
    """Where a legend has room, so that the axes keep more than half of the width."""

    columns: int | None  # above the axes; None: right of them
    height: float  # inches
    font_size: float

    @classmethod
    def of(cls, labels: Sequence[str], width: float, height: float | None = None) -> "LegendLayout":
        """The layout for labels in a figure of these inches; None: the height can be chosen."""
        fits = None
        for font_size in FONT_SIZES:
            scale = font_size / FONT_SIZES[0]
            lines = [line for label in labels for line in wrapped_label(label).split("\n")]
            wide = scale * (
                LEGEND_HANDLE_WIDTH + LABEL_CHAR_WIDTH * max(map(len, lines), default=0)
            )
            high = scale * (LABEL_HEIGHT * len(lines) + LABEL_GAP * len(labels))
            room = MAX_LEGEND_HEIGHT if height is None else height - LABEL_HEIGHT
            if wide <= MAX_LEGEND_SHARE * width and high <= room:
                return cls(None, high, font_size)
            columns = max(1, min(len(labels), int(width / wide)))
            above = cls(columns, high / columns + LABEL_HEIGHT, font_size)
            if fits is None or (height is not None and fits.height > MAX_LEGEND_SHARE * height):
                fits = above
        assert fits is not None
        return fits


def add_legend(owner: FigureBase | Axes, handles: Sequence[Any], **style: Any) -> None:
    """Adds a legend to a figure, or within axes, with the labels of the handles.

    Matplotlib leaves out labels that begin with an underscore, so the text is set afterwards.
    """
    legend = owner.legend(handles, ["label"] * len(handles), frameon=False, **style)
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        text.set_text(wrapped_label(handle.get_label()))


def add_note(figure: Figure, text: str) -> None:
    """Adds a note in small type below the figure."""
    lines = textwrap.fill(text, int(NOTE_CHARS_PER_INCH * figure.get_figwidth()))
    figure.supxlabel(lines, fontsize=8, color=MUTED)


def tasks_text(split: str, count: int) -> str:
    """The evaluated tasks, such as '1,000 test tasks'."""
    return f"{count:,} {split if split == 'test' else f'{split}ing'} task{'s' * (count != 1)}"


def save(figure: Figure, stem: str, ending: str) -> Path:
    """Writes the figure as `stem.ending`, atomically; a link of that name is replaced.

    Raises:
        RunFolderError: the file cannot be written.
    """
    path = Path(f"{stem}.{ending}")
    make_parent(path)
    with atomic_write(path) as draft:
        _draw(figure, draft, ending)
    return path


def _draw(figure: Figure, draft: Path, ending: str) -> None:
    picture = io.BytesIO()  # a backend that cannot write a file may raise anything
    try:
        figure.savefig(picture, format=ending, metadata=METADATA[ending])
    except (ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"The rows cannot be drawn ({error}): their numbers are too large or too far apart for "
            "an axis."
        ) from error
    draft.write_bytes(picture.getvalue())
