"""Bandit references against brute force, exact sums and published numbers."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats

from metarl.envs import bandit_references
from metarl.envs.bandit_references import (
    BayesOptimal,
    GoalPosterior,
    ThompsonSampling,
    bayes_optimal_value,
    beta_means,
    solvable,
    states_per_level,
    tallied,
)
from metarl.envs.bandits import BernoulliBandit, GoalBandit
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.trajectory import Percept


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def percept_of(action, reward, *, first_of_trial):
    """What a policy sees after `action` [N, B] paid `reward` [N, B]."""
    flags = torch.full(action.shape, first_of_trial)
    return Percept(
        obs=torch.zeros(*action.shape, 1),
        previous_action=action,
        previous_reward=reward,
        previous_terminated=~flags,
        previous_truncated=torch.zeros_like(flags),
        first_of_episode=torch.ones_like(flags),
        first_of_trial=flags,
    )


def best_by_definition(tallies, pulls):
    """Expectimax over ordered arms: no sharing, no symmetry."""
    if not pulls:
        return 0.0
    values = []
    for arm, (payouts, blanks) in enumerate(tallies):
        p = (1 + payouts) / (2 + payouts + blanks)
        paid = [*tallies[:arm], (payouts + 1, blanks), *tallies[arm + 1 :]]
        blank = [*tallies[:arm], (payouts, blanks + 1), *tallies[arm + 1 :]]
        values.append(
            p * (1 + best_by_definition(paid, pulls - 1))
            + (1 - p) * best_by_definition(blank, pulls - 1)
        )
    return max(values)


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
def test_bayes_value_equals_known_optima(arms, pulls, value):
    digits = len(str(value).split(".")[1])
    assert bayes_optimal_value(arms, pulls) == pytest.approx(value, abs=0.6 * 10**-digits)


@pytest.mark.parametrize(("arms", "pulls"), [(2, 8), (5, 10)])
def test_bayes_policy_earns_exactly_the_bayes_value(arms, pulls):
    # One lane for each of the 2^n sequences of outcomes, weighted by its predictive probability.
    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=pulls)))
    lanes = len(outcomes)
    policy = BayesOptimal(arms, pulls)
    memory = policy.initial_memory(1, lanes)
    weight = torch.ones(lanes, dtype=torch.float64)
    tally = torch.zeros(lanes, arms, 2, dtype=torch.float64)
    action, reward = torch.zeros(1, lanes, dtype=torch.int64), torch.zeros(1, lanes)
    for t in range(pulls):
        percept = percept_of(action, reward, first_of_trial=t == 0)
        action, log_prob, memory = policy.act(percept, memory, seeded(0))
        assert not log_prob.any()
        pulled = tally[torch.arange(lanes), action[0]]
        p = (1 + pulled[:, 0]) / (2 + pulled.sum(1))
        weight = weight * torch.where(outcomes[:, t] > 0, p, 1 - p)
        tally[torch.arange(lanes), action[0], (outcomes[:, t] == 0).long()] += 1
        reward = outcomes[None, :, t]
    assert float(weight.sum()) == pytest.approx(1)
    value = float((weight * outcomes.sum(1)).sum())
    assert value == pytest.approx(bayes_optimal_value(arms, pulls), abs=1e-9)


def simulated(family, name, num_tasks=10_000):
    tasks = family.sample_tasks(num_tasks, Seeds(0).torch("tasks"))
    policy = family.references(family.pulls)[name].build(tasks)
    trajectory = collect(family, tasks, policy, episodes=family.pulls, seeds=Seeds(1))
    total = trajectory.reward.sum(0).flatten().double()
    return float(total.mean()), float(total.std()) / num_tasks**0.5


def test_simulated_references_rank_as_they_must():
    family = BernoulliBandit(arms=5, pulls=10)
    means, errors = zip(
        *(simulated(family, name) for name in family.references(family.pulls)), strict=True
    )
    random, thompson, optimum, best = means
    assert abs(random - 5.0) < 4 * errors[0]
    assert abs(optimum - 6.65999) < 4 * errors[2]
    assert abs(best - 10 * 5 / 6) < 4 * errors[3]
    assert random + 10 * errors[0] < thompson < optimum - 10 * errors[1]


def test_simulated_goal_references_rank_as_they_must():
    family = GoalBandit(arms=5, pulls=10)
    means, errors = zip(
        *(simulated(family, name) for name in family.references(family.pulls)), strict=True
    )
    random, thompson, best = means
    assert abs(random - 10 * (0.9 + 4 * 0.1) / 5) < 4 * errors[0]
    assert abs(best - 9.0) < 4 * errors[2]
    assert random + 10 * errors[0] < thompson < best - 10 * errors[1]


@pytest.mark.parametrize(("arms", "pulls"), [(1, 5), (2, 6), (3, 5), (6, 4)])
def test_states_are_counted_as_multisets(arms, pulls):
    tallies = [(s, f) for s in range(pulls) for f in range(pulls - s)]
    counted = Counter(
        sum(s + f for s, f in state)
        for state in itertools.combinations_with_replacement(tallies, arms)
    )
    assert states_per_level(arms, pulls) == [counted[level] for level in range(pulls)]


def test_keys_that_collide_are_noticed():
    with pytest.raises(AssertionError, match="share a key"):
        bandit_references._levels(2, 3, np.zeros(16, dtype=np.int64))


@pytest.mark.parametrize(("arms", "pulls"), [(5, 100), (50, 500), (2, 500), (10, 10_000)])
def test_too_large_an_optimum_is_left_out_without_trying(arms, pulls, monkeypatch):
    monkeypatch.setattr(bandit_references, "_levels", None)  # any attempt would fail
    assert not solvable(arms, pulls)
    names = list(BernoulliBandit(arms=arms).references(pulls))
    assert names == ["random", "thompson", "best_arm"]
    with pytest.raises(ConfigError, match=f"arms={arms}, pulls={pulls} has too many states"):
        bayes_optimal_value(arms, pulls)


@pytest.mark.parametrize(("arms", "pulls"), [(1, 100_000), (2, 500), (10, 10_000)])
def test_the_states_of_hopeless_sizes_are_not_even_counted(arms, pulls, monkeypatch):
    monkeypatch.setattr(bandit_references, "states_per_level", None)
    assert not solvable(arms, pulls)


def test_nothing_is_solved_before_it_is_asked_for(monkeypatch):
    def refuse(arms, pulls):
        raise RuntimeError("solved")

    monkeypatch.setattr(bandit_references, "solve", refuse)
    reference = BernoulliBandit(arms=2).references(5)["bayes_optimal"]
    with pytest.raises(RuntimeError, match="solved"):
        reference.build(torch.full((1, 2), 0.5))


def test_a_trial_longer_than_the_solution_is_refused():
    family = BernoulliBandit(arms=2, pulls=3)
    tasks = torch.full((4, 2), 0.5)
    policy = family.references(family.pulls)["bayes_optimal"].build(tasks)
    collect(family, tasks, policy, episodes=3, seeds=Seeds(0))
    for episodes in (4, 9):
        with pytest.raises(ConfigError, match=r"trials of 3 pulls.*longer"):
            collect(family, tasks, policy, episodes=episodes, seeds=Seeds(0))


def test_the_tally_counts_what_was_lived():
    tally = torch.zeros(1, 2, 3, 2)
    # Zeros at the start of a trial are no blank of arm 0.
    nothing = percept_of(
        torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2), first_of_trial=True
    )
    tally = tallied(tally, nothing)
    assert not tally.any()
    for action, reward in [([2, 0], [1.0, 0.0]), ([2, 1], [0.0, 1.0]), ([2, 0], [1.0, 0.0])]:
        tally = tallied(
            tally,
            percept_of(torch.tensor([action]), torch.tensor([reward]), first_of_trial=False),
        )
    assert tally.tolist() == [[[[0, 0], [0, 0], [2, 1]], [[0, 2], [1, 0], [0, 0]]]]


@pytest.mark.parametrize(("payouts", "blanks"), [(0, 0), (3, 1), (0, 20)])
def test_drawn_means_have_the_beta_posterior(payouts, blanks):
    tally = torch.tensor([float(payouts), float(blanks)]).expand(4000, 1, 1, 2)
    drawn = beta_means(tally, seeded(0)).flatten().numpy()
    right = stats.kstest(drawn, stats.beta(1 + payouts, 1 + blanks).cdf)
    wrong = stats.kstest(drawn, stats.beta(2 + payouts, 1 + blanks).cdf)
    assert right.pvalue > 1e-3
    assert wrong.pvalue < 1e-6


def test_equal_seeds_make_equal_draws_and_lanes_draw_apart():
    policy = ThompsonSampling(5, beta_means, torch.device("cpu"))
    percept = percept_of(
        torch.zeros(1, 200, dtype=torch.int64), torch.zeros(1, 200), first_of_trial=True
    )
    memory = policy.initial_memory(1, 200)
    first, again, other = (policy.act(percept, memory, seeded(s)).action for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(first.flatten().tolist()) == {0, 1, 2, 3, 4}


def test_the_goal_is_drawn_from_bayes_rule():
    p_goal, p_other = 0.8, 0.3
    counts = [(2, 1), (0, 1), (0, 0)]  # (payouts, blanks) of three arms
    weight = np.ones(3)
    for goal, (arm, (payouts, blanks)) in itertools.product(range(3), enumerate(counts)):
        p = p_goal if arm == goal else p_other
        weight[goal] *= p**payouts * (1 - p) ** blanks
    posterior = weight / weight.sum()
    draw = GoalPosterior(p_goal=p_goal, p_other=p_other)
    tally = torch.tensor(counts, dtype=torch.float32).expand(20_000, 1, 3, 2)
    np.testing.assert_allclose(draw.log_odds(tally[0]).softmax(-1)[0], posterior, atol=1e-6)
    drawn = draw(tally, seeded(0)).argmax(-1).flatten().bincount(minlength=3).numpy()
    assert stats.chisquare(drawn, 20_000 * posterior).pvalue > 1e-3


def test_a_certain_goal_is_always_drawn_and_an_impossible_one_never():
    draw = GoalPosterior(p_goal=1.0, p_other=0.0)
    tally = torch.tensor([[0.0, 0.0], [0.0, 3.0], [0.0, 0.0]]).expand(500, 1, 3, 2).clone()
    assert set(draw(tally, seeded(0)).argmax(-1).flatten().tolist()) == {0, 2}
    tally[..., 2, 0] = 1
    assert set(draw(tally, seeded(0)).argmax(-1).flatten().tolist()) == {2}


def test_references_go_from_the_floor_to_the_ceiling():
    references = BernoulliBandit(arms=2).references(5)
    assert [(name, r.role, r.label) for name, r in references.items()] == [
        ("random", "floor", "random"),
        ("thompson", "baseline", "Thompson sampling"),
        ("bayes_optimal", "ceiling", "exact Bayes optimum"),
        ("best_arm", "ceiling", "best arm (knows the task)"),
    ]
