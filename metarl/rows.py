"""Adaptation curves in and out of `adaptation.csv`: tidy rows that plots and tables read.

Axes: `P` points of experience, `N` tasks.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from metarl.errors import RunFolderError, ShapeError

FILE_NAME = "adaptation.csv"
"""what evaluation calls its file inside a run folder"""

NAME_COLUMNS = ("run", "agent", "role", "label", "family", "split", "seed")
NUMBER_COLUMNS = ("task", "episode", "env_steps", "return", "success")
COLUMNS = NAME_COLUMNS + NUMBER_COLUMNS
"""one row per curve, point and task; `success` is empty where the family does not define it"""

_Row: TypeAlias = tuple[int, tuple[str, ...]]
"""the line a row ends on, and its cells in the order of `COLUMNS`"""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How one agent adapted in N tasks, measured at P points of experience."""

    run: str  # name of the run folder; "" for a reference
    agent: str  # name of the agent or reference
    role: str  # "agent", "floor", "baseline" or "ceiling"
    label: str  # how a legend calls it
    family: str  # task id
    split: str  # "train" or "test"
    seed: int  # of the tasks and trials: equal seeds are the same tasks and world noise
    episode: NDArray[np.int64]  # [P] the k in "the k-th episode in a task never seen"
    env_steps: NDArray[np.float64]  # [P, N] environment steps lived in the task by its end
    returns: NDArray[np.float64]  # [P, N] mean over copies where there are several
    success: NDArray[np.float64]  # [P, N] likewise; NaN where the family does not define it

    def __post_init__(self) -> None:
        if self.episode.ndim != 1 or not self.episode.size:
            raise ShapeError(
                f"Curve.episode must be [P] with P >= 1; got {list(self.episode.shape)}."
            )
        for name in ("returns", "env_steps", "success"):
            shape = getattr(self, name).shape
            if len(shape) != 2 or shape[0] != len(self.episode) or not shape[1]:
                raise ShapeError(
                    f"Curve.{name} must be [P, N] with P = {len(self.episode)}, as in "
                    f"Curve.episode, and N >= 1; got {list(shape)}."
                )
            if shape != self.returns.shape:
                raise ShapeError(
                    f"Curve.{name} has shape {list(shape)}, but Curve.returns has "
                    f"{list(self.returns.shape)}; both must be [P, N]."
                )

    @property
    def num_tasks(self) -> int:
        """N, the tasks it was measured in."""
        return len(self.returns[0])


def write_curves(path: str | os.PathLike[str], curves: Iterable[Curve]) -> None:
    """Writes curves as one CSV file; numbers come back bit for bit.

    The file appears whole or not at all: an interrupted call leaves the old one as it was.

    Raises:
        RunFolderError: the folder is missing, or cannot be written to.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for curve in curves:
                writer.writerows(_rows(curve))
        os.replace(draft, path)
    except OSError as error:
        raise RunFolderError(
            f"The curves cannot be written to {path}: {error.strerror}."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def read_curves(path: str | os.PathLike[str]) -> list[Curve]:
    """Reads curves in the order of their first rows; the rows themselves may come in any order.

    Raises:
        RunFolderError: the file is missing, cut off, or not such a file; the line is named.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            tables = _tables(path, _cells(path, file))
        _require_last_newline(path)
    except FileNotFoundError as error:
        raise RunFolderError(
            f"There is no {path}; `metarl evaluate {path.parent}` writes it."
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{path} cannot be read: {error}.") from error
    if not tables:
        raise RunFolderError(f"{path} holds no rows; {_remedy(path)}")
    return [_curve(path, names, numbers) for names, numbers in tables.items()]


def _rows(curve: Curve) -> Iterator[tuple[object, ...]]:
    names = [repeat(getattr(curve, name)) for name in NAME_COLUMNS]
    for point, episode in enumerate(curve.episode.tolist()):
        success = curve.success[point]
        cells: list[float | str] = success.tolist()
        for task in np.flatnonzero(np.isnan(success)):
            cells[task] = ""
        yield from zip(
            *names,
            range(curve.num_tasks),
            repeat(episode),
            curve.env_steps[point].tolist(),
            curve.returns[point].tolist(),
            cells,
            # The names and the episode repeat for ever; the tasks end the rows.
            strict=False,
        )


def _cells(path: Path, lines: Iterable[str]) -> Iterator[_Row]:
    """The rows below the header; columns may stand in any order, and others beside them."""
    reader = csv.reader(lines)
    header = next(reader, [])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise RunFolderError(
            f"Line 1 of {path} names no column {', '.join(missing)}; the columns of an "
            f"adaptation curve are {', '.join(COLUMNS)}."
        )
    pick = itemgetter(*(header.index(name) for name in COLUMNS))
    for row in reader:
        if len(row) != len(header):
            raise RunFolderError(
                f"Line {reader.line_num} of {path} has {len(row)} cells where the header has "
                f"{len(header)}: the file was cut off or edited; {_remedy(path)}"
            )
        yield reader.line_num, pick(row)


def _tables(path: Path, rows: Iterable[_Row]) -> dict[tuple[str, ...], NDArray[np.float64]]:
    """For each combination of names its numbers, [5, rows], in the order of `NUMBER_COLUMNS`."""
    tables: dict[tuple[str, ...], list[NDArray[np.float64]]] = {}
    # Rows of a curve stand together in our own files, so this is a handful of large groups.
    for names, group in groupby(rows, key=lambda row: row[1][: len(NAME_COLUMNS)]):
        tables.setdefault(names, []).append(_numbers(path, list(group)))
    return {names: np.concatenate(parts, axis=1) for names, parts in tables.items()}


def _numbers(path: Path, rows: Sequence[_Row]) -> NDArray[np.float64]:
    """The number cells of `rows` as [5, rows]; an empty `success` is NaN."""
    columns = list(zip(*(row for _, row in rows), strict=True))[len(NAME_COLUMNS) :]
    numbers = np.empty((len(NUMBER_COLUMNS), len(rows)))
    for index, (name, cells) in enumerate(zip(NUMBER_COLUMNS, columns, strict=True)):
        if name == "success":
            cells = tuple(cell or "nan" for cell in cells)
        try:
            numbers[index] = cells
            sound = bool(_is_sound(name, numbers[index]).all())
        except ValueError:
            sound = False
        if not sound:
            _blame(path, name, [line for line, _ in rows], cells)
    return numbers


def _is_sound(name: str, numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    if name == "success":
        return np.ones_like(numbers, dtype=bool)
    finite = np.isfinite(numbers)
    return finite & (numbers == np.floor(numbers)) if name in ("task", "episode") else finite


def _blame(path: Path, name: str, lines: Sequence[int], cells: Sequence[str]) -> None:
    """Raises for the first cell that is not the number it should be."""
    for line, cell in zip(lines, cells, strict=True):
        try:
            sound = bool(_is_sound(name, np.array(float(cell))))
        except ValueError:
            sound = False
        if not sound:
            kind = "whole number" if name in ("task", "episode") else "number"
            raise RunFolderError(
                f"Line {line} of {path} has {cell!r} in column {name!r}, where a {kind} is "
                f"expected; {_remedy(path)}"
            )


def _curve(path: Path, names: tuple[str, ...], numbers: NDArray[np.float64]) -> Curve:
    """Rows in any order become arrays [P, N]; every task must have every episode once."""
    numbers = numbers[:, np.lexsort((numbers[0], numbers[1]))]
    tasks, episodes = np.unique(numbers[0]), np.unique(numbers[1])
    shape = len(episodes), len(tasks)
    complete = (
        numbers.shape[1] == len(episodes) * len(tasks)
        and np.array_equal(numbers[0].reshape(shape), np.tile(np.arange(len(tasks)), (shape[0], 1)))
        and np.array_equal(numbers[1].reshape(shape)[:, 0], episodes)
    )
    if not complete:
        raise RunFolderError(
            f"{path} holds {numbers.shape[1]} rows of {names[1]!r} for {len(tasks)} tasks and "
            f"{len(episodes)} episodes; each of tasks 0 to {len(tasks) - 1} must have one row "
            f"for each episode, {len(tasks) * len(episodes)} in all: the file was cut off or "
            f"edited; {_remedy(path)}"
        )
    *texts, seed = names
    if not seed.lstrip("-").isdecimal():
        raise RunFolderError(
            f"{path} has {seed!r} in column 'seed', where a whole number is expected; "
            f"{_remedy(path)}"
        )
    run, agent, role, label, family, split = texts
    return Curve(
        run=run,
        agent=agent,
        role=role,
        label=label,
        family=family,
        split=split,
        seed=int(seed),
        episode=episodes.astype(np.int64),
        env_steps=numbers[2].reshape(shape),
        returns=numbers[3].reshape(shape),
        success=numbers[4].reshape(shape),
    )


def _require_last_newline(path: Path) -> None:
    """A last number may have lost digits and still be a number: only the line's end proves it."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            raise RunFolderError(
                f"The last line of {path} has no end: the file was cut off; {_remedy(path)}"
            )


def _remedy(path: Path) -> str:
    return f"write it anew with `metarl evaluate {path.parent}`."
