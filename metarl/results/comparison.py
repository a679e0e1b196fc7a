"""Evaluated runs side by side: their rows go in, one table of agents and references comes out.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.results.bootstrap import (
    Estimate,
    Line,
    choose_references,
    estimate_from_means,
    join_curves,
)
from metarl.results.csv_files import write_table
from metarl.results.curves import Curve
from metarl.results.run_curves import read_run_curves
from metarl.results.scores import bracket, share_of_span

FIRST, LAST, TOTAL, FIRST_SUCCESS, LAST_SUCCESS = range(5)

NUMBERS = (
    *("first", "last", "total", "score", "difference", "regret"),
    *("first_success", "last_success"),
)
"""the estimates of a row, each with its 95% interval"""


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """What one agent or reference earned; each number with its 95% interval, shape []."""

    agent: str
    label: str
    role: str
    num_runs: int
    episodes: int
    """of experience in the task by the end of the last episode measured, that one included"""
    first: Estimate
    """return of the first episode"""
    last: Estimate
    """return of the last episode"""
    total: Estimate | None
    """return of the whole trial; None where not every episode was measured"""
    score: Estimate | None
    """0 for the floor, 1 for the ceiling; None where one of them is missing, or lived shorter than
    some agent"""
    difference: Estimate | None
    """how much more than the first agent, in the same tasks; None for itself"""
    regret: Estimate | None
    """what the whole trial cost against the highest ceiling; None where that has no sum"""
    first_success: Estimate | None
    """share of tasks solved in the first episode; None where the family does not define success"""
    last_success: Estimate | None
    """the same for the last"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Agents and references on common tasks, floors first and ceilings last."""

    family: str
    split: str
    seed: int
    num_tasks: int
    measure: Literal["total", "last"]
    """what score and difference speak of: the whole trial if everybody's was measured, of equal
    length, else the last episode, however much experience came before it"""
    floor: str | None
    """label of who scores 0"""
    ceiling: str | None
    """label of who scores 1"""
    base: str | None
    """label of the agent that differences are to"""
    rows: tuple[ComparisonRow, ...]

    @property
    def defines_success(self) -> bool:
        """Whether some row has successes."""
        return any(row.first_success is not None for row in self.rows)


def compare(
    runs: Sequence[str | os.PathLike[str]],
    *,
    reference: Sequence[str] | None = None,
    by_seed: bool = False,
) -> Comparison:
    """Compares evaluated runs: first, last and total return, score, difference, regret.

    Runs of the same agent are taken as its training seeds and joined into one row.

    Args:
        runs: folders of runs that `evaluate` has been through. Differences are to the agent of
            the first one.
        reference: names of the floors, baselines and ceilings to show; None shows all. Scores are
            measured on all of them.
        by_seed: one row for each run instead.

    Raises:
        RunFolderError: a run has not been evaluated.
        ConfigError: the runs were not evaluated in the same tasks.
        UnknownNameError: there is no such reference.
    """
    folders = unique_folders(runs)
    return compare_curves(read_run_curves(folders), reference=reference, by_seed=by_seed)


def compare_curves(
    curves: Iterable[Curve], *, reference: Sequence[str] | None = None, by_seed: bool = False
) -> Comparison:
    """The same for curves at hand, such as `evaluate` returns them.

    Raises:
        ConfigError: the curves are not from the same tasks.
        UnknownNameError: there is no such reference.
    """
    curves = list(curves)
    shown = {curve.agent for curve in choose_references(curves, reference)}
    lines = join_curves(_set_apart(curves) if by_seed else curves)
    plan = _plan(lines)
    estimate = estimate_from_means(plan.numbers, *map(_measured, lines))
    of_lines = (part.reshape(len(lines), len(NUMBERS)) for part in estimate)
    rows = [
        _row(line, list(map(Estimate, *parts)))
        for line, *parts in zip(lines, *of_lines, strict=True)
        if line.agent in shown
    ]
    names = [None if place is None else lines[place].label for place in plan.places]
    return Comparison(
        family=curves[0].family,
        split=curves[0].split,
        seed=curves[0].seed,
        num_tasks=curves[0].num_tasks,
        measure="total" if plan.measure == TOTAL else "last",
        floor=names[0],
        ceiling=names[1],
        base=names[2],
        rows=tuple(rows),
    )


def write_comparison(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Writes the table as a CSV file; the ends of intervals are columns of their own.

    Raises:
        RunFolderError: it cannot be written there.
    """
    common = ("family", "split", "seed", "num_tasks", "measure", "floor", "ceiling", "base")
    ends = [f"{name}{end}" for name in NUMBERS for end in ("", "_low", "_high")]
    write_table(
        Path(path),
        ["agent", "label", "role", "num_runs", *ends, "episodes", *common],
        (
            [
                *(row.agent, row.label, row.role, row.num_runs),
                *_cells(row),
                row.episodes,
                *(getattr(comparison, name) for name in common),
            ]
            for row in comparison.rows
        ),
    )


def unique_folders(runs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Each folder once, in order; a single path is taken as a list of one.

    Raises:
        ConfigError: there is none.
    """
    if isinstance(runs, str | os.PathLike):
        runs = [runs]
    folders = list({Path(run).resolve(): Path(run) for run in runs}.values())
    if not folders:
        raise ConfigError("There is nothing to show; name at least one run folder.")
    return folders


def _set_apart(curves: Sequence[Curve]) -> list[Curve]:
    """Labels that name the run, so that each agent's run stays a line of its own."""
    named = [
        replace(curve, label=f"{curve.label}, {curve.run}") if curve.role == "agent" else curve
        for curve in curves
    ]
    seen: Counter[tuple[str, str]] = Counter()
    for place, curve in enumerate(named):
        if curve.role == "agent":
            seen[curve.agent, curve.label] += 1
            if (again := seen[curve.agent, curve.label]) > 1:  # folders of one name
                named[place] = replace(curve, label=f"{curve.label} ({again})")
    return named


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Who is compared with whom, by places among the lines; None where there is nobody."""

    measure: int  # place of what score and difference speak of, among first, last and total
    floor: int | None
    ceiling: int | None
    base: int | None
    best: int | None  # whom regret is measured against
    complete: tuple[bool, ...]  # for each line, whether its total is one

    @property
    def places(self) -> tuple[int | None, int | None, int | None]:
        return self.floor, self.ceiling, self.base

    def numbers(self, *means: NDArray[np.float64]) -> NDArray[np.float64]:
        """Everything about every line from what was measured, [5, S] each.

        Returns:
            [L * 8, S], line by line in the order of `NUMBERS`; NaN where there is no such number.
        """
        nothing = np.full_like(means[0][0], np.nan)
        of_line = []
        for place, (first, last, total, *success) in enumerate(means):
            chosen = means[place][self.measure]
            score = difference = regret = nothing
            if self.floor is not None and self.ceiling is not None:
                ends = (means[end][self.measure] for end in (self.floor, self.ceiling))
                score = share_of_span(chosen, *ends)
            if self.base not in (None, place):
                difference = chosen - means[self.base][self.measure]
            if self.best is not None and self.measure == TOTAL:
                regret = means[self.best][TOTAL] - total
            summed = total if self.complete[place] else nothing
            of_line += [first, last, summed, score, difference, regret, *success]
        return np.stack(of_line)


def _plan(lines: Sequence[Line]) -> _Plan:
    same = len({len(line.episode) for line in lines}) == 1
    measure = TOTAL if same and all(line.is_complete for line in lines) else LAST
    worth = [float(_measured(line)[:, measure].mean()) for line in lines]
    floor, ceiling = bracket(lines, worth) or (None, None)
    ceilings = [i for i, line in enumerate(lines) if line.role == "ceiling"]
    return _Plan(
        measure=measure,
        floor=floor,
        ceiling=ceiling,
        base=next((i for i, line in enumerate(lines) if line.role == "agent"), None),
        best=max(ceilings, key=worth.__getitem__, default=None),
        complete=tuple(line.is_complete for line in lines),
    )


def _measured(line: Line) -> NDArray[np.float64]:
    """[R, 5, N]: return of the first and last episode and of all, success in the first and last.

    The interval of a sum is no sum of intervals: each task's total is one number.
    """
    ends = (values[:, place] for values in (line.returns, line.success) for place in (0, -1))
    first, last, *success = ends
    return np.stack([first, last, line.returns.sum(1), *success], axis=1)


def _row(line: Line, estimates: Sequence[Estimate]) -> ComparisonRow:
    found = (None if np.isnan(estimate).any() else estimate for estimate in estimates)
    numbers: dict[str, Any] = dict(zip(NUMBERS, found, strict=True))
    return ComparisonRow(
        agent=line.agent,
        label=line.label,
        role=line.role,
        num_runs=line.num_runs,
        episodes=line.last_episode,
        **numbers,
    )


def _cells(row: ComparisonRow) -> Iterator[float | str]:
    for name in NUMBERS:
        estimate: Estimate | None = getattr(row, name)
        yield from ("", "", "") if estimate is None else map(float, estimate)
