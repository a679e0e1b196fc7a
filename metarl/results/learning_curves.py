"""Learning curves: `metrics.csv`, written row by row in training and read as columns.

Axes: `I` meta-iterations.
"""

import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.errors import RunFolderError, UnknownNameError
from metarl.field_types import checks_arguments
from metarl.results.adaptation_curves import agent_label, describe_family
from metarl.results.csv_files import TableKind, open_table, to_numbers
from metarl.results.files import AppendedFile, as_folder_error
from metarl.results.reading import lines_of, require_file, shortened
from metarl.results.run_config import current_metric_name, read_config

log = logging.getLogger("metarl")

METRICS_FILE = "metrics.csv"
"""name inside a run folder; written by training"""

EVALUATION_CURVE_FILE = "evaluation_curve.csv"
"""name inside a run folder; written by evaluations in the course of training"""

X_COLUMNS = ("env_steps", "seconds")
"""the horizontal axes of learning curves: experience and wall time"""

_KIND = TableKind("the metrics of a training", ("iteration", *X_COLUMNS), "train AGENT TASK --out")
_HELD_OUT_KIND = TableKind(
    "evaluations in the course of a training",
    ("iteration", *X_COLUMNS, "episode", "return"),
    "train AGENT TASK --evaluate-every 20 --out",
)


class MetricsFile:
    """Writer of `metrics.csv`: one row per meta-iteration, on its way to the disk at once.

    The file is only appended to. Where a training continues, the rows after its checkpoint are cut
    off at the end of the file; those before are not touched.
    """

    def __init__(self, path: Path, *, keep: int, sparse: bool = False) -> None:
        """Opens the file, keeping the rows of the first `keep` iterations of an earlier session.

        With `sparse`, not every iteration has a row, and one may have several.

        Raises:
            RunFolderError: the file cannot be read or written.
        """
        with as_folder_error(path):
            self._columns, end, last = _kept_rows(path, keep) if path.exists() else ([], 0, 0)
        self._file = AppendedFile(path)
        self._file.cut(end)
        if last != keep and not sparse:
            log.warning(
                "%s ends at iteration %d, but the training continues after iteration %d.",
                *(path, last, keep),
            )

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row. The first row of the file sets the columns; others are left out.

        Raises:
            RunFolderError: the disk is full, or the file cannot be written.
        """
        if not self._columns:
            self._columns = list(row)
            self._file.write(_csv_line(self._columns))
        cells = [row.get(name, "") for name in self._columns]
        texts = [f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells]
        self._file.write(_csv_line(texts))

    def sync(self) -> None:
        """Waits until the rows have reached the disk."""
        self._file.sync()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


@checks_arguments("path")
def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Rows of a `metrics.csv`, or of that of a run or its folder.

    A last line without an end, which a training that was killed can leave, is left out.

    Raises:
        ConfigError: the path is none.
        RunFolderError: there is no such file, or a row has more or fewer cells than the header.
    """
    path = Path(path).expanduser()
    path = path / METRICS_FILE if path.is_dir() else path
    try:
        require_file(path)
        with path.open(newline="", encoding="utf-8") as file:
            whole = (line for line in lines_of(path, file) if line.endswith("\n"))
            header, *rows = [*csv.reader(whole)] or [[]]
        if odd := next((row for row in rows if len(row) != len(header)), None):
            raise ValueError(f"a row has {len(odd)} cells, the header {len(header)}")
    except (OSError, ValueError, csv.Error) as error:
        raise RunFolderError(
            f"{path} cannot be read as metrics of a training ({shortened(error)}). Give a run, its "
            "folder or its metrics.csv."
        ) from error
    names = [current_metric_name(name) for name in header]
    return [dict(zip(names, row, strict=True)) for row in rows if row]


def _csv_line(cells: Sequence[object]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


def _kept_rows(path: Path, keep: int) -> tuple[list[str], int, int]:
    """Columns of the file, the byte where its first `keep` iterations end, and the last of these.

    A row that cannot be read is kept; a last line without an end is not.
    """
    require_file(path)
    with path.open("rb") as file:
        lines = lines_of(path, file)
        line = next(lines, b"")
        if not line.endswith(b"\n"):
            return [], 0, 0
        try:
            (header,) = csv.reader([line.decode(errors="replace")])
        except csv.Error:
            header = []
        columns = [current_metric_name(name) for name in header]
        if "iteration" not in columns:
            raise RunFolderError(
                f"{path} names no column 'iteration' in its first line, so rows cannot be added. "
                "Move it away: training then begins a new one."
            )
        place, end, last = columns.index("iteration"), len(line), 0
        for line in lines:
            cells = line.split(b",")
            try:
                iteration = int(float(cells[place]))
            except (IndexError, ValueError, OverflowError):
                iteration = 0
            if iteration > keep or not line.endswith(b"\n"):
                break
            end, last = end + len(line), iteration or last
    return columns, end, last


class HeldOut(NamedTuple):
    """A metric in held-out tasks in the course of training, at `P` evaluations."""

    env_steps: NDArray[np.float64]  # [P] of training
    seconds: NDArray[np.float64]  # [P] likewise
    values: NDArray[np.float64]  # [P]


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """One metric over the training of one run."""

    run: str  # name of the run folder
    agent: str  # name of the agent
    label: str | None  # name in legends; None where the run was not evaluated
    family: str  # task id and options
    seed: int  # of the training
    options: Mapping[str, Any]  # of the agent
    metric: str  # name of the column
    env_steps: NDArray[np.float64]  # [I] since the start of training
    seconds: NDArray[np.float64]  # [I] likewise
    values: NDArray[np.float64]  # [I]
    held_out: HeldOut | None = None  # where the run was evaluated in its course, and by this metric

    @property
    def unfinished(self) -> str | None:
        """How far an unfinished run is trained, such as '3 of 100 iterations'; None for others."""
        iterations = self.options.get("iterations")
        if not isinstance(iterations, int) or len(self.values) >= iterations:
            return None
        return f"{len(self.values)} of {iterations} iterations"


def read_learning(folder: Path, metric: str) -> LearningCurve:
    """One column of a run's `metrics.csv`, with the settings in its `config.json`.

    Raises:
        RunFolderError: a file is missing, truncated or of another kind.
        UnknownNameError: there is no such metric; lists the existing ones.
    """
    path = folder / METRICS_FILE
    with open_table(path, _KIND) as (columns, rows):
        header = [current_metric_name(name) for name in columns]
        if metric not in header:
            known = shortened(", ".join(header))
            raise UnknownNameError(f"{path} has no metric {metric!r}; it has {known}.")
        read = list(rows)
    if not read:
        raise RunFolderError(f"{path} holds no rows: the training has not finished an iteration.")
    lines = [row.line for row in read]
    env_steps, seconds, values = (
        to_numbers(path, _KIND, name, lines, [row.cells[header.index(name)] for row in read])
        for name in (*X_COLUMNS, metric)
    )
    config = read_config(folder)
    return LearningCurve(
        run=folder.name,
        agent=config["agent"],
        label=agent_label(folder),
        family=describe_family(config["task"], config["task_options"]),
        seed=config["seed"],
        options=config["agent_options"],
        metric=metric,
        env_steps=env_steps,
        seconds=seconds,
        values=values,
        held_out=_read_held_out(folder / EVALUATION_CURVE_FILE, metric),
    )


def _read_held_out(path: Path, metric: str) -> HeldOut | None:
    """The metric in the evaluations of `evaluation_curve.csv`; None if it holds no such number."""
    if metric not in ("first_episode_return", "last_episode_return", "trial_return"):
        return None
    if not path.exists():
        return None
    with open_table(path, _HELD_OUT_KIND) as (header, rows):
        read = list(rows)
    lines = [row.line for row in read]
    columns = []
    for name in _HELD_OUT_KIND.columns:
        cells = [row.cells[header.index(name)] for row in read]
        columns.append(to_numbers(path, _HELD_OUT_KIND, name, lines, cells).tolist())
    points = []
    for _, found in groupby(zip(*columns, strict=True), key=lambda row: row[0]):
        _, steps, seconds, episodes, returns = zip(*found, strict=True)
        if metric == "trial_return" and list(episodes) != list(range(1, len(episodes) + 1)):
            return None  # not every episode was measured
        at = {"first_episode_return": returns[0], "last_episode_return": returns[-1]}
        points.append((steps[0], seconds[0], at.get(metric, sum(returns))))
    return HeldOut(*np.array(points).T) if points else None
