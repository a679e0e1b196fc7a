"""Adaptation curves, and reading and writing them as the tidy rows of `adaptation.csv`.

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

from metarl.errors import RunFolderError, ShapeError
from metarl.results.csv_files import (
    TableKind,
    open_table,
    require_text,
    to_integer,
    to_numbers,
    write_table,
)
from metarl.results.reading import quoted

ADAPTATION_FILE = "adaptation.csv"
"""name inside a run folder; written by evaluation"""

NAME_COLUMNS = ("run", "agent", "role", "label", "family", "split", "seed")
NUMBER_COLUMNS = ("task", "episode", "env_steps", "return", "success")
COLUMNS = NAME_COLUMNS + NUMBER_COLUMNS
"""one row per curve, point and task; `success` is empty where the family does not define it"""

CURVES = TableKind("an adaptation curve", COLUMNS, "evaluate")

_Row: TypeAlias = tuple[int, tuple[str, ...]]
"""the line on which a row ends, and its cells in the order of `COLUMNS`"""


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


def write_curves(path: str | os.PathLike[str], curves: Iterable[Curve]) -> None:
    """Writes curves as one CSV file, atomically; floats are read back bit for bit.

    Raises:
        RunFolderError: the folder is missing or not writable.
    """
    write_table(Path(path), COLUMNS, (row for curve in curves for row in _rows(curve)))


def read_curves(path: str | os.PathLike[str]) -> list[Curve]:
    """Reads curves in the order of their first rows; rows may be in any order.

    Raises:
        RunFolderError: the file is missing, truncated or of another kind; gives the line.
    """
    path = Path(path)
    with open_table(path, CURVES) as (header, rows):
        pick = itemgetter(*(header.index(name) for name in COLUMNS))
        tables = _tables(path, ((row.line, pick(row.cells)) for row in rows))
    if not tables:
        raise RunFolderError(f"{path} holds no rows; {CURVES.remedy(path)}")
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
            # The names and the episode repeat endlessly; the tasks end the rows.
            strict=False,
        )


def _tables(path: Path, rows: Iterable[_Row]) -> dict[tuple[str, ...], NDArray[np.float64]]:
    """The numbers [5, rows] of each combination of names, in the order of `NUMBER_COLUMNS`."""
    tables: dict[tuple[str, ...], list[NDArray[np.float64]]] = {}
    # `write_curves` keeps the rows of a curve together, so there are few large groups.
    for names, group in groupby(rows, key=lambda row: row[1][: len(NAME_COLUMNS)]):
        tables.setdefault(names, []).append(_numbers(path, list(group)))
    return {names: np.concatenate(parts, axis=1) for names, parts in tables.items()}


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
    *texts, seed = names
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
        episode=episodes.astype(np.int64),
        env_steps=numbers[2].reshape(shape),
        returns=numbers[3].reshape(shape),
        success=numbers[4].reshape(shape),
    )
