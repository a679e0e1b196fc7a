"""Bandit references rolled out by the engine: exact sums, published numbers, and their order."""

import math

import pytest
import torch

from metarl.envs.bandits import bayes_optimum, gittins_index
from metarl.envs.bandits.multi_armed import BernoulliBandit, GaussianBandit, GoalBandit
from metarl.rollout import collect
from metarl.seeding import Seeds


def simulated(family, name, num_tasks=10_000):
    """Mean total reward, and its standard error."""
    tasks = family.sample_tasks(num_tasks, Seeds(0).torch("tasks"))
    policy = family.references(family.pulls)[name].build(tasks)
    trajectory = collect(family, tasks, policy, episodes=family.pulls, seeds=Seeds(1))
    total = trajectory.reward.sum(0).flatten().double()
    return float(total.mean()), float(total.std()) / num_tasks**0.5


def simulated_all(family):
    pairs = {name: simulated(family, name) for name in family.references(family.pulls)}
    return [{name: pair[i] for name, pair in pairs.items()} for i in (0, 1)]


def test_simulated_references_have_the_expected_returns_and_order():
    mean, error = simulated_all(BernoulliBandit(arms=5, pulls=10))
    assert abs(mean["random"] - 5.0) < 4 * error["random"]
    assert abs(mean["bayes_optimal"] - 6.65999) < 4 * error["bayes_optimal"]
    assert abs(mean["gittins"] - 6.654) < 4 * error["gittins"]
    assert abs(mean["best_arm"] - 10 * 5 / 6) < 4 * error["best_arm"]
    order = ["random", "thompson", "optimistic_thompson", "epsilon_greedy", "greedy", "ucb1"]
    for worse, better in zip(order, [*order[1:], "best_arm"], strict=True):
        assert mean[worse] + 0.04 < mean[better]  # common random numbers reduce the variance
    assert mean["ucb1"] <= mean["bayes_optimal"] + 4 * error["ucb1"]


PUBLISHED = {
    (10, 5): {"random": 5.0, "thompson": 5.7, "ucb1": 6.7, "greedy": 6.6, "gittins": 6.6},
    (10, 50): {"random": 5.1, "thompson": 5.2, "ucb1": 6.6, "greedy": 6.5},
    (100, 50): {"random": 49.8, "thompson": 64.5, "ucb1": 84.3, "greedy": 78.0},
}
"""Duan et al. 2016, table 1: means over 1000 tasks"""


@pytest.mark.parametrize(("pulls", "arms"), PUBLISHED)
def test_simulated_references_match_published_returns(pulls, arms):
    family = BernoulliBandit(arms=arms, pulls=pulls)
    for name, published in PUBLISHED[pulls, arms].items():
        mean, error = simulated(family, name, num_tasks=2000)
        # Rounding plus both standard errors; the published means are over half as many tasks.
        assert abs(mean - published) < 0.05 + 3.5 * math.sqrt(3) * error, name


def test_simulated_gaussian_references_have_the_expected_order():
    mean, error = simulated_all(GaussianBandit(arms=5, pulls=50))
    assert abs(mean["random"]) < 4 * error["random"]
    # The expected maximum of five standard normal numbers is 1.16296.
    assert abs(mean["best_arm"] - 50 * 1.16296) < 4 * error["best_arm"]
    for worse, better in [
        ("random", "epsilon_greedy"),
        ("epsilon_greedy", "greedy"),
        ("greedy", "ucb"),
        ("thompson", "ucb"),
        ("ucb", "best_arm"),
    ]:
        assert mean[worse] + 3 * error[worse] < mean[better], (worse, better)


def test_simulated_goal_references_have_the_expected_order():
    mean, error = simulated_all(GoalBandit(arms=5, pulls=10))
    assert abs(mean["random"] - 10 * (0.9 + 4 * 0.1) / 5) < 4 * error["random"]
    assert abs(mean["best_arm"] - 9.0) < 4 * error["best_arm"]
    assert mean["random"] + 10 * error["random"] < mean["thompson"]
    assert mean["thompson"] < mean["best_arm"] - 10 * error["thompson"]


@pytest.mark.parametrize("arms", [2, 5, 50])
def test_a_trial_too_long_for_an_exact_solution_has_no_exact_references(arms, monkeypatch):
    monkeypatch.setattr(gittins_index, "gittins_table", None)  # any attempt would fail
    monkeypatch.setattr(bayes_optimum, "solve", None)
    family = BernoulliBandit(arms=arms)
    references = family.references(2100)
    assert {"gittins", "bayes_optimal"}.isdisjoint(references)
    tasks = family.sample_tasks(40, Seeds(0).torch("tasks"))
    last = {}
    for name in ("random", "thompson", "best_arm"):
        policy = references[name].build(tasks)
        trajectory = collect(family, tasks, policy, episodes=2100, seeds=Seeds(1))
        last[name] = float(trajectory.reward[-300:].mean())
    assert last["random"] + 0.1 < last["thompson"] < last["best_arm"]
    assert last["thompson"] > last["best_arm"] - 0.03


def test_every_reference_acts_in_every_rollout_of_a_task():
    for family in (BernoulliBandit(arms=3, pulls=6), GaussianBandit(arms=3, pulls=6)):
        tasks = family.sample_tasks(4, Seeds(0).torch("tasks"))
        for name, reference in family.references(6).items():
            policy = reference.build(tasks)
            first = collect(family, tasks, policy, episodes=6, rollouts_per_task=5, seeds=Seeds(0))
            assert first.action.shape == (6, 4, 5), name
            again = collect(family, tasks, policy, episodes=6, rollouts_per_task=5, seeds=Seeds(0))
            assert torch.equal(first.action, again.action), name


def test_references_are_ordered_from_floor_to_ceiling():
    references = BernoulliBandit(arms=2).references(5)
    assert [(name, r.role, r.label) for name, r in references.items()] == [
        ("random", "floor", "random"),
        ("greedy", "baseline", "greedy"),
        ("epsilon_greedy", "baseline", "epsilon-greedy (0.1)"),
        ("ucb1", "baseline", "UCB1 (bonus x 0.2)"),
        ("thompson", "baseline", "Thompson sampling"),
        ("optimistic_thompson", "baseline", "optimistic Thompson sampling"),
        ("gittins", "baseline", "Gittins index (finite horizon)"),
        ("bayes_optimal", "ceiling", "exact Bayes optimum"),
        ("best_arm", "ceiling", "best arm (knows the task)"),
    ]
    assert [(name, r.role) for name, r in GaussianBandit().references(5).items()] == [
        ("random", "floor"),
        ("greedy", "baseline"),
        ("epsilon_greedy", "baseline"),
        ("ucb", "baseline"),
        ("thompson", "baseline"),
        ("best_arm", "ceiling"),
    ]
