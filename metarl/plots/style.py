"""What all pictures share: colours, dashes, type and the way a figure becomes a file."""

import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metarl.errors import RunFolderError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""of agents: Okabe and Ito 2008, told apart by the colour-blind too"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""one more than there are colours, so that the two together repeat late"""
DASHES: tuple[Any, ...] = ("-", (0, (7, 1.5)), (0, (7, 1.5, 1.5, 1.5)), (0, (3, 1)))
GREYS: dict[str, tuple[str, tuple[Any, ...]]] = {
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
"""of references: colour and dashes"""
DASHES_SALT = 2767
"""a number under which the built-in references of no family want the same dashes"""
NOTE_LETTERS = 16
"""of a note that fit into an inch"""
QUIET = "0.35"
"""colour of what is not data: titles and notes"""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.titlesize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "metarl",  # equal rows give equal files
}
METADATA: dict[str, dict[str, None]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
"""the formats there are; what would make equal pictures differ is left out"""


def reference_dashes(role: str, names: Sequence[str]) -> list[Any]:
    """Dashes for all references of one role in a picture, none alike while there are enough.

    A reference looks the same in every picture, because its name alone says which dashes it wants.
    Where several want the same, the first of the alphabet gets them, the others what is left.
    """
    _, dashes = GREYS[role]
    wanted = [zlib.crc32(f"{DASHES_SALT}{name}".encode()) % len(dashes) for name in names]
    in_order = sorted(range(len(names)), key=names.__getitem__)
    given: dict[int, int] = {}
    for index in in_order:
        if wanted[index] not in given.values():
            given[index] = wanted[index]
    left = [number for number in range(len(dashes)) if number not in given.values()]
    for index in in_order:
        if index not in given:
            given[index] = left.pop(0) if left else wanted[index]
    return [dashes[given[index]] for index in range(len(names))]


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, that keeps its parts from lying on each other."""
    figure = Figure(figsize=(width, height), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def add_note(figure: Figure, text: str) -> None:
    """What the picture shows, in small type below it."""
    lines = textwrap.fill(text, int(NOTE_LETTERS * figure.get_figwidth()))
    figure.supxlabel(lines, fontsize=8, color=QUIET)


def sources(split: str, count: int) -> str:
    """Such as '1,000 test tasks': unseen in training, if the family has tasks enough."""
    return f"{count:,} {split if split == 'test' else f'{split}ing'} task{'s' * (count != 1)}"


def save(figure: Figure, stem: str, ending: str) -> Path:
    """Writes the figure as `stem.ending`.

    Raises:
        RunFolderError: it cannot be written there.
    """
    path = Path(f"{stem}.{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=METADATA[ending])
    except OSError as error:
        raise RunFolderError(
            f"The picture cannot be written to {path}: {error.strerror}. Choose another place "
            "with `out`."
        ) from error
    return path
