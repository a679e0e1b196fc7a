"""Adaptation curves, and reading and writing them as tidy rows of CSV or Parquet.

Axes: `P` points of experience, `N` tasks.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from metarl.errors import ConfigError, RunFolderError, ShapeError
from metarl.field_types import checks_arguments, require_all
from metarl.results.csv_files import (
    TableKind,
    TableRow,
    open_table,
    require_text,
    to_integer,
    to_numbers,
    write_table,
)
from metarl.results.evaluation_files import TableForm, adaptation_file, is_evaluated
from metarl.results.parquet_files import (
    MAX_ROWS,
    ParquetColumns,
    RowGroup,
    Value,
    read_parquet,
    require_pyarrow,
    write_parquet,
)
from metarl.results.reading import quoted

NAME_COLUMNS = ("run", "agent", "role", "label", "family", "split", "seed", "training_seed")
NUMBER_COLUMNS = ("task", "episode", "env_steps", "return", "success")
COLUMNS = NAME_COLUMNS + NUMBER_COLUMNS
"""one row per curve, point and task; `success` is empty where the family does not define it,
`training_seed` where nothing was trained"""

CURVES = TableKind("an adaptation curve", COLUMNS, "evaluate", later=("training_seed",))
PARQUET_COLUMNS = ParquetColumns(
    texts=NAME_COLUMNS[:-2],
    wholes=NAME_COLUMNS[-2:],
    counts=NUMBER_COLUMNS[:2],
    numbers=NUMBER_COLUMNS[2:],
    gaps=("training_seed", "success"),
)
PARQUET_ENDING = ".parquet"
MAX_PARQUET_SEED = 2**63 - 1

_Row: TypeAlias = tuple[int, tuple[str, ...]]
"""the line on which a row ends, and its cells in the order of `COLUMNS`"""
_Part: TypeAlias = tuple[tuple[str, ...], NDArray[np.float64]]
"""names, and numbers [5, rows] in the order of `NUMBER_COLUMNS`, of rows that have these names"""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Adaptation of one agent in N tasks, measured at P points of experience."""

    run: str  # name of the run folder; "" for a reference
    agent: str  # name of the agent or reference
    role: str  # "agent", "floor", "baseline" or "ceiling"
    label: str  # name in legends
    family: str  # task id
    split: str  # "train" or "test"
    seed: int  # of the tasks and trials: equal seeds give the same tasks and environment noise
    episode: NDArray[np.int64]  # [P] the k in "the k-th episode in an unseen task"
    env_steps: NDArray[np.float64]  # [P, N] environment steps in the task by the episode's end
    returns: NDArray[np.float64]  # [P, N] mean over rollouts where there are several
    success: NDArray[np.float64]  # [P, N] likewise; NaN where the family does not define it
    training_seed: int | None = None  # of the run; None where nothing was trained by metarl

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
        """N, the number of evaluated tasks."""
        return len(self.returns[0])


def describe_family(task: str, options: Mapping[str, object]) -> str:
    """A family and its options, such as metarl/BernoulliBandit-v0 (arms=5, pulls=10)."""
    listed = ", ".join(f"{name}={options[name]}" for name in sorted(options))
    return f"{task} ({listed})" if listed else task


@checks_arguments("path")
def write_curves(path: str | os.PathLike[str], curves: Iterable[Curve]) -> None:
    """Writes curves as one file, atomically; floats are read back bit for bit.

    Args:
        path: of the file; the ending `.parquet` selects Parquet, which needs the extra `parquet`,
            any other CSV.
        curves: in the order of the rows.

    Raises:
        ConfigError: `path` is no path, or these are no curves.
        RunFolderError: the folder is missing or not writable.
        MissingPackageError: Parquet is wanted, and pyarrow is not installed.
    """
    path = Path(path)
    curves = require_all("curves", curves, Curve, "curves, as `read_curves` gives them")
    if path.suffix == PARQUET_ENDING:
        write_parquet(path, PARQUET_COLUMNS, map(_group, curves))
    else:
        write_table(path, COLUMNS, (row for curve in curves for row in _rows(curve)))


@checks_arguments("path")
def read_curves(path: str | os.PathLike[str]) -> list[Curve]:
    """Reads curves in the order of their first rows; rows may be in any order.

    Args:
        path: of the file, Parquet with the ending `.parquet`, else CSV.

    Raises:
        ConfigError: `path` is no path.
        RunFolderError: the file is missing, truncated or of another kind; gives the line.
        MissingPackageError: the file is Parquet, and pyarrow is not installed.
    """
    path = Path(path)
    if path.suffix == PARQUET_ENDING:
        parts = map(_split_group, read_parquet(path, CURVES, PARQUET_COLUMNS))
        tables = _joined(part for group in parts for part in group)
    else:
        with open_table(path, CURVES) as (header, rows):
            pick = itemgetter(*(header.index(name) for name in COLUMNS))
            tables = _joined(_parts(path, ((row.line, pick(row.cells)) for row in rows)))
    if not tables:
        raise RunFolderError(f"{path} holds no rows; {CURVES.remedy(path)}")
    return [_curve(path, names, numbers) for names, numbers in tables.items()]


def agent_label(folder: Path) -> str | None:
    """The label of the agent in the first row of a folder's evaluation; None without an agent.

    Raises:
        RunFolderError: the file is damaged, or the folder holds two.
        MissingPackageError: the file is Parquet, and pyarrow is not installed.
    """
    if not is_evaluated(folder):
        return None
    path = adaptation_file(folder)
    if path.suffix == PARQUET_ENDING:
        first = read_curves(path)[0]
        return first.label if first.role == "agent" else None
    with open_table(path, CURVES) as (header, rows):
        cells = dict(zip(header, next(rows, TableRow(0, [])).cells, strict=False))
        for _ in rows:
            pass  # the end of the file is checked as well
    label = cells.get("label", "")
    require_text(path, CURVES, "column 'label'", label)
    return label if cells.get("role") == "agent" else None


def require_form(form: TableForm, *, rows: int, seeds: Sequence[int]) -> None:
    """Raises an error if a table cannot be written in this form; called before an evaluation.

    Args:
        form: of the table.
        rows: of the table.
        seeds: the whole numbers among its names.

    Raises:
        MissingPackageError: it is Parquet, and pyarrow is not installed.
        ConfigError: it is Parquet, and there are too many rows, or a seed has over 64 bits.
    """
    if form == "csv":
        return
    require_pyarrow("A table of Parquet needs pyarrow")
    if rows > MAX_ROWS or max(seeds) > MAX_PARQUET_SEED:
        raise ConfigError(
            f"A Parquet table holds up to {MAX_ROWS:,} rows and seeds of 64 bits; this one would "
            f"have {rows:,} rows and the seeds {', '.join(map(str, seeds))}. Choose --table csv."
        )


def _rows(curve: Curve) -> Iterator[tuple[object, ...]]:
    # csv writes None as an empty cell.
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
            # The names and the episode repeat endlessly; the tasks end the rows.
            strict=False,
        )


def _group(curve: Curve) -> dict[str, Value]:
    """The rows of a curve by column, in the order of `_rows`."""
    points, tasks = curve.returns.shape
    names: dict[str, Value] = {name: getattr(curve, name) for name in NAME_COLUMNS}
    return names | {
        "task": np.tile(np.arange(tasks), points),
        "episode": np.repeat(curve.episode, tasks),
        "env_steps": curve.env_steps.reshape(-1),
        "return": curve.returns.reshape(-1),
        "success": curve.success.reshape(-1),
    }


def _joined(parts: Iterable[_Part]) -> dict[tuple[str, ...], NDArray[np.float64]]:
    """The numbers [5, rows] of each combination of names, in the order of their first rows."""
    tables: dict[tuple[str, ...], list[NDArray[np.float64]]] = {}
    for names, numbers in parts:
        tables.setdefault(names, []).append(numbers)
    return {names: np.concatenate(parts, axis=1) for names, parts in tables.items()}


def _parts(path: Path, rows: Iterable[_Row]) -> Iterator[_Part]:
    # `write_curves` keeps the rows of a curve together, so there are few large parts.
    for names, group in groupby(rows, key=lambda row: row[1][: len(NAME_COLUMNS)]):
        yield names, _numbers(path, list(group))


def _split_group(group: RowGroup) -> Iterator[_Part]:
    """The rows of a group of a Parquet file, by their names; those of `write_curves` are of one."""
    key = np.zeros(group.values.shape[1], np.int64)
    for places, listed in group.names:
        if len(listed) > 1:
            # The places in two lists as one; they are numbered again, so that no product overflows.
            _, key = np.unique(key * len(listed) + places, return_inverse=True)
    order = np.argsort(key, kind="stable")
    rows_by_key = np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
    for rows in sorted(rows_by_key, key=lambda rows: int(rows[0])):
        names = tuple(listed[places[rows[0]]] for places, listed in group.names)
        yield names, group.values[:, rows]


def _numbers(path: Path, rows: Sequence[_Row]) -> NDArray[np.float64]:
    """The number cells of `rows` as [5, rows]; an empty `success` is NaN."""
    lines, cells = zip(*rows, strict=True)
    columns = list(zip(*cells, strict=True))[len(NAME_COLUMNS) :]
    numbers = np.empty((len(NUMBER_COLUMNS), len(rows)))
    for index, (name, column) in enumerate(zip(NUMBER_COLUMNS, columns, strict=True)):
        numbers[index] = to_numbers(path, CURVES, name, lines, column, gaps=name == "success")
    return numbers


def _curve(path: Path, names: tuple[str, ...], numbers: NDArray[np.float64]) -> Curve:
    """Sorts rows into arrays [P, N]; every task must have every episode once."""
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
            f"{path} holds {numbers.shape[1]} rows of {quoted(names[1])} for {len(tasks)} tasks "
            f"and {len(episodes)} episodes; each of tasks 0 to {len(tasks) - 1} must have one row "
            f"for each episode, {len(tasks) * len(episodes)} in all: the file was cut off or "
            f"edited; {CURVES.remedy(path)}"
        )
    *texts, seed, training_seed = names
    for name, text in zip(NAME_COLUMNS, texts, strict=False):
        require_text(path, CURVES, f"column {name!r}", text)
    run, agent, role, label, family, split = texts
    return Curve(
        run=run,
        agent=agent,
        role=role,
        label=label,
        family=family,
        split=split,
        seed=to_integer(path, CURVES, "seed", seed),
        training_seed=to_integer(path, CURVES, "training_seed", training_seed)
        if training_seed
        else None,
        episode=episodes.astype(np.int64),
        env_steps=numbers[2].reshape(shape),
        returns=numbers[3].reshape(shape),
        success=numbers[4].reshape(shape),
    )
