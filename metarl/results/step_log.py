"""Logs of single steps, and reading and writing them as the tidy rows of `trials.csv`.

Axes: `S` steps of all logged tasks, rollouts, phases and episodes; `F` parameters of a task, `D`
components of an observation, `A` of an action.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.errors import ConfigError, RunFolderError, ShapeError
from metarl.results.csv_files import (
    TableKind,
    open_table,
    require_text,
    to_integer,
    to_numbers,
    write_table,
)
from metarl.results.reading import quoted

MAX_COMPONENTS = 64
"""wider tasks, observations and actions are not logged: figures of single trials cannot show
them"""

NAME_COLUMNS = ("run", "agent", "role", "label", "family", "split", "seed")
STEP_COLUMNS = ("task", "rollout", "phase", "episode", "step", "reward", "success")
VECTORS = ("parameter", "expected_reward", "observation", "action", "next_observation")
COLUMNS = (*NAME_COLUMNS, "num_actions", *STEP_COLUMNS)
"""followed by the components of `VECTORS`, numbered from 0; `num_actions` is empty where actions
are continuous, `success` where the family does not define it"""

_KIND = TableKind("trials", COLUMNS, "evaluate", {"copy": "rollout"})


@dataclass(frozen=True, kw_only=True)
class StepLog:
    """Every step of one agent in a few tasks, in the order in which the steps were taken."""

    run: str  # name of the run folder; "" for a reference
    agent: str  # name of the agent or reference
    role: str  # "agent", "floor", "baseline" or "ceiling"
    label: str  # name in legends
    family: str  # task id
    split: str  # "train" or "test"
    seed: int  # of the tasks and trials
    num_actions: int | None  # of a discrete action; None where actions are continuous
    task: NDArray[np.int64]  # [S] the same number as in the adaptation curve
    rollout: NDArray[np.int64]  # [S] which of the parallel rollouts of the task
    phase: NDArray[np.int64]  # [S] number of adaptation steps before; 0 where there are none
    episode: NDArray[np.int64]  # [S] the same number as in the adaptation curve, from 1 on
    step: NDArray[np.int64]  # [S] within the episode, from 1 on
    reward: NDArray[np.float64]  # [S]
    success: NDArray[np.float64]  # [S] 1 where the task counts as solved; NaN where undefined
    parameter: NDArray[np.float64]  # [S, F] task parameters
    expected_reward: NDArray[np.float64]  # [S, num_actions] of each action; [S, 0] where undefined
    observation: NDArray[np.float64]  # [S, D] before the action
    action: NDArray[np.float64]  # [S, A]; [S, 1] where actions are discrete
    next_observation: NDArray[np.float64]  # [S, D] after the action, before any reset

    def __post_init__(self) -> None:
        steps = len(self.task)
        for field in fields(self):
            value = getattr(self, field.name)
            axes = 2 if field.name in VECTORS else 1
            if isinstance(value, np.ndarray) and (value.ndim != axes or len(value) != steps):
                raise ShapeError(
                    f"StepLog.{field.name} must have {axes} axes, the first of S = {steps} steps "
                    f"as in StepLog.task; got {list(value.shape)}."
                )

    @property
    def tasks(self) -> list[int]:
        """Sorted numbers of the logged tasks."""
        return [int(task) for task in np.unique(self.task)]

    def where(self, chosen: NDArray[np.bool_]) -> "StepLog":
        """The log of the chosen steps, [S] bool."""
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in parts.items():
            if isinstance(value, np.ndarray):
                parts[name] = value[chosen]
        return StepLog(**parts)


def write_step_logs(path: str | os.PathLike[str], logs: Sequence[StepLog]) -> None:
    """Writes logs as one CSV file, atomically; floats are read back bit for bit.

    Raises:
        RunFolderError: the folder is missing or not writable.
    """
    widths = {
        name: min((getattr(log, name).shape[1] for log in logs), default=0) for name in VECTORS
    }
    numbered = [f"{name}_{i}" for name, width in widths.items() for i in range(width)]
    rows = (row for log in logs for row in _rows(log))
    write_table(Path(path), [*COLUMNS, *numbered], rows)


def read_step_logs(path: str | os.PathLike[str]) -> list[StepLog]:
    """Reads one log per agent or reference, in the order of their first rows.

    Raises:
        RunFolderError: the file is missing, truncated or of another kind; gives the line.
    """
    path = Path(path)
    groups: dict[tuple[str, ...], tuple[list[int], list[list[str]]]] = {}
    with open_table(path, _KIND) as (header, rows):
        names = [header.index(name) for name in (*NAME_COLUMNS, "num_actions")]
        for line, cells in rows:
            lines, group = groups.setdefault(tuple(cells[i] for i in names), ([], []))
            lines.append(line)
            group.append(cells)
    if not groups:
        raise RunFolderError(f"{path} holds no rows; {_KIND.remedy(path)}")
    return [_log(path, header, key, *group) for key, group in groups.items()]


def common_tasks(logs: Sequence[StepLog], count: int) -> list[int]:
    """The first tasks that are in all logs, at most `count`.

    Raises:
        ConfigError: `count` is not positive, or families, splits or seeds differ.
    """
    if count < 1:
        raise ConfigError(f"tasks={count} must be at least 1: a figure shows at least one task.")
    if not logs:
        raise ConfigError(
            "There is no log of an agent's trials to draw; name references, such as "
            "--references all."
        )
    one = logs[0]
    for other in logs:
        if (other.family, other.split, other.seed) != (one.family, one.split, one.seed):
            raise ConfigError(
                f"{one.label} has {one.split} tasks of {one.family}, seed {one.seed}, and "
                f"{other.label} has {other.split} tasks of {other.family}, seed {other.seed}; one "
                "figure shows the same tasks for all. Evaluate all runs with the same --seed and "
                "--split."
            )
    common = sorted(set.intersection(*(set(log.tasks) for log in logs)))
    return common[:count]


def _rows(log: StepLog) -> Iterator[Sequence[object]]:
    names = [*(getattr(log, name) for name in NAME_COLUMNS), log.num_actions]
    columns = [_cells(getattr(log, name)) for name in STEP_COLUMNS]
    vectors = [_cells(part) for name in VECTORS for part in getattr(log, name).T]
    for cells in zip(*columns, *vectors, strict=True):
        yield [*names, *cells]


def _cells(column: NDArray[np.float64] | NDArray[np.int64]) -> Iterable[object]:
    """Cells of a column: empty for NaN, whole numbers without a decimal point."""
    whole = [int(x) if x == x and x == int(x) else x for x in column.tolist()]
    return ["" if x != x else x for x in whole]


def _log(
    path: Path, header: list[str], key: tuple[str, ...], lines: list[int], rows: list[list[str]]
) -> StepLog:
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))

    def numbers(name: str) -> NDArray[np.float64]:
        return to_numbers(path, _KIND, name, lines, columns[name], gaps=name == "success")

    def vector(name: str) -> NDArray[np.float64]:
        parts = [column for column in header if column.rpartition("_")[0] == name]
        if sorted(parts) != sorted(f"{name}_{index}" for index in range(len(parts))):
            raise RunFolderError(
                f"Line 1 of {path} names {quoted(', '.join(parts))}, but the components of {name} "
                f"are numbered from 0 on; {_KIND.remedy(path)}"
            )
        parts.sort(key=lambda column: int(column.rpartition("_")[2]))
        return np.stack([numbers(part) for part in parts], 1) if parts else np.zeros((len(rows), 0))

    *texts, seed, num_actions = key
    for name, text in zip(NAME_COLUMNS, texts, strict=False):
        require_text(path, _KIND, f"column {name!r}", text)
    actions = None  # continuous
    if num_actions:
        actions = to_integer(path, _KIND, "num_actions", num_actions, signed=False)
    run, agent, role, label, family, split = texts
    return StepLog(
        run=run,
        agent=agent,
        role=role,
        label=label,
        family=family,
        split=split,
        seed=to_integer(path, _KIND, "seed", seed),
        num_actions=actions,
        task=numbers("task").astype(np.int64),
        rollout=numbers("rollout").astype(np.int64),
        phase=numbers("phase").astype(np.int64),
        episode=numbers("episode").astype(np.int64),
        step=numbers("step").astype(np.int64),
        reward=numbers("reward"),
        success=numbers("success"),
        parameter=vector("parameter"),
        expected_reward=vector("expected_reward"),
        observation=vector("observation"),
        action=vector("action"),
        next_observation=vector("next_observation"),
    )
