"""CSV files: rows go in and out, whole or not at all, and what is broken is named."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.errors import RunFolderError
from metarl.results.files import written_whole

WHOLE = frozenset(("task", "copy", "phase", "episode", "step", "iteration"))
"""columns that count or number something"""


class Row(NamedTuple):
    """One row of a file that is being read."""

    line: int  # on which it ends, counted from 1
    cells: list[str]  # in the order of the header


class Kind(NamedTuple):
    """What a file should be, so that errors can say it."""

    content: str  # such as "an adaptation curve"
    columns: Sequence[str]  # what its header must name, in any order, others beside them
    command: str  # of metarl, that writes it into a run folder

    def remedy(self, path: Path) -> str:
        """What the user can do."""
        return f"write it anew with `metarl {self.command} {path.parent}`."


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes one CSV file; numbers come back bit for bit.

    The file appears whole or not at all: an interrupted call leaves the old one as it was.

    Raises:
        RunFolderError: the folder is missing, or cannot be written to.
    """
    try:
        with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
    except OSError as error:
        raise RunFolderError(f"The rows cannot be written to {path}: {error.strerror}.") from error


@contextmanager
def open_table(path: Path, kind: Kind) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """The header of a CSV file and its rows, to be read within the context.

    Raises:
        RunFolderError: the file is missing, cut off, or not such a file; the line is named.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = [name for name in kind.columns if name not in header]
            if missing:
                raise RunFolderError(
                    f"Line 1 of {path} names no column {', '.join(missing)}; the columns of "
                    f"{kind.content} are {', '.join(kind.columns)}."
                )
            yield header, _rows(path, kind, reader, len(header))
        _require_last_newline(path, kind)
    except FileNotFoundError as error:
        raise RunFolderError(
            f"There is no {path}; `metarl {kind.command} {path.parent}` writes it."
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{path} cannot be read: {error}.") from error


def to_numbers(
    path: Path,
    kind: Kind,
    name: str,
    lines: Sequence[int],
    cells: Sequence[str],
    gaps: bool = False,
) -> NDArray[np.float64]:
    """A column of finite numbers, from its cells and the lines where they stand.

    Args:
        path: of the file.
        kind: of the file.
        name: of the column; those in `WHOLE` hold whole numbers only.
        lines: of each cell.
        cells: as read.
        gaps: an empty cell is allowed, and is NaN.

    Raises:
        RunFolderError: a cell is no such number; its line is named.
    """
    wanted = "whole number" if name in WHOLE else "number"
    try:
        numbers = np.array([float(cell or "nan") if gaps else float(cell) for cell in cells])
    except ValueError:
        numbers = np.full(len(cells), np.inf)
    if _are_sound(numbers, name, gaps):
        return numbers
    for line, cell in zip(lines, cells, strict=True):
        try:
            sound = (gaps and not cell) or _are_sound(np.array(float(cell)), name, False)
        except ValueError:
            sound = False
        if not sound:
            raise RunFolderError(
                f"Line {line} of {path} has {cell!r} in column {name!r}, where a {wanted} is "
                f"expected; {kind.remedy(path)}"
            )
    return numbers


def _are_sound(numbers: NDArray[np.float64], name: str, gaps: bool) -> bool:
    sound = np.isfinite(numbers) | (gaps & np.isnan(numbers))
    if name in WHOLE:
        sound &= numbers == np.floor(numbers)
    return bool(sound.all())


def _rows(path: Path, kind: Kind, reader: Any, columns: int) -> Iterator[Row]:
    for cells in reader:
        if len(cells) != columns:
            raise RunFolderError(
                f"Line {reader.line_num} of {path} has {len(cells)} cells where the header has "
                f"{columns}: the file was cut off or edited; {kind.remedy(path)}"
            )
        yield Row(reader.line_num, cells)


def _require_last_newline(path: Path, kind: Kind) -> None:
    """A last number may have lost digits and still be a number: only the line's end proves it."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            raise RunFolderError(
                f"The last line of {path} has no end: the file was cut off; {kind.remedy(path)}"
            )
