"""Gittins indices against brute-force optimal stopping, and the policy against the optimum."""

import itertools
from fractions import Fraction
from functools import cache

import pytest
import torch

from metarl.envs.bandits import gittins_index
from metarl.envs.bandits.bayes_optimum import bayes_optimal_value
from metarl.envs.bandits.gittins_index import (
    MAX_INDEX_PULLS,
    GittinsIndex,
    gittins_table,
    tabulable,
)
from metarl.envs.bandits.multi_armed import BernoulliBandit
from metarl.envs.bandits.references import PullsHighest
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from tests.bandit_rollouts import exact_return, noise_of


def tabulated(table_pulls, payouts, blanks, left):
    """The index of an arm in this state; the remaining past pulls are of another arm."""
    elsewhere = table_pulls - left - payouts - blanks
    tally = torch.tensor([[payouts, payouts + blanks], [0, elsewhere]], dtype=torch.float32)
    return float(GittinsIndex(table_pulls)(tally[None], noise_of(0, 1))[0, 0])


def stopping_rules(payouts, blanks, left):
    """(expected reward, expected pulls) of every rule that pulls at least once."""
    p = Fraction(1 + payouts, 2 + payouts + blanks)
    stop = [(Fraction(0), Fraction(0))]
    after_payout = stop + (stopping_rules(payouts + 1, blanks, left - 1) if left > 1 else [])
    after_blank = stop + (stopping_rules(payouts, blanks + 1, left - 1) if left > 1 else [])
    return [
        (p * (1 + paid) + (1 - p) * blank, 1 + p * more + (1 - p) * again)
        for paid, more in after_payout
        for blank, again in after_blank
    ]


@pytest.mark.parametrize("left", [1, 2, 3, 4])
@pytest.mark.parametrize(("payouts", "blanks"), [(0, 0), (1, 0), (0, 1), (0, 3), (2, 1)])
def test_the_index_is_the_best_ratio_over_all_stopping_rules(payouts, blanks, left):
    best = max(reward / pulls for reward, pulls in stopping_rules(payouts, blanks, left))
    assert tabulated(12, payouts, blanks, left) == pytest.approx(float(best), abs=5e-4)


def test_the_index_with_two_pulls_left_matches_a_hand_calculation():
    # Pull again only after a payout: reward 1/2 + 1/2 * 2/3 in 3/2 pulls.
    assert tabulated(2, 0, 0, 2) == pytest.approx(5 / 9, abs=1e-4)


def index_by_ratios(payouts, blanks, left):
    """Dinkelbach's method: iterate the ratio of the rule that is optimal at the last ratio."""
    ratio = 0.0
    while True:

        @cache
        def best(payouts, blanks, left, charge=ratio):
            """(reward, pulls) of the rule that maximises reward - charge * pulls."""
            p = (1 + payouts) / (2 + payouts + blanks)
            reward, pulls = p, 1.0
            if left > 1:
                states = ((p, payouts + 1, blanks), (1 - p, payouts, blanks + 1))
                for chance, s, f in states:
                    more, again = best(s, f, left - 1)
                    if more - charge * again > 0:
                        reward += chance * more
                        pulls += chance * again
            return reward, pulls

        reward, pulls = best(payouts, blanks, left)
        if reward / pulls <= ratio + 1e-12:
            return ratio
        ratio = reward / pulls


@pytest.mark.parametrize(
    ("payouts", "blanks", "left"),
    [(0, 0, 60), (0, 0, 30), (3, 1, 40), (0, 10, 50), (0, 40, 20), (30, 0, 30), (12, 20, 20)],
)
def test_the_index_of_long_trials_equals_the_fixed_point_of_the_ratio(payouts, blanks, left):
    expected = index_by_ratios(payouts, blanks, left)
    assert tabulated(60, payouts, blanks, left) == pytest.approx(expected, abs=1e-3)
    assert expected >= (1 + payouts) / (2 + payouts + blanks)


def test_the_index_increases_with_pulls_left_and_with_payouts():
    left = [tabulated(30, 1, 1, m) for m in range(1, 29)]
    paid = [tabulated(30, s, 5, 10) for s in range(15)]
    for row in (left, paid):
        assert all(a < b for a, b in itertools.pairwise(row))


@pytest.mark.parametrize(("arms", "pulls"), [(3, 1), (2, 2), (5, 2)])
def test_the_index_policy_is_optimal_for_one_or_two_pulls(arms, pulls):
    value = exact_return(PullsHighest(arms, GittinsIndex(pulls)), arms, pulls)
    assert value == pytest.approx(bayes_optimal_value(arms, pulls), abs=1e-9)


@pytest.mark.parametrize(("arms", "pulls"), [(2, 10), (5, 10), (10, 10), (2, 14)])
def test_the_index_policy_is_nearly_optimal(arms, pulls):
    value = exact_return(PullsHighest(arms, GittinsIndex(pulls)), arms, pulls)
    optimum = bayes_optimal_value(arms, pulls)
    assert optimum - 0.01 < value < optimum + 1e-9
    if arms == 2:  # nearly but not exactly optimal
        assert value < optimum - 1e-4


def test_lanes_may_be_at_different_steps():
    index = GittinsIndex(6)
    tallies = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 2.0]]])
    together = index(tallies, noise_of(0, 2))
    for lane in range(2):
        assert torch.equal(together[lane], index(tallies[lane][None], noise_of(0, 1))[0])


def test_a_trial_longer_than_the_table_raises_an_error():
    family = BernoulliBandit(arms=2, pulls=3)
    tasks = torch.full((4, 2), 0.5)
    policy = family.references(3)["gittins"].build(tasks)
    collect(family, tasks, policy, episodes=3, seeds=Seeds(0))
    with pytest.raises(ConfigError, match=r"trials of 3 pulls.*longer"):
        collect(family, tasks, policy, episodes=4, seeds=Seeds(0))


def test_too_many_pulls_are_left_out_without_trying(monkeypatch):
    monkeypatch.setattr(gittins_index, "_pull_value", None)  # any attempt would fail
    pulls = MAX_INDEX_PULLS + 1
    assert tabulable(pulls - 1)
    assert "gittins" in BernoulliBandit().references(pulls - 1)
    assert "gittins" not in BernoulliBandit().references(pulls)
    with pytest.raises(ConfigError, match=rf"at most {pulls - 1} pulls; got pulls={pulls}"):
        gittins_table(pulls)


def test_indices_are_tabulated_only_when_the_policy_is_built(monkeypatch):
    def refuse(pulls):
        raise RuntimeError("tabulated")

    monkeypatch.setattr(gittins_index, "gittins_table", refuse)
    reference = BernoulliBandit(arms=2).references(5)["gittins"]
    with pytest.raises(RuntimeError, match="tabulated"):
        reference.build(torch.full((1, 2), 0.5))
