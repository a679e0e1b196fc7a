import numpy as np
import pytest
from scipy import stats

from metarl.errors import ConfigError
from metarl.sweeps.space import Choice, Range, grid, random_settings, require_distinct, setting_name

SPACE = {
    "rate": Range(low=1e-4, high=1e-1, log=True),
    "size": Range(low=2, high=5, is_integer=True),
    "memory": Choice(("gru", "lstm")),
}


def test_a_grid_has_every_combination_once():
    settings = grid({"a": Choice((1, 2)), "b": Choice(("x", "y", "z"))})
    assert settings[:2] == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}]
    assert {tuple(one.values()) for one in settings} == {(a, b) for a in (1, 2) for b in "xyz"}
    assert len(settings) == 6


def test_a_grid_has_no_ranges():
    with pytest.raises(ConfigError, match='rate is a range, but search = "grid"'):
        grid(SPACE)


def test_more_trials_only_add_settings_and_another_seed_draws_others():
    assert random_settings(SPACE, 4, 0) == random_settings(SPACE, 9, 0)[:4]
    assert random_settings(SPACE, 4, 0) != random_settings(SPACE, 4, 1)


def test_random_settings_differ():
    space = {"size": Range(low=1, high=6, is_integer=True)}
    assert {one["size"] for one in random_settings(space, 6, 0)} == {1, 2, 3, 4, 5, 6}
    with pytest.raises(ConfigError, match=r"trials = 7 different settings cannot be drawn"):
        random_settings(space, 7, 0)


@pytest.mark.parametrize("log", [False, True])
def test_numbers_are_drawn_uniformly_from_a_range_or_its_logarithms(log):
    span = Range(low=1e-3, high=10.0, log=log)
    drawn = np.array([span.draw(np.random.default_rng(k)) for k in range(2000)])
    assert drawn.min() >= 1e-3
    assert drawn.max() <= 10
    scale = np.log if log else np.array
    low, high = scale(1e-3), scale(10.0)
    assert stats.kstest((scale(drawn) - low) / (high - low), "uniform").pvalue > 0.01
    other = np.array if log else np.log
    low, high = other(1e-3), other(10.0)
    assert stats.kstest((other(drawn) - low) / (high - low), "uniform").pvalue < 1e-6


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_include_both_ends(log):
    span = Range(low=2, high=5, log=log, is_integer=True)
    drawn = [span.draw(np.random.default_rng(k)) for k in range(200)]
    assert set(drawn) == {2, 3, 4, 5}
    assert all(type(number) is int for number in drawn)


def test_rounding_stays_within_the_range():
    span = Range(low=0.123456, high=0.123459)
    assert span.low <= span.draw(np.random.default_rng(0)) <= span.high
    assert Range(low=0.0, high=1.0).rounded(0.123456) == 0.1235


def test_names_of_settings_are_names_of_folders_and_distinct():
    assert setting_name({"rate": 0.003, "memory": "gru"}) == "rate=0.003,memory=gru"
    odd = [setting_name({"sizes": value}) for value in ((1, 2), "(1,-2)", "../x", "a" * 300, "-")]
    assert len(set(odd)) == 5
    assert all("/" not in name and len(name) <= 120 for name in odd)


def test_a_value_that_occurs_twice_is_refused():
    require_distinct("rate", [1, 2])
    with pytest.raises(ConfigError, match="rate has the value 2 twice"):
        require_distinct("rate", [1, 2, 2])
