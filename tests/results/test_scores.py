from dataclasses import replace

import numpy as np
import pytest

from metarl.errors import ConfigError
from metarl.results.bootstrap import join_curves
from metarl.results.scores import (
    bracket,
    cumulative_regret,
    normalised_score,
    paired_difference,
    regret_reference,
    share_of_span,
)
from tests.results.test_curves import make_curve


def line(*heights, tasks=4, episode=None, **names):
    """A line of one run, with these returns in all tasks."""
    curve = make_curve(points=len(heights), tasks=tasks, **names)
    curve = replace(curve, returns=np.array(heights)[:, None] + np.zeros((1, tasks)))
    (joined,) = join_curves([curve if episode is None else replace(curve, episode=episode)])
    return joined


def noisy(mean, runs, seed):
    """[R, 1, N] returns whose tasks differ a hundred times more than the agents do."""
    ease = 100.0 * np.random.default_rng(99).standard_normal(300)
    own = np.random.default_rng(seed).standard_normal((runs, 1, 300))
    return mean + ease + own


def test_score_is_zero_on_the_floor_and_one_on_the_ceiling():
    floor, ceiling = noisy(0.0, 1, 0), noisy(10.0, 1, 1)
    np.testing.assert_allclose(normalised_score(floor, floor, ceiling), 0.0, atol=1e-12)
    np.testing.assert_allclose(normalised_score(ceiling, floor, ceiling), 1.0, atol=1e-12)


def test_score_is_the_ratio_of_mean_distances():
    agent, floor, ceiling = noisy(6.0, 3, 2), noisy(0.0, 1, 0), noisy(10.0, 1, 1)
    score = normalised_score(agent, floor, ceiling)
    by_definition = (agent.mean() - floor.mean()) / (ceiling.mean() - floor.mean())
    np.testing.assert_allclose(score.mean, [by_definition])
    # Each mean alone is known to +-11 only; in the same tasks the share is known to +-0.03.
    assert 0.005 < score.high[0] - score.low[0] < 0.08


def test_score_does_not_depend_on_units():
    agent, floor, ceiling = noisy(6.0, 2, 2), noisy(0.0, 1, 0), noisy(10.0, 1, 1)
    one = normalised_score(agent, floor, ceiling)
    other = normalised_score(*(3.0 * returns - 7.0 for returns in (agent, floor, ceiling)))
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_score_is_undefined_where_the_ceiling_is_not_above_the_floor():
    agent, floor = noisy(0.0, 2, 2), noisy(0.0, 1, 0)
    assert np.isnan(normalised_score(agent, floor, floor)).all()
    assert share_of_span(np.array([3.0]), np.array([1.0]), np.array([5.0])) == [0.5]


def test_paired_difference_has_the_interval_of_the_differences():
    one, other = noisy(3.0, 1, 1), noisy(1.0, 1, 2)
    difference = paired_difference(one, other)
    apart = (one - other)[0, 0]
    half = 1.96 * apart.std(ddof=1) / np.sqrt(300)
    np.testing.assert_allclose(difference.mean, [apart.mean()])
    np.testing.assert_allclose(difference.high - difference.mean, half, rtol=0.1)
    np.testing.assert_allclose(difference.mean - difference.low, half, rtol=0.1)


def test_paired_difference_is_antisymmetric_and_takes_unequal_numbers_of_runs():
    one, other = noisy(3.0, 2, 1), noisy(1.0, 5, 2)
    forth, back = paired_difference(one, other), paired_difference(other, one)
    np.testing.assert_allclose(forth.mean, -back.mean)
    np.testing.assert_allclose([forth.low, forth.high], [-back.high, -back.low], atol=0.1)
    assert forth.low[0] > 0  # what no interval of either agent alone would say


def test_regret_is_the_running_sum_of_what_was_lost():
    agent, best = line(0.2, 0.5, 1.0), line(0.9, 0.9, 0.8, role="ceiling")
    regret = cumulative_regret(agent, best)
    # .9 - .2 = .7; .7 + (.9 - .5) = 1.1; 1.1 + (.8 - 1.) = .9
    np.testing.assert_allclose(regret[0, :, 0], [0.7, 1.1, 0.9])
    assert regret.shape == (1, 3, 4)


def test_regret_against_the_best_arm_is_the_regret_of_the_textbook():
    # 2 arms, p = .8 and .3; the agent pulls the second, then the first. Over many tasks the mean
    # of realised rewards under common luck must approach the sum of gaps: .5, then .5 + 0.
    luck = np.random.default_rng(0).random((2, 200_000))
    pulled = np.array([0.3, 0.8])[:, None]
    agent = replace(line(0.0, 0.0), returns=(luck < pulled).astype(float)[None])
    best = replace(line(0.0, 0.0), returns=(luck < 0.8).astype(float)[None])
    regret = cumulative_regret(agent, best)
    np.testing.assert_allclose(regret.mean((0, 2)), [0.5, 0.5], atol=0.005)
    assert (np.diff(regret, axis=1) == 0).all()  # the same arm and the same luck: no noise at all


def test_regret_needs_every_episode():
    skipped = line(0.1, 0.2, episode=np.array([1, 21]))
    with pytest.raises(ConfigError, match=r"episodes 1, 21: regret adds up all .* Leave out"):
        cumulative_regret(skipped, line(1.0, 1.0))
    many = line(*[0.1] * 40, episode=np.arange(40) * 3 + 1)
    with pytest.raises(ConfigError, match=r"the episodes 1, 4, 7, 10, 13, 16, \.\.\., 118: regr"):
        cumulative_regret(many, line(1.0, 1.0))
    with pytest.raises(ConfigError, match=r"lived 2 episodes and .* 3"):
        cumulative_regret(line(0.1, 0.2), line(1.0, 1.0, 1.0))


ROLES = ["floor", "floor", "baseline", "agent", "ceiling", "ceiling"]


def test_bracket_is_the_highest_floor_and_the_lowest_ceiling():
    lines = [line(0.0, role=role) for role in ROLES]
    assert bracket(lines, [-60.0, -38.0, -20.0, -2.0, -0.5, -1.0]) == (1, 5)
    assert bracket(lines[:4], [0.0] * 4) is None
    assert bracket(lines[2:], [0.0] * 4) is None


def test_bracket_is_made_of_those_who_lived_as_long_as_anybody():
    lines = [line(0.0, 0.0, role=role) for role in ROLES]
    longer = np.array([1, 21])
    worth = [-60.0, -38.0, -20.0, -2.0, -0.5, -1.0]
    lived = [0, 3, 4]  # the lower floor, the agent, the higher ceiling
    for i in lived:
        lines[i] = line(0.0, 0.0, role=ROLES[i], episode=longer)
    assert bracket(lines, worth) == (0, 4)
    assert bracket(lines[1:4] + lines[5:], worth[1:4] + worth[5:]) is None


def test_regret_is_measured_against_the_highest_ceiling():
    ceilings = [line(height, label=str(height), role="ceiling") for height in (6.6, 8.3, 7.0)]
    assert regret_reference([line(9.0), *ceilings]).label == "8.3"
    with pytest.raises(ConfigError, match="hold no ceiling; evaluate with"):
        regret_reference([line(9.0)])
