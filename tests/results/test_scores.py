from dataclasses import replace

import numpy as np
import pytest

from metarl.errors import ConfigError
from metarl.results.bootstrap import join_curves
from metarl.results.scores import (
    cumulative_regret,
    normalised_score,
    regret_reference,
    score_references,
)
from tests.results.test_adaptation_curves import make_curve


def constant_curve(*returns, tasks=4, episode=None, **names):
    """The joined curve of one run with these returns in all tasks."""
    curve = make_curve(points=len(returns), tasks=tasks, **names)
    curve = replace(curve, returns=np.array(returns)[:, None] + np.zeros((1, tasks)))
    (joined,) = join_curves([curve if episode is None else replace(curve, episode=episode)])
    return joined


def test_score_is_zero_on_the_floor_and_one_on_the_ceiling():
    floor, ceiling = np.array([1.0, -7.0]), np.array([5.0, 2.0])
    assert normalised_score(floor, floor, ceiling).tolist() == [0.0, 0.0]
    assert normalised_score(ceiling, floor, ceiling).tolist() == [1.0, 1.0]
    assert normalised_score(np.array([3.0]), floor[:1], ceiling[:1]) == [0.5]


def test_score_does_not_depend_on_units():
    returns = np.array([[6.0], [-1.0], [10.0]])  # agent, floor, ceiling
    np.testing.assert_allclose(
        normalised_score(*returns), normalised_score(*(3.0 * returns - 7.0)), rtol=1e-12
    )


def test_score_is_undefined_where_the_ceiling_is_not_above_the_floor():
    score = normalised_score(np.array([0.0, 0.0]), np.array([1.0, 1.0]), np.array([1.0, 0.5]))
    assert np.isnan(score).all()


def test_regret_is_the_cumulative_difference_to_the_ceiling():
    agent, best = constant_curve(0.2, 0.5, 1.0), constant_curve(0.9, 0.9, 0.8, role="ceiling")
    regret = cumulative_regret(agent, best)
    # .9 - .2 = .7; .7 + (.9 - .5) = 1.1; 1.1 + (.8 - 1.) = .9
    np.testing.assert_allclose(regret[0, :, 0], [0.7, 1.1, 0.9])
    assert regret.shape == (1, 3, 4)


def test_regret_against_the_best_arm_is_the_textbook_regret():
    # 2 arms, p = .8 and .3; the agent pulls the second, then the first. Over many tasks the mean
    # of realised rewards under common noise must approach the sum of gaps: .5, then .5 + 0.
    noise = np.random.default_rng(0).random((2, 200_000))
    pulled = np.array([0.3, 0.8])[:, None]
    two_pulls = constant_curve(0.0, 0.0)
    agent = replace(two_pulls, returns=(noise < pulled).astype(float)[None])
    best = replace(two_pulls, returns=(noise < 0.8).astype(float)[None])
    regret = cumulative_regret(agent, best)
    np.testing.assert_allclose(regret.mean((0, 2)), [0.5, 0.5], atol=0.005)
    assert (np.diff(regret, axis=1) == 0).all()  # same arm, same noise: the regret is exactly 0


def test_regret_requires_every_episode():
    skipped = constant_curve(0.1, 0.2, episode=np.array([1, 21]))
    with pytest.raises(ConfigError, match=r"episodes 1, 21: regret adds up all .* Leave out"):
        cumulative_regret(skipped, constant_curve(1.0, 1.0))
    many = constant_curve(*[0.1] * 40, episode=np.arange(40) * 3 + 1)
    with pytest.raises(ConfigError, match=r"the episodes 1, 4, 7, 10, 13, 16, \.\.\., 118: regr"):
        cumulative_regret(many, constant_curve(1.0, 1.0))
    with pytest.raises(ConfigError, match=r"has 2 episodes and .* has 3"):
        cumulative_regret(constant_curve(0.1, 0.2), constant_curve(1.0, 1.0, 1.0))


ROLES = ["floor", "floor", "baseline", "agent", "ceiling", "ceiling"]


def test_score_references_are_the_highest_floor_and_the_lowest_ceiling():
    curves = [constant_curve(0.0, role=role) for role in ROLES]
    assert score_references(curves, [-60.0, -38.0, -20.0, -2.0, -0.5, -1.0]) == (1, 5)
    assert score_references(curves[:4], [0.0] * 4) is None
    assert score_references(curves[2:], [0.0] * 4) is None


def test_score_references_are_measured_up_to_the_last_episode_of_all():
    curves = [constant_curve(0.0, 0.0, role=role) for role in ROLES]
    means = [-60.0, -38.0, -20.0, -2.0, -0.5, -1.0]
    for i in (0, 3, 4):  # the lower floor, the agent, the higher ceiling
        curves[i] = constant_curve(0.0, 0.0, role=ROLES[i], episode=np.array([1, 21]))
    assert score_references(curves, means) == (0, 4)
    assert score_references(curves[1:4] + curves[5:], means[1:4] + means[5:]) is None


def test_regret_is_measured_against_the_highest_ceiling():
    ceilings = [constant_curve(mean, label=str(mean), role="ceiling") for mean in (6.6, 8.3, 7.0)]
    assert regret_reference([constant_curve(9.0), *ceilings]).label == "8.3"
    with pytest.raises(ConfigError, match="hold no ceiling; evaluate with"):
        regret_reference([constant_curve(9.0)])
