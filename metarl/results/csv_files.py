"""Reading and writing CSV tables; writes are atomic, and errors name the file and line."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.errors import RunFolderError
from metarl.results.files import atomic_write
from metarl.results.reading import lines_of, quoted, require_file
from metarl.text import first_control

MAX_DIGITS = 40
"""of a whole number; seeds have fewer"""
INTEGER_COLUMNS = frozenset(("task", "rollout", "phase", "episode", "step", "iteration"))


class TableRow(NamedTuple):
    """One row of a file that is being read."""

    line: int  # on which the row ends, counted from 1
    cells: list[str]  # in the order of the header


class TableKind(NamedTuple):
    """The expected content of a file, for error messages."""

    content: str  # such as "an adaptation curve"
    columns: Sequence[str]  # required in the header, in any order; more are allowed
    command: str  # `metarl` command that writes the file into a run folder
    former_names: Mapping[str, str] = {}  # of columns in files of earlier versions
    later: Sequence[str] = ()  # columns that files of earlier versions lack: they are read as empty

    def remedy(self, path: Path) -> str:
        """The end of an error message: how to get a valid file."""
        return f"write it again with `metarl {self.command} {path.parent}`."


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes one CSV file atomically; floats are read back bit for bit.

    Raises:
        RunFolderError: the folder is missing or not writable.
    """
    with (
        atomic_write(path) as draft,
        draft.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


@contextmanager
def open_table(path: Path, kind: TableKind) -> Iterator[tuple[list[str], Iterator[TableRow]]]:
    """The header of a CSV file and its rows, to be read within the context.

    Raises:
        RunFolderError: the file is missing, truncated or of another kind; gives the line.
    """
    require_file(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(lines_of(path, file))
            header = [kind.former_names.get(name, name) for name in next(reader, [])]
            for name in header:
                require_text(path, kind, "the header", name)
            added = [name for name in kind.later if name not in header]
            missing = [name for name in kind.columns if name not in (*header, *added)]
            if missing:
                raise RunFolderError(
                    f"Line 1 of {path} names no column {', '.join(missing)}; the columns of "
                    f"{kind.content} are {', '.join(kind.columns)}."
                )
            yield [*header, *added], _rows(path, kind, reader, len(header), [""] * len(added))
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
    kind: TableKind,
    name: str,
    lines: Sequence[int],
    cells: Sequence[str],
    gaps: bool = False,
) -> NDArray[np.float64]:
    """Parses a column of finite numbers.

    Args:
        path: of the file.
        kind: of the file.
        name: of the column; those in `INTEGER_COLUMNS` hold whole numbers only.
        lines: line number of each cell.
        cells: as read.
        gaps: empty cells are allowed and become NaN.

    Raises:
        RunFolderError: a cell is not such a number; gives the line.
    """
    wanted = "whole number" if name in INTEGER_COLUMNS else "number"
    try:
        numbers = np.array([float(cell or "nan") if gaps else float(cell) for cell in cells])
    except ValueError:
        numbers = np.full(len(cells), np.inf)
    if first_invalid(numbers, name, gaps=gaps) is None:
        return numbers
    for line, cell in zip(lines, cells, strict=True):
        try:
            number = np.array([float(cell)]) if cell or not gaps else np.zeros(1)
            valid = first_invalid(number, name, gaps=False) is None
        except ValueError:
            valid = False
        if not valid:
            raise RunFolderError(
                f"Line {line} of {path} has {quoted(cell)} in column {name!r}, where a {wanted} is "
                f"expected; {kind.remedy(path)}"
            )
    return numbers


def to_integer(path: Path, kind: TableKind, name: str, cell: str, *, signed: bool = True) -> int:
    """A whole number that all rows of one table share.

    Raises:
        RunFolderError: it is not one.
    """
    digits = cell.removeprefix("-") if signed else cell
    if not digits.isdecimal() or len(digits) > MAX_DIGITS:
        raise RunFolderError(
            f"{path} has {quoted(cell)} in column {name!r}, where a whole number is expected; "
            f"{kind.remedy(path)}"
        )
    return int(cell)


def require_text(path: Path, kind: TableKind, where: str, cell: str) -> None:
    """Raises `RunFolderError` if a cell holds control characters, which could steer a terminal."""
    if first_control(cell):
        raise RunFolderError(
            f"{path} has {quoted(cell)} in {where}, where a text without control characters is "
            f"expected; {kind.remedy(path)}"
        )


def first_invalid(numbers: NDArray[np.float64], name: str, *, gaps: bool) -> int | None:
    """Place of the first number [R] that the column `name` does not allow; None if all are valid.

    Numbers must be finite, and whole in `INTEGER_COLUMNS`; NaN is allowed where there are `gaps`.
    """
    valid = np.isfinite(numbers) | (gaps & np.isnan(numbers))
    if name in INTEGER_COLUMNS:
        valid &= numbers == np.floor(numbers)
    return None if valid.all() else int(np.argmin(valid))


def _rows(
    path: Path, kind: TableKind, reader: Any, columns: int, added: list[str]
) -> Iterator[TableRow]:
    """The rows, with the cells `added` at the end of each."""
    for cells in reader:
        if len(cells) != columns:
            raise RunFolderError(
                f"Line {reader.line_num} of {path} has {len(cells)} cells where the header has "
                f"{columns}: the file was cut off or edited; {kind.remedy(path)}"
            )
        yield TableRow(reader.line_num, cells + added)


def _require_last_newline(path: Path, kind: TableKind) -> None:
    """Detects truncation within the last number, which may parse even if digits are missing."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            raise RunFolderError(
                f"The last line of {path} has no end: the file was cut off; {kind.remedy(path)}"
            )
