from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from metarl.errors import ConfigError, ShapeError, UnknownNameError
from metarl.results.bootstrap import (
    RESAMPLES,
    bootstrap_interquartile_mean,
    bootstrap_mean,
    choose_references,
    estimate_from_means,
    join_curves,
)
from tests.results.test_adaptation_curves import make_curve


def test_interval_agrees_with_normal_theory_for_many_tasks():
    values = np.random.default_rng(0).exponential(2.0, (1, 3, 4000))
    mean, low, high = bootstrap_mean(values)
    half = 1.96 * values[0].std(1, ddof=1) / np.sqrt(4000)
    np.testing.assert_allclose(mean, values[0].mean(1))
    np.testing.assert_allclose(high - mean, half, rtol=0.08)
    np.testing.assert_allclose(mean - low, half, rtol=0.08)


@pytest.mark.parametrize(("confidence", "z"), [(0.5, 0.6745), (0.99, 2.576)])
def test_confidence_sets_the_width(confidence, z):
    values = np.random.default_rng(0).standard_normal((1, 4, 2000))
    _, low, high = bootstrap_mean(values, confidence=confidence)
    half = z * values[0].std(1) / np.sqrt(2000)
    np.testing.assert_allclose((high - low) / 2, half, rtol=0.1)


@pytest.mark.parametrize("factor", ["runs", "tasks"])
def test_each_crossed_factor_contributes_its_variance(factor):
    # All variance is in one factor with 400 levels, the other has 3: the interval must be that of
    # 400 independent numbers, unaffected by the 3.
    effect = np.random.default_rng(0).standard_normal(400)
    values = np.broadcast_to(effect, (3, 1, 400))
    if factor == "runs":
        values = values.transpose(2, 1, 0)
    mean, low, high = bootstrap_mean(values)
    half = 1.96 * effect.std() / np.sqrt(400)
    np.testing.assert_allclose([high - mean, mean - low], half, rtol=0.08)


def test_tasks_are_resampled_together_in_all_runs():
    # Two runs with opposite signs in each task: a resample with both runs has mean 0, one with the
    # same run twice has not, so the interval is +-mean(effect).
    effect = 5.0 + np.random.default_rng(0).standard_normal(1000)
    values = np.stack([effect, -effect])[:, None]
    mean, low, high = bootstrap_mean(values)
    np.testing.assert_allclose(mean, 0.0, atol=1e-12)
    np.testing.assert_allclose([low, high], [[-5.0], [5.0]], atol=0.2)


@pytest.mark.parametrize(("runs", "lowest", "highest"), [(1, 0.90, 0.975), (8, 0.90, 1.0)])
def test_interval_has_the_stated_coverage(runs, lowest, highest):
    # The points are 300 independent repetitions; common resamples do not affect the coverage.
    rng = np.random.default_rng(1)
    of_run = 0.5 * rng.standard_normal((runs, 300, 1)) if runs > 1 else 0.0
    values = of_run + rng.standard_normal((1, 300, 60)) + rng.standard_normal((runs, 300, 60))
    _, low, high = bootstrap_mean(values)
    assert lowest <= ((low <= 0) & (high >= 0)).mean() <= highest


@pytest.mark.parametrize("shape", [(1, 2, 1), (3, 2, 1), (1, 2, 5), (3, 2, 7)])
def test_constants_have_an_interval_of_zero_width(shape):
    mean, low, high = bootstrap_mean(np.full(shape, 0.1))
    np.testing.assert_allclose([mean, low, high], 0.1, rtol=1e-12)
    assert (low <= mean).all()
    assert (mean <= high).all()


def test_the_interval_of_a_single_number_is_that_number():
    mean, low, high = bootstrap_mean(np.array([[[3.5], [-1.0]]]))
    assert mean.tolist() == low.tolist() == high.tolist() == [3.5, -1.0]


def test_interval_is_reproducible_and_depends_on_the_seed():
    values = np.random.default_rng(0).standard_normal((2, 3, 50))
    np.testing.assert_array_equal(bootstrap_mean(values, seed=4), bootstrap_mean(values, seed=4))
    assert (bootstrap_mean(values, seed=4).low != bootstrap_mean(values, seed=5).low).all()


@pytest.mark.parametrize("shape", [(3, 4), (0, 3, 4), (1, 3, 0)])
def test_wrong_axes_are_refused(shape):
    with pytest.raises(ShapeError, match=r"must be \[R, P, N\]"):
        bootstrap_mean(np.zeros(shape))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_outside_0_to_1_is_refused(confidence):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        bootstrap_mean(np.zeros((1, 1, 2)), confidence=confidence)


def test_runs_of_an_agent_are_joined_and_repeated_references_are_merged():
    floor = make_curve(agent="random", label="random policy", role="floor", run="", seed=7)
    runs = [replace(make_curve(), run=f"run{i}", returns=np.full((3, 4), float(i))) for i in (0, 4)]
    joined = join_curves([runs[0], floor, runs[1], floor])
    assert [curve.label for curve in joined] == ["random policy", 'RL^2, "GRU"']
    assert [curve.num_runs for curve in joined] == [1, 2]
    assert joined[1].mean.tolist() == [2.0, 2.0, 2.0]


def test_joined_curves_are_ordered_from_floor_to_ceiling():
    roles = ["ceiling", "agent", "baseline", "floor"]
    joined = join_curves([make_curve(agent=role, role=role) for role in roles])
    assert [curve.role for curve in joined] == ["floor", "baseline", "agent", "ceiling"]


def test_the_longest_of_equal_references_is_kept():
    of = {"agent": "random", "role": "floor", "run": ""}
    (joined,) = join_curves([make_curve(points=2, **of), make_curve(points=5, **of)])
    assert joined.episode.tolist() == [1, 2, 3, 4, 5]
    sparse = replace(make_curve(points=2, **of), episode=np.array([1, 21]))
    for curves in ([make_curve(points=5, **of), sparse], [sparse, make_curve(points=5, **of)]):
        (joined,) = join_curves(curves)
        assert joined.episode.tolist() == [1, 21]
    complete = make_curve(points=21, **of)
    (joined,) = join_curves([sparse, complete])
    assert len(joined.episode) == 21


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (make_curve(family="metarl/GoalBandit-v0"), "one figure shows one family"),
        (make_curve(tasks=5), "4 test tasks of seed 7, .* 5 test tasks .* same --num-tasks"),
        (replace(make_curve(), seed=8), "seed 7, .* seed 8"),
        (make_curve(split="train"), "4 test tasks .* 4 train tasks"),
        (
            make_curve(points=2),
            "different episodes, up to 3 and 2; .*adaptation steps and rollouts",
        ),
        (make_curve(role="roof"), "'roof' is not a role"),
    ],
)
def test_curves_that_cannot_be_compared_are_refused(other, complaint):
    with pytest.raises(ConfigError, match=complaint):
        join_curves([make_curve(), other])


def test_task_difficulty_cancels_in_differences_because_tasks_are_drawn_together():
    rng = np.random.default_rng(0)
    task_effect = 100.0 * rng.standard_normal(500)
    one, other = (task_effect + rng.standard_normal((runs, 1, 500)) for runs in (2, 3))
    difference = estimate_from_means(np.subtract, one, other)
    single = bootstrap_mean(one)
    assert (difference.high - difference.low)[0] < 0.5
    assert (single.high - single.low)[0] > 10.0  # for one agent, task difficulty is noise


def test_runs_of_different_agents_are_drawn_independently():
    # The run effects are 10 and -10 in both agents; drawn together they would cancel exactly.
    effect = np.array([10.0, -10.0])[:, None, None] + np.zeros((2, 1, 5))
    estimate = estimate_from_means(np.subtract, effect, effect)
    assert estimate.mean == [0.0]
    np.testing.assert_allclose([estimate.low, estimate.high], [[-20.0], [20.0]])


def test_a_statistic_may_be_undefined_at_some_points():
    values = np.stack([np.full((1, 9), 2.0), np.full((1, 9), -1.0)], axis=1)
    with np.errstate(invalid="ignore"):
        estimate = estimate_from_means(np.sqrt, values)
    np.testing.assert_allclose([part[0] for part in estimate], np.sqrt(2.0))
    assert np.isnan([part[1] for part in estimate]).all()


def test_only_the_same_tasks_can_be_compared():
    with pytest.raises(ShapeError, match="got 4 and 5 tasks"):
        estimate_from_means(np.subtract, np.zeros((1, 1, 4)), np.zeros((1, 1, 5)))


def test_references_are_chosen_by_name():
    curves = [make_curve(), *(make_curve(agent=name, role="floor") for name in ("a", "b"))]
    assert choose_references(curves, None) == curves
    assert choose_references(curves, ["b"]) == [curves[0], curves[2]]
    assert choose_references(curves, []) == [curves[0]]
    with pytest.raises(UnknownNameError, match="'c'; the rows hold a, b"):
        choose_references(curves, ["c"])


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (4, 1), (10, 1), (5, 3), (4, 6)])
def test_interquartile_mean_is_that_of_the_definition(shape):
    scores = np.random.default_rng(2).exponential(1.0, shape)
    ordered = sorted(scores.ravel())
    removed = len(ordered) // 4
    expected = np.mean(ordered[removed : len(ordered) - removed])
    estimate = bootstrap_interquartile_mean(scores)
    np.testing.assert_allclose(estimate.mean, expected, rtol=1e-12)
    np.testing.assert_allclose(estimate.mean, stats.trim_mean(scores.ravel(), 0.25), rtol=1e-12)
    assert estimate.low <= estimate.mean <= estimate.high


@pytest.mark.parametrize("shape", [(4, 1), (5, 3)])
def test_its_interval_is_that_of_a_loop_over_resamples_and_families(shape):
    scores = np.random.default_rng(3).standard_normal(shape)
    runs, families = shape
    drawn = np.random.default_rng(7).integers(runs, size=(RESAMPLES, runs, families))
    means = []
    for resample in drawn:
        chosen = [scores[resample[run, m], m] for m in range(families) for run in range(runs)]
        means.append(stats.trim_mean(chosen, 0.25))
    estimate = bootstrap_interquartile_mean(scores, confidence=0.8, seed=7)
    low, high = np.quantile(means, [0.1, 0.9])
    np.testing.assert_allclose([estimate.low, estimate.high], [low, high], rtol=1e-12)


def test_families_are_strata_of_the_interquartile_mean():
    # Each family has one score in all runs, so a resample within families always gives the same.
    scores = np.broadcast_to(np.array([0.0, 1.0, 5.0, 9.0]), (6, 4))
    assert len(set(map(float, bootstrap_interquartile_mean(scores)))) == 1
    # Without the families, the same scores vary from resample to resample.
    _, low, high = bootstrap_interquartile_mean(scores.reshape(-1, 1))
    assert high - low > 1


def test_the_interval_of_a_middle_half_ignores_outliers_that_the_mean_does_not():
    scores = np.array([0.0, 1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 50.0])[:, None]
    estimate = bootstrap_interquartile_mean(scores)
    assert 0.9 < float(estimate.mean) < 1.1
    assert float(bootstrap_mean(scores[:, None]).mean[0]) > 6


@pytest.mark.parametrize("shape", [(0, 1), (3, 0), (3,)])
def test_an_interquartile_mean_needs_scores(shape):
    with pytest.raises(ShapeError, match=r"scores must be \[R, M\]"):
        bootstrap_interquartile_mean(np.zeros(shape))
    with pytest.raises(ConfigError, match="confidence=1"):
        bootstrap_interquartile_mean(np.ones((2, 1)), confidence=1)
