"""The text of a comparison's table: its columns with their cells, its title and its caption."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from metarl.results.bootstrap import Estimate
from metarl.results.comparison import Comparison, ComparisonRow
from metarl.text import visible

DECIMALS = (10, 1, 0.02)
"""half an interval below each of these needs one more decimal"""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of text; the cells are of all rows."""

    heading: str
    cells: Sequence[str]
    importance: int = 0
    """columns of higher importance are left out later"""

    @property
    def width(self) -> int:
        """Characters of the longest cell, or of the longest word of the heading."""
        return max(map(len, (*self.cells, *self.heading.split())), default=0)


def title(comparison: Comparison) -> str:
    """The family and the tasks of a comparison."""
    if comparison.several:
        return "Evaluations of one run in the tasks named in the labels"
    return (
        f"{comparison.family}, {comparison.num_tasks:,} {comparison.split} tasks, "
        f"seed {comparison.seed}"
    )


def number_cells(estimates: Sequence[Estimate | None]) -> list[str]:
    """Means with half the width of their intervals, such as `.49 ± .07`; `-` where undefined.

    All have the decimals that the narrowest interval needs, three at most.
    """
    known = [estimate for estimate in estimates if estimate is not None]
    halves = [half for half in map(_half_width, known) if half > 0]
    narrowest = min(halves, default=0.05)
    decimals = sum(narrowest < limit for limit in DECIMALS)
    return ["-" if one is None else _cell(one, decimals) for one in estimates]


def _half_width(estimate: Estimate) -> float:
    return float(estimate.high - estimate.low) / 2


def _cell(estimate: Estimate, decimals: int) -> str:
    half = _half_width(estimate)
    mean = _short(float(estimate.mean), decimals)
    return mean if half == 0 else f"{mean} ± {_short(half, decimals)}"


def _short(number: float, decimals: int) -> str:
    """A number without a zero before the point."""
    text = f"{round(number, decimals) + 0.0:.{decimals}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def columns(comparison: Comparison, differences: bool) -> Iterator[Column]:
    """All columns from left to right, the labels first."""
    rows = comparison.rows
    yield Column(heading="agent", cells=[visible(row.label) for row in rows])
    yield Column(heading="role", cells=[row.role for row in rows], importance=6)
    seeds = [str(row.num_runs) if row.role == "agent" else "" for row in rows]
    yield Column(heading="seeds", cells=seeds, importance=4)
    if len({row.episodes for row in rows}) > 1:
        yield Column(heading="episodes", cells=[str(row.episodes) for row in rows], importance=7)
    whole = comparison.measure == "total"
    yield _estimates("first episode", rows, "first", 2)
    yield _estimates("last episode", rows, "last", 5 if whole else 10)
    if whole or any(row.total is not None for row in rows):
        yield _estimates("whole trial", rows, "total", 10 if whole else 3)
    yield _estimates("score", rows, "score", 9)
    if differences:
        yield _estimates("difference", rows, "difference", 8)
    if comparison.defines_success:
        yield _estimates("first success", rows, "first_success", 1)
        yield _estimates("last success", rows, "last_success", 3)


def _estimates(heading: str, rows: Sequence[ComparisonRow], field: str, importance: int) -> Column:
    cells = number_cells([getattr(row, field) for row in rows])
    return Column(heading=heading, cells=cells, importance=importance)


def caption(comparison: Comparison, shown: Sequence[str]) -> str:
    """What the columns with these headings show."""
    measure = "whole trial" if comparison.measure == "total" else "last episode"
    parts = ["mean return ± half the 95% bootstrap interval"]
    if comparison.at is not None:
        parts.append(f"last: in the last measured episode up to episode {comparison.at}")
    if comparison.several:
        parts.append("scores and differences: within the tasks of one evaluation")
    elif "score" in shown and comparison.floor is not None and comparison.ceiling is not None:
        parts.append(f"score of the {measure}: 0 {comparison.floor}, 1 {comparison.ceiling}")
    if "difference" in shown and comparison.base is not None and not comparison.several:
        parts.append(f"difference of the {measure} to {comparison.base}, task by task")
    if any("success" in heading for heading in shown):
        parts.append("success: share of tasks solved at some step of the episode")
    if any(row.total is None for row in comparison.rows):
        parts.append("no whole trial and no regret where not every episode was measured")
    return "; ".join(parts)
