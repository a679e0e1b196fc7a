"""A comparison of evaluated runs: one table of agents and references.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks.
"""

import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.field_types import checks_arguments, require_all, require_instance
from metarl.results.adaptation_curves import Curve
from metarl.results.bootstrap import (
    Estimate,
    JoinedCurve,
    choose_references,
    estimate_from_means,
    join_curves,
    task_sets,
)
from metarl.results.csv_files import write_table
from metarl.results.files import make_parent
from metarl.results.folders import unique_folders
from metarl.results.run_curves import read_run_curves
from metarl.results.scores import normalised_score, score_references

FIRST, LAST, TOTAL, FIRST_SUCCESS, LAST_SUCCESS = range(5)

ESTIMATES = (
    *("first", "last", "total", "score", "difference", "regret"),
    *("first_success", "last_success"),
)
"""columns of a row, each with its 95% interval"""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """Returns of one agent or reference; each estimate with its 95% interval, shape []."""

    agent: str
    label: str
    role: str
    num_runs: int
    episodes: int
    """of experience in the task, up to and including the last measured episode"""
    first: Estimate
    """return of the first episode"""
    last: Estimate
    """return of the last episode"""
    total: Estimate | None
    """return of the whole trial; None where not every episode was measured"""
    score: Estimate | None
    """0 for the floor, 1 for the ceiling; None where one of them is missing, or was measured for
    fewer episodes than some agent"""
    difference: Estimate | None
    """return minus that of the first agent, in the same tasks; None for the first agent"""
    regret: Estimate | None
    """return of the whole trial lost against the highest ceiling; None where episodes are
    missing"""
    first_success: Estimate | None
    """share of tasks solved in the first episode; None where the family does not define success"""
    last_success: Estimate | None
    """share of tasks solved in the last episode; None likewise"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Agents and references on common tasks, floors first and ceilings last."""

    family: str
    split: str
    seed: int
    num_tasks: int
    measure: Literal["total", "last"]
    """return that score and difference compare: of the whole trial if all curves are complete and
    equally long, else of the last episode, whatever its number"""
    floor: str | None
    """label of the reference with score 0"""
    ceiling: str | None
    """label of the reference with score 1"""
    base: str | None
    """label of the agent that is subtracted in differences"""
    rows: tuple[ComparisonRow, ...]
    several: bool = False
    """rows are of several evaluations of one run in different tasks, named in the labels; the
    fields above are those of the first"""

    at: int | None = None
    """episodes of experience up to which curves were compared; None: each up to its end"""

    @property
    def defines_success(self) -> bool:
        """Whether some row has successes."""
        return any(row.first_success is not None for row in self.rows)


@checks_arguments("by_seed", "join_unfinished")
def compare(
    runs: Sequence[str | os.PathLike[str]],
    *,
    reference: Sequence[str] | None = None,
    by_seed: bool = False,
    join_unfinished: bool = False,
    at: int | None = None,
) -> Comparison:
    """Compares evaluated runs: first, last and total return, score, difference, regret.

    Runs of the same agent are taken as its training seeds and joined into one row.

    Args:
        runs: folders of evaluated runs. Differences are to the agent of the first one.
        reference: names of the floors, baselines and ceilings to show; None shows all. Scores
            consider all of them, shown or not.
        by_seed: one row for each run instead.
        at: compare at this number of episodes of experience: each agent in the last of its measured
            episodes up to this one. By default each at its last, which may be after more experience
            than that of others.
        join_unfinished: join runs that were evaluated before the end of their training with others,
            as seeds of one agent; by default each is a row, whose label says so.

    Raises:
        RunFolderError: a run has not been evaluated.
        ConfigError: the runs were not evaluated in the same tasks.
        UnknownNameError: there is no such reference.
    """
    for name, value, kind, wanted in (
        ("at", at, int, "a number of episodes, or None"),
        ("reference", reference, (list, tuple), "a list of names, or None"),
    ):
        if value is not None:
            require_instance(name, value, kind, wanted)
    folders = unique_folders(runs)
    curves = read_run_curves(folders, join_unfinished=join_unfinished)
    return compare_curves(curves, reference=reference, by_seed=by_seed, at=at)


def compare_curves(
    curves: Iterable[Curve],
    *,
    reference: Sequence[str] | None = None,
    by_seed: bool = False,
    at: int | None = None,
) -> Comparison:
    """Like `compare`, for curves in memory, such as those that `evaluate` returns.

    Raises:
        ConfigError: these are no curves, they are not from the same tasks, or an agent has less
            experience than `at`.
        UnknownNameError: there is no such reference.
    """
    curves = require_all("curves", curves, Curve, "curves, as `metarl.evaluate` gives them")
    curves = curves if at is None else [_until(curve, at) for curve in curves]
    shown = {curve.agent for curve in choose_references(curves, reference)}
    parts = [_compare_tasks(group, shown, by_seed) for group in task_sets(curves)]
    rows = tuple(row for part in parts for row in part.rows)
    return replace(parts[0], rows=rows, several=len(parts) > 1, at=at)


def _until(curve: Curve, at: int) -> Curve:
    """The curve up to the episode `at`."""
    if curve.episode[0] > at or (curve.role == "agent" and curve.episode[-1] < at):
        raise ConfigError(
            f"at={at}: {curve.label} was measured from episode {curve.episode[0]} to "
            f"{curve.episode[-1]} of experience in the task. Choose a number that all agents reach."
        )
    kept = curve.episode <= at
    numbers = {n: getattr(curve, n)[kept] for n in ("episode", "env_steps", "returns", "success")}
    return replace(curve, **numbers)


def _compare_tasks(curves: Sequence[Curve], shown: Container[str], by_seed: bool) -> Comparison:
    """The comparison of curves of the same tasks."""
    joined = join_curves(_label_by_run(curves) if by_seed else curves)
    plan = _plan(joined)
    estimate = estimate_from_means(plan.estimates, *map(_measures, joined))
    per_curve = (part.reshape(len(joined), len(ESTIMATES)) for part in estimate)
    rows = [
        _row(curve, list(map(Estimate, *parts)))
        for curve, *parts in zip(joined, *per_curve, strict=True)
        if curve.agent in shown
    ]
    labels = [
        None if index is None else joined[index].label
        for index in (plan.floor, plan.ceiling, plan.base)
    ]
    return Comparison(
        family=curves[0].family,
        split=curves[0].split,
        seed=curves[0].seed,
        num_tasks=curves[0].num_tasks,
        measure="total" if plan.measure == TOTAL else "last",
        floor=labels[0],
        ceiling=labels[1],
        base=labels[2],
        rows=tuple(rows),
    )


@checks_arguments("path", "comparison")
def write_comparison(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Writes the table as a CSV file; the ends of intervals are separate columns.

    Raises:
        ConfigError: these are no path and no comparison.
        RunFolderError: the file cannot be written.
    """
    common = ("family", "split", "seed", "num_tasks", "measure", "floor", "ceiling", "base")
    ends = [f"{name}{end}" for name in ESTIMATES for end in ("", "_low", "_high")]
    make_parent(Path(path))
    write_table(
        Path(path),
        ["agent", "label", "role", "num_runs", *ends, "episodes", *common],
        (
            [
                *(row.agent, row.label, row.role, row.num_runs),
                *_cells(row),
                row.episodes,
                *("" if comparison.several else getattr(comparison, name) for name in common),
            ]
            for row in comparison.rows
        ),
    )


def _label_by_run(curves: Sequence[Curve]) -> list[Curve]:
    """Adds the run's name to each agent's label, so that runs are not joined."""
    labelled = [
        replace(curve, label=f"{curve.label}, {curve.run}") if curve.role == "agent" else curve
        for curve in curves
    ]
    seen: Counter[tuple[str, str]] = Counter()
    for index, curve in enumerate(labelled):
        if curve.role == "agent":
            seen[curve.agent, curve.label] += 1
            if (count := seen[curve.agent, curve.label]) > 1:  # folders of one name
                labelled[index] = replace(curve, label=f"{curve.label} ({count})")
    return labelled


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which joined curves are compared, as indices; None where no curve has the role."""

    measure: int  # index into `_measures` of the return that score and difference compare
    floor: int | None
    ceiling: int | None
    base: int | None
    regret_ceiling: int | None
    complete: tuple[bool, ...]  # for each curve, whether its total covers the whole trial

    def estimates(self, *means: NDArray[np.float64]) -> NDArray[np.float64]:
        """All columns of all C rows, from the means of `_measures`, [5, S] each.

        Returns:
            [C * 8, S], curve by curve in the order of `ESTIMATES`; NaN where undefined.
        """
        undefined = np.full_like(means[0][0], np.nan)
        columns = []
        for index, (first, last, total, *success) in enumerate(means):
            measured = means[index][self.measure]
            score = difference = regret = undefined
            if self.floor is not None and self.ceiling is not None:
                ends = (means[end][self.measure] for end in (self.floor, self.ceiling))
                score = normalised_score(measured, *ends)
            if self.base not in (None, index):
                difference = measured - means[self.base][self.measure]
            if self.regret_ceiling is not None and self.measure == TOTAL:
                regret = means[self.regret_ceiling][TOTAL] - total
            trial_return = total if self.complete[index] else undefined
            columns += [first, last, trial_return, score, difference, regret, *success]
        return np.stack(columns)


def _plan(curves: Sequence[JoinedCurve]) -> _Plan:
    same = len({len(curve.episode) for curve in curves}) == 1
    measure = TOTAL if same and all(curve.is_complete for curve in curves) else LAST
    mean_returns = [float(_measures(curve)[:, measure].mean()) for curve in curves]
    floor, ceiling = score_references(curves, mean_returns) or (None, None)
    ceilings = [i for i, curve in enumerate(curves) if curve.role == "ceiling"]
    return _Plan(
        measure=measure,
        floor=floor,
        ceiling=ceiling,
        base=next((i for i, curve in enumerate(curves) if curve.role == "agent"), None),
        regret_ceiling=max(ceilings, key=mean_returns.__getitem__, default=None),
        complete=tuple(curve.is_complete for curve in curves),
    )


def _measures(curve: JoinedCurve) -> NDArray[np.float64]:
    """[R, 5, N]: return of the first and last episode and of all, success in the first and last.

    Totals are taken per task, because the interval of a sum is not the sum of intervals.
    """
    ends = (values[:, end] for values in (curve.returns, curve.success) for end in (0, -1))
    first, last, *success = ends
    return np.stack([first, last, curve.returns.sum(1), *success], axis=1)


def _row(curve: JoinedCurve, estimates: Sequence[Estimate]) -> ComparisonRow:
    defined = (None if np.isnan(estimate).any() else estimate for estimate in estimates)
    columns: dict[str, Any] = dict(zip(ESTIMATES, defined, strict=True))
    return ComparisonRow(
        agent=curve.agent,
        label=curve.label,
        role=curve.role,
        num_runs=curve.num_runs,
        episodes=curve.last_episode,
        **columns,
    )


def _cells(row: ComparisonRow) -> Iterator[float | str]:
    for name in ESTIMATES:
        estimate: Estimate | None = getattr(row, name)
        yield from ("", "", "") if estimate is None else map(float, estimate)
