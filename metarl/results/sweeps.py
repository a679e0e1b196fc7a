"""The record of a sweep, and the table of its settings, from rows on disk.

sweep.json                what is tried: settings, seeds, and how they are measured
NAME/seed0, seed1, ...    run folders of the setting NAME
NAME/seed0/selection      the evaluation by which settings are compared
sweep.csv, sweep.png      the table, best setting first
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from metarl.errors import RunFolderError
from metarl.field_types import checks_arguments
from metarl.results.adaptation_curves import read_curves
from metarl.results.bootstrap import Estimate, bootstrap_interquartile_mean
from metarl.results.csv_files import write_table
from metarl.results.evaluation_files import adaptation_file
from metarl.results.evaluation_settings import read_settings
from metarl.results.files import json_text, write_text
from metarl.results.reading import quoted, read_json
from metarl.text import control_within

SWEEP_FILE = "sweep.json"
TABLE_FILE = "sweep.csv"
SELECTION = "selection"
"""folder inside a run folder with the evaluation by which settings are compared; that of
`metarl evaluate` is elsewhere, in other tasks"""
Metric: TypeAlias = Literal["last", "total"]
_FORMAT = "metarl-sweep-1"
_NAME = re.compile(r"[A-Za-z0-9_.,=+-]+")


@dataclass(frozen=True, kw_only=True)
class SweptSetting:
    """One setting of a sweep."""

    name: str
    """of its folder"""
    options: Mapping[str, Any]
    """the swept options"""
    training: Mapping[str, Any]
    """all settings of its runs but the seed, as in their `config.json`"""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """What a sweep tries, and how it is measured."""

    agent: str
    family: str
    """the task and its options"""
    seeds: Sequence[int]
    """of training; each setting is trained with each"""
    search: str
    """grid, random or tpe"""
    space: Mapping[str, Any]
    """values of each swept option, as in the file"""
    search_seed: int
    metric: Metric
    """return of the last episode, or of all episodes of the trial"""
    split: str
    """of the tasks in which settings are compared"""
    evaluation_seed: int
    """of these tasks"""
    num_tasks: int
    settings: Sequence[SweptSetting]
    """in the order in which they were chosen"""


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One setting in the table."""

    name: str
    options: Mapping[str, Any]
    scores: Mapping[int, float]
    """the metric as a mean over tasks, by seed; only of runs that were trained to their end"""
    score: Estimate | None
    """interquartile mean over seeds with its 95% interval, shape []; None without a score"""

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return float(np.mean(list(self.scores.values()))) if self.scores else None


@dataclass(frozen=True, kw_only=True)
class SweepTable:
    """Settings of a sweep, the best first, those without a score last."""

    record: SweepRecord
    rows: Sequence[SweepRow]
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """reason why a run has failed, by its folder"""


def write_sweep(folder: Path, record: SweepRecord) -> None:
    """Writes `sweep.json` atomically."""
    path = folder / SWEEP_FILE
    write_text(path, json_text(path, {**dataclasses.asdict(record), "format": _FORMAT}))


def read_record(folder: Path) -> SweepRecord:
    """The record in the folder of a sweep.

    Raises:
        RunFolderError: there is none, or it is broken.
    """
    path = folder / SWEEP_FILE
    if not path.is_file():
        raise RunFolderError(
            f"{folder} is not the folder of a sweep: it has no {SWEEP_FILE}. Give the folder "
            "printed by `metarl sweep`."
        )
    content = read_json(path, "the record of a sweep")
    try:
        if content.pop("format") != _FORMAT or control_within(content) is not None:
            raise ValueError("another format, or control characters")
        content["settings"] = [SweptSetting(**setting) for setting in content["settings"]]
        record = SweepRecord(**content)
        _require_valid(record)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise RunFolderError(
            f"{path} does not hold the record of a sweep ({quoted(str(error))}). Restore it from a "
            "copy, or choose another folder with --out."
        ) from error
    return record


def _require_valid(record: SweepRecord) -> None:
    texts = (record.agent, record.family, record.search, record.split)
    numbers = (*record.seeds, record.search_seed, record.evaluation_seed, record.num_tasks)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is missing")
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise TypeError("a number is missing")
    if record.metric not in get_args(Metric):
        raise ValueError(f"metric {record.metric!r}")
    for setting in record.settings:
        # A name is a part of a path.
        if not _NAME.fullmatch(setting.name) or setting.name.strip(".") == "":
            raise ValueError(f"name {setting.name!r}")
        if not isinstance(setting.options, dict) or not isinstance(setting.training, dict):
            raise TypeError("options are missing")


def run_folder(folder: Path, setting: SweptSetting, seed: int) -> Path:
    """The run folder of a setting and a seed."""
    return folder / setting.name / f"seed{seed}"


def read_score(folder: Path, record: SweepRecord, setting: SweptSetting, seed: int) -> float | None:
    """The metric of a run; None unless it was trained to its end and evaluated as recorded.

    Raises:
        RunFolderError: its rows are broken, or do not hold a whole trial where that is the metric.
    """
    selection = run_folder(folder, setting, seed) / SELECTION
    found = read_settings(selection) if selection.is_dir() else None
    if found is None or found.is_unfinished:
        return None
    measured = (found.split, found.seed, found.num_tasks)
    training = {**setting.training, "seed": seed}
    if measured != (record.split, record.evaluation_seed, record.num_tasks) or (
        _plain(found.training) != _plain(training)
    ):
        return None
    curves = read_curves(adaptation_file(selection))
    curve = next(each for each in curves if each.role == "agent")
    returns = curve.returns.sum(0) if record.metric == "total" else curve.returns[-1]
    return float(returns.mean())


@checks_arguments("folder")
def sweep_table(folder: str | os.PathLike[str], record: SweepRecord | None = None) -> SweepTable:
    """The table of a sweep, of the runs that are trained so far.

    Args:
        folder: of the sweep.
        record: by default that in the folder.

    Raises:
        ConfigError: `folder` is no path.
        RunFolderError: this is no folder of a sweep, or rows are broken.
    """
    folder = Path(folder).expanduser()
    record = read_record(folder) if record is None else record
    rows = [_row(folder, record, setting) for setting in record.settings]
    rows.sort(key=lambda row: -float(row.score.mean) if row.score else np.inf)
    return SweepTable(record=record, rows=rows)


def _row(folder: Path, record: SweepRecord, setting: SweptSetting) -> SweepRow:
    found = {seed: read_score(folder, record, setting, seed) for seed in record.seeds}
    scores = {seed: score for seed, score in found.items() if score is not None}
    estimate = None
    if scores:
        estimate = bootstrap_interquartile_mean(np.array(list(scores.values()))[:, None])
    return SweepRow(name=setting.name, options=setting.options, scores=scores, score=estimate)


def write_sweep_table(path: Path, table: SweepTable) -> None:
    """Writes the table as a CSV file, with a column for each swept option and each seed.

    Raises:
        RunFolderError: the file cannot be written.
    """
    record = table.record
    common = (record.metric, record.split, record.evaluation_seed, record.num_tasks)
    columns = [
        *("setting", *record.space, "num_seeds", "iqm", "iqm_low", "iqm_high", "mean"),
        *(f"seed{seed}" for seed in record.seeds),
        *("metric", "split", "evaluation_seed", "num_tasks"),
    ]
    write_table(
        path,
        columns,
        (
            [
                *(row.name, *(row.options[name] for name in record.space), len(row.scores)),
                *(["", "", ""] if row.score is None else map(float, row.score)),
                "" if row.mean is None else row.mean,
                *(row.scores.get(seed, "") for seed in record.seeds),
                *common,
            ]
            for row in table.rows
        ),
    )


def _plain(training: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(training))
