"""Curves of several runs joined by agent, and means with bootstrap confidence intervals.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from metarl.errors import ConfigError, ShapeError, UnknownNameError
from metarl.field_types import require_instance
from metarl.results.adaptation_curves import Curve
from metarl.results.step_log import StepLog

RESAMPLES = 2000
"""the ends of a 95% interval are then off by about 3% of its width"""

MAX_DRAWS = 2_000_000
"""task indices drawn in one batch of resamples: 16 MB"""

CurveOrLog = TypeVar("CurveOrLog", Curve, StepLog)

ROLES = ("floor", "baseline", "agent", "ceiling")
"""in the order of tables and legends"""


class Estimate(NamedTuple):
    """A mean and the confidence interval around it."""

    mean: NDArray[np.float64]  # [P]
    low: NDArray[np.float64]  # [P]
    high: NDArray[np.float64]  # [P]


@dataclass(frozen=True, kw_only=True)
class JoinedCurve:
    """All curves of one agent (its runs differ in the training seed) or of one reference."""

    agent: str
    label: str
    role: str
    episode: NDArray[np.int64]  # [P]
    returns: NDArray[np.float64]  # [R, P, N]
    success: NDArray[np.float64]  # [R, P, N]; NaN where the family does not define it

    @property
    def num_runs(self) -> int:
        """R, the number of joined runs."""
        return len(self.returns)

    @property
    def last_episode(self) -> int:
        """Number of the last measured episode in the task, from 1 on."""
        return int(self.episode[-1])

    @property
    def is_complete(self) -> bool:
        """Whether every episode from the first on was measured."""
        return np.array_equal(self.episode, np.arange(1, len(self.episode) + 1))

    @property
    def mean(self) -> NDArray[np.float64]:
        """[P] return of each episode, over runs and tasks."""
        mean: NDArray[np.float64] = self.returns.mean((0, 2))
        return mean


def bootstrap_mean(
    values: NDArray[np.floating], *, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Mean over runs and tasks, and its bootstrap percentile interval.

    Args:
        values: [R, P, N], the same N tasks in every run.
        confidence: probability that the interval covers the mean, in (0, 1).
        seed: of the resampling.
    """
    require_instance("values", values, np.ndarray, "an array [R, P, N]")
    return estimate_from_means(lambda means: means, values, confidence=confidence, seed=seed)


def estimate_from_means(
    statistic: Callable[..., NDArray[np.float64]],
    *values: NDArray[np.floating],
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A function of means over runs and tasks, and its bootstrap percentile interval.

    Runs and tasks are crossed factors, because all runs are evaluated in the same tasks. Each
    resample draws R runs and, independently, N tasks, both with replacement, and takes the mean
    over the R x N cells (the pigeonhole bootstrap). All points use the same resamples, so their
    intervals are as dependent as the curve is. All `values` use the same drawn tasks, because
    their tasks are the same; runs are drawn separately for each of `values`, because seed 0 of
    one agent is unrelated to seed 0 of another. A factor with a single level cannot be resampled:
    with one run the interval covers variation between tasks only, and with one run in one task
    `low = mean = high`.

    With few runs, the variance between them is underestimated by the factor (R - 1) / R, as in
    every bootstrap. The variance of single cells is counted up to three times; where it dominates,
    the interval is too wide.

    Args:
        statistic: maps the means of each of `values`, [P, S] for S resamples, to [Q, S].
        values: [R, P, N] each; R and P may differ among them, the N tasks are the same.
        confidence: probability that the interval covers the true value, in (0, 1).
        seed: of the resampling.

    Returns:
        [Q] each; NaN where the statistic is NaN in any resample.

    Source: Owen 2007, doi:10.1214/07-AOAS122.
    """
    _require_same_tasks(values)
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence} must lie between 0 and 1, both excluded.")
    values = tuple(value.astype(np.float64) for value in values)
    runs, tasks = [len(value) for value in values], values[0].shape[2]

    def resampled(*drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        """[Q, S], from the drawn runs [S, R] of each of `values` and the drawn tasks [S, N]."""
        del axis  # always the last
        task = _shares(drawn[-1], tasks)
        pairs = zip(values, map(_shares, drawn[:-1], runs), strict=True)
        return statistic(*(np.einsum("rps,sr->ps", value @ task.T, run) for value, run in pairs))

    with warnings.catch_warnings():
        # A statistic that is undefined in some resample gives NaN, as documented.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            [*map(_levels, runs), _levels(tasks)],
            resampled,
            n_resamples=RESAMPLES,
            batch=max(1, MAX_DRAWS // tasks),
            vectorized=True,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    point = statistic(*(value.mean((0, 2))[:, None] for value in values))[:, 0]
    # Rounding errors must not place the mean of constants outside its interval.
    return Estimate(point, np.minimum(interval.low, point), np.maximum(interval.high, point))


def bootstrap_interquartile_mean(
    scores: NDArray[np.floating], *, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """Interquartile mean over runs and families, and its stratified bootstrap interval.

    The mean of the scores that are left when the lowest and the highest quarter of all are removed,
    each rounded down to whole scores: of 4 seeds the mean of the middle two, of 3 that of all. Each
    of `RESAMPLES` resamples draws R runs with replacement, separately in each family; the interval
    lies between percentiles of their interquartile means. With one run `low = mean = high`.

    Args:
        scores: [R, M], of R runs (seeds) in each of M families.
        confidence: probability that the interval covers the true value, in (0, 1).
        seed: of the resampling.

    Raises:
        ConfigError: the confidence is out of range.
        ShapeError: there is no score.

    Source: Agarwal et al. 2021, arXiv:2108.13264, section 4.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence={confidence} must lie between 0 and 1, both excluded.")
    if scores.ndim != 2 or 0 in scores.shape:
        raise ShapeError(f"scores must be [R, M], neither of them 0; got {list(scores.shape)}.")
    runs, families = scores.shape
    drawn = np.random.default_rng(seed).integers(runs, size=(RESAMPLES, runs, families))
    resampled = np.take_along_axis(scores[None].astype(np.float64), drawn, axis=1)
    means = _interquartile_mean(resampled.reshape(RESAMPLES, -1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(_interquartile_mean(scores.reshape(1, -1).astype(np.float64))[0], low, high)


def _interquartile_mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[S] mean of the middle half of each row of [S, n]."""
    removed = scores.shape[1] // 4
    mean: NDArray[np.float64] = np.sort(scores)[:, removed : scores.shape[1] - removed].mean(1)
    return mean


def _levels(count: int) -> NDArray[np.int64]:
    """The levels to draw from: 0 to count - 1; a single level twice, as scipy needs two."""
    return np.arange(count) if count > 1 else np.zeros(2, np.int64)


def _shares(drawn: NDArray[np.int64], levels: int) -> NDArray[np.float64]:
    """[S, levels] share of the draws [S, n] of each resample that fell on each level."""
    resamples, draws = drawn.shape
    cell = drawn + levels * np.arange(resamples)[:, None]
    counts = np.bincount(cell.ravel(), minlength=resamples * levels)
    shares: NDArray[np.float64] = counts.reshape(resamples, levels) / draws
    return shares


def _require_same_tasks(values: Sequence[NDArray[np.floating]]) -> None:
    for value in values:
        if value.ndim != 3 or 0 in value.shape:
            raise ShapeError(f"values must be [R, P, N], none of them 0; got {list(value.shape)}.")
        if value.shape[2] != values[0].shape[2]:
            raise ShapeError(
                f"Only returns in the same tasks can be compared; got {values[0].shape[2]} and "
                f"{value.shape[2]} tasks on the last axis."
            )


def task_sets(curves: Sequence[Curve]) -> list[list[Curve]]:
    """The curves grouped by family and tasks, if all agents are one run; else all in one group.

    Several evaluations of one run may be shown next to each other, those of different runs only if
    they are of the same tasks.
    """
    if len({curve.run for curve in curves if curve.role == "agent"}) != 1:
        return [list(curves)]
    groups: dict[tuple[object, ...], list[Curve]] = {}
    for curve in curves:
        key = curve.family, curve.split, curve.seed, curve.num_tasks
        groups.setdefault(key, []).append(curve)
    return list(groups.values())


def join_curves(curves: Sequence[Curve]) -> list[JoinedCurve]:
    """One joined curve per agent and reference, in the order of `ROLES`, else of the input."""
    _require_comparable(curves)
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in curves:
        groups.setdefault((curve.agent, curve.label), []).append(curve)
    joined = [_join(group) for group in groups.values()]
    return sorted(joined, key=lambda curve: ROLES.index(curve.role))


def choose_references(
    curves: Sequence[CurveOrLog], reference: Sequence[str] | None
) -> list[CurveOrLog]:
    """All agents, and the floors, baselines and ceilings with these names; None keeps all.

    Raises:
        UnknownNameError: the curves hold no such reference.
    """
    known = sorted({curve.agent for curve in curves if curve.role != "agent"})
    for name in reference or ():
        if name not in known:
            raise UnknownNameError(
                f"No reference is called {name!r}; the rows hold {', '.join(known) or 'none'}."
            )
    return [
        curve
        for curve in curves
        if curve.role == "agent" or reference is None or curve.agent in reference
    ]


def _join(group: Sequence[Curve]) -> JoinedCurve:
    if group[0].role != "agent":
        # Each run's file repeats the references; the copy that covers the most episodes is kept.
        group = [max(group, key=lambda curve: (curve.episode[-1], len(curve.episode)))]
    for curve in group:
        if not np.array_equal(curve.episode, group[0].episode):
            raise ConfigError(
                f"The runs {group[0].run!r} and {curve.run!r} of {curve.label} were measured at "
                f"different episodes, up to {group[0].episode[-1]} and {curve.episode[-1]}; "
                "evaluate both with the same number of episodes, adaptation steps and rollouts."
            )
    return JoinedCurve(
        agent=group[0].agent,
        label=group[0].label,
        role=group[0].role,
        episode=group[0].episode,
        returns=np.stack([curve.returns for curve in group]),
        success=np.stack([curve.success for curve in group]),
    )


def _require_comparable(curves: Sequence[Curve]) -> None:
    """Raises `ConfigError` unless all curves are of one family and the same tasks."""
    if not curves:
        raise ConfigError("There are no curves to show.")
    one = curves[0]
    for other in curves:
        if other.role not in ROLES:
            raise ConfigError(f"{other.role!r} is not a role of a curve; use one of {ROLES}.")
        if other.family != one.family:
            raise ConfigError(
                f"{_source(one)} was evaluated on {one.family} and {_source(other)} on "
                f"{other.family}; one figure shows one family, so plot them separately."
            )
        if (other.split, other.seed, other.num_tasks) != (one.split, one.seed, one.num_tasks):
            raise ConfigError(
                f"{_source(one)} was evaluated in {_tasks(one)}, {_source(other)} in "
                f"{_tasks(other)}; only curves from the same tasks can be compared. Evaluate "
                "all runs with the same --num-tasks, --seed and --split."
            )


def _source(curve: Curve) -> str:
    return f"{curve.label} of {curve.run!r}" if curve.run else curve.label


def _tasks(curve: Curve) -> str:
    return f"{curve.num_tasks} {curve.split} tasks of seed {curve.seed}"
