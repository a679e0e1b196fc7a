"""Means and their uncertainty: curves of several runs go in, joined lines and estimates come out.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from metarl.errors import ConfigError, ShapeError
from metarl.rows import Curve

RESAMPLES = 2000
"""the ends of a 95% interval are then off by about 3% of its width"""

ROLES = ("floor", "baseline", "agent", "ceiling")
"""from what anybody reaches to what nobody exceeds"""


class Estimate(NamedTuple):
    """A mean and the confidence interval around it."""

    mean: NDArray[np.float64]  # [P]
    low: NDArray[np.float64]  # [P]
    high: NDArray[np.float64]  # [P]


@dataclass(frozen=True, kw_only=True)
class Line:
    """All curves of one agent (its runs differ in the training seed) or of one reference."""

    agent: str
    label: str
    role: str
    episode: NDArray[np.int64]  # [P]
    returns: NDArray[np.float64]  # [R, P, N]

    @property
    def num_runs(self) -> int:
        """R, the runs that were joined."""
        return len(self.returns)

    @property
    def mean(self) -> NDArray[np.float64]:
        """[P] return of each episode, over runs and tasks."""
        mean: NDArray[np.float64] = self.returns.mean((0, 2))
        return mean


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """What one agent or reference earned; each number with its 95% interval, shape []."""

    agent: str
    label: str
    role: str
    num_runs: int
    first: Estimate
    """return of the first episode"""
    last: Estimate
    """return of the last episode"""
    total: Estimate | None
    """return of the whole trial; None where not every episode was measured"""


def bootstrap_mean(
    values: NDArray[np.floating], *, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Mean over runs and tasks, and its bootstrap percentile interval.

    Runs and tasks are crossed factors: every run lives in the same tasks. So each resample draws
    R runs and, independently, N tasks, both with replacement, and takes the mean over the R x N
    cells (the pigeonhole bootstrap). One resample serves all points, whose intervals are
    therefore as dependent as the curve is. A factor with a single level cannot be resampled:
    with one run the interval speaks of tasks only, and of one run in one task there is no
    interval, only `low = mean = high`.

    With few runs, the variance between them comes out too small by the factor (R - 1) / R, as in
    every bootstrap; what is peculiar to single cells is counted up to three times, so where that
    is most of the variance the interval is wider than it need be.

    Args:
        values: [R, P, N], the same N tasks in every run.
        confidence: probability that the interval covers the mean, in (0, 1).
        seed: of the resampling.

    Source: Owen 2007, doi:10.1214/07-AOAS122.
    """
    if values.ndim != 3 or 0 in values.shape:
        raise ShapeError(f"values must be [R, P, N], none of them 0; got {list(values.shape)}.")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence} must lie between 0 and 1, both excluded.")
    values = values.astype(np.float64)
    mean = values.mean((0, 2))
    runs, _, tasks = values.shape

    def resampled_mean(
        run: NDArray[np.int64], task: NDArray[np.int64], axis: int
    ) -> NDArray[np.float64]:
        """[P, S], from the runs [S, R] and the tasks [S, N] that were drawn in S resamples."""
        del axis  # always the last
        of_runs = values @ _shares(task, tasks).T  # [R, P, S]
        of_resamples: NDArray[np.float64] = np.einsum("rps,sr->ps", of_runs, _shares(run, runs))
        return of_resamples

    interval = stats.bootstrap(
        [_levels(runs), _levels(tasks)],
        resampled_mean,
        n_resamples=RESAMPLES,
        batch=max(1, 2_000_000 // tasks),  # 16 MB of drawn tasks at once
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    # Rounding must not push the mean of constants out of its own interval.
    return Estimate(mean, np.minimum(interval.low, mean), np.maximum(interval.high, mean))


def _levels(count: int) -> NDArray[np.int64]:
    """What is drawn from: 0 to count - 1; a single level twice, as scipy wants two at least."""
    return np.arange(count) if count > 1 else np.zeros(2, np.int64)


def _shares(drawn: NDArray[np.int64], levels: int) -> NDArray[np.float64]:
    """Of the draws [S, n] of each resample, the share that fell on each level, [S, levels]."""
    resamples, draws = drawn.shape
    cell = drawn + levels * np.arange(resamples)[:, None]
    counts = np.bincount(cell.ravel(), minlength=resamples * levels)
    shares: NDArray[np.float64] = counts.reshape(resamples, levels) / draws
    return shares


def join_curves(curves: Sequence[Curve]) -> list[Line]:
    """One line per agent and reference, in the order of `ROLES`, else as they come."""
    _require_comparable(curves)
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.agent, curve.label), []).append(curve)
    lines = [_line(group) for group in groups.values()]
    return sorted(lines, key=lambda line: ROLES.index(line.role))


def _line(group: Sequence[Curve]) -> Line:
    if group[0].role != "agent":
        # Each run brings the same references along; one that lived longer shows more.
        group = [max(group, key=lambda curve: len(curve.episode))]
    for curve in group:
        if not np.array_equal(curve.episode, group[0].episode):
            raise ConfigError(
                f"The runs {group[0].run!r} and {curve.run!r} of {curve.label} were measured at "
                f"different episodes, up to {group[0].episode[-1]} and {curve.episode[-1]}; "
                "evaluate both with the same number of episodes."
            )
    return Line(
        agent=group[0].agent,
        label=group[0].label,
        role=group[0].role,
        episode=group[0].episode,
        returns=np.stack([curve.returns for curve in group]),
    )


def _require_comparable(curves: Sequence[Curve]) -> None:
    """One family, and the very same tasks for everybody."""
    if not curves:
        raise ConfigError("There are no curves to show.")
    one = curves[0]
    for other in curves:
        if other.role not in ROLES:
            raise ConfigError(f"{other.role!r} is no role of a curve; use one of {ROLES}.")
        if other.family != one.family:
            raise ConfigError(
                f"{_whose(one)} lived in {one.family} and {_whose(other)} in {other.family}; "
                "one picture shows one family, so plot them separately."
            )
        if (other.split, other.seed, other.num_tasks) != (one.split, one.seed, one.num_tasks):
            raise ConfigError(
                f"{_whose(one)} was evaluated in {_tasks(one)}, {_whose(other)} in "
                f"{_tasks(other)}; only curves from the same tasks can be compared. Evaluate "
                "all runs with the same --num-tasks, --seed and --split."
            )


def _whose(curve: Curve) -> str:
    return f"{curve.label} of {curve.run!r}" if curve.run else curve.label


def _tasks(curve: Curve) -> str:
    return f"{curve.num_tasks} {curve.split} tasks of seed {curve.seed}"


def adaptation_table(curves: Iterable[Curve]) -> list[TableRow]:
    """First, last and total return of every agent and reference, floors first, ceilings last.

    Raises:
        ConfigError: the curves cannot be compared.
    """
    return [_table_row(line) for line in join_curves(list(curves))]


def _table_row(line: Line) -> TableRow:
    # The interval of a sum is not the sum of intervals: each task's total is one number.
    numbers = np.stack([line.returns[:, 0], line.returns[:, -1], line.returns.sum(1)], axis=1)
    estimate = bootstrap_mean(numbers)
    first, last, total = (Estimate(*parts) for parts in zip(*estimate, strict=True))
    complete = np.array_equal(line.episode, np.arange(1, len(line.episode) + 1))
    return TableRow(
        agent=line.agent,
        label=line.label,
        role=line.role,
        num_runs=line.num_runs,
        first=first,
        last=last,
        total=total if complete else None,
    )
