"""The Bayes optimum of Bernoulli bandits against brute force and published numbers."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from metarl.envs.bandits import bayes_optimum
from metarl.envs.bandits.bayes_optimum import (
    BayesOptimal,
    bayes_optimal_value,
    solvable,
    states_per_level,
)
from metarl.envs.bandits.multi_armed import BernoulliBandit
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from tests.bandit_rollouts import best_by_definition, exact_return


@pytest.mark.parametrize(("arms", "pulls"), [(1, 4), (2, 1), (2, 6), (3, 4), (4, 3)])
def test_bayes_value_equals_brute_force(arms, pulls):
    expected = best_by_definition([(0, 0)] * arms, pulls)
    assert bayes_optimal_value(arms, pulls) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("arms", "pulls", "value"),
    [
        (2, 10, 6.0218),
        (5, 10, 6.65999),
        (10, 10, 6.71395),
        (2, 20, 12.4313),
        (2, 50, 31.9967),
        (3, 30, 20.6589),
    ],
)
def test_bayes_value_equals_published_optima(arms, pulls, value):
    digits = len(str(value).split(".")[1])
    assert bayes_optimal_value(arms, pulls) == pytest.approx(value, abs=0.6 * 10**-digits)


@pytest.mark.parametrize(("arms", "pulls"), [(2, 8), (5, 10)])
def test_the_bayes_policy_earns_exactly_the_bayes_value(arms, pulls):
    value = exact_return(BayesOptimal(arms, pulls), arms, pulls)
    assert value == pytest.approx(bayes_optimal_value(arms, pulls), abs=1e-9)


@pytest.mark.parametrize(("arms", "pulls"), [(1, 5), (2, 6), (3, 5), (6, 4)])
def test_states_are_counted_as_multisets(arms, pulls):
    tallies = [(s, f) for s in range(pulls) for f in range(pulls - s)]
    counted = Counter(
        sum(s + f for s, f in state)
        for state in itertools.combinations_with_replacement(tallies, arms)
    )
    assert states_per_level(arms, pulls) == [counted[level] for level in range(pulls)]


def test_colliding_keys_raise_an_error():
    with pytest.raises(AssertionError, match="share a key"):
        bayes_optimum._levels(2, 3, np.zeros(16, dtype=np.int64))


@pytest.mark.parametrize(("arms", "pulls"), [(5, 100), (50, 500), (2, 500), (10, 10_000)])
def test_an_optimum_too_large_to_solve_is_left_out_without_trying(arms, pulls, monkeypatch):
    monkeypatch.setattr(bayes_optimum, "_levels", None)  # any attempt would fail
    assert not solvable(arms, pulls)
    assert "bayes_optimal" not in BernoulliBandit(arms=arms).references(pulls)
    with pytest.raises(ConfigError, match=f"arms={arms}, pulls={pulls} has too many belief states"):
        bayes_optimal_value(arms, pulls)


@pytest.mark.parametrize(("arms", "pulls"), [(1, 100_000), (2, 500), (10, 10_000)])
def test_states_are_not_counted_for_very_large_sizes(arms, pulls, monkeypatch):
    monkeypatch.setattr(bayes_optimum, "states_per_level", None)
    assert not solvable(arms, pulls)


def test_the_optimum_is_solved_only_when_the_policy_is_built(monkeypatch):
    def refuse(arms, pulls):
        raise RuntimeError("solved")

    monkeypatch.setattr(bayes_optimum, "solve", refuse)
    reference = BernoulliBandit(arms=2).references(5)["bayes_optimal"]
    with pytest.raises(RuntimeError, match="solved"):
        reference.build(torch.full((1, 2), 0.5))


def test_a_trial_longer_than_the_solution_raises_an_error():
    family = BernoulliBandit(arms=2, pulls=3)
    tasks = torch.full((4, 2), 0.5)
    policy = family.references(family.pulls)["bayes_optimal"].build(tasks)
    collect(family, tasks, policy, episodes=3, seeds=Seeds(0))
    for episodes in (4, 9):
        with pytest.raises(ConfigError, match=r"trials of 3 pulls.*longer"):
            collect(family, tasks, policy, episodes=episodes, seeds=Seeds(0))
