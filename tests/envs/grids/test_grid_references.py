"""The Bayes optimum against the full belief MDP, and the references below and above it."""

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch

from metarl.envs.grids.bayes_optimum import _Search, best_walk
from metarl.envs.grids.grid_navigation import GridNavigation
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds

KNOWN_GOAL = 155 / 14
"""mean episode return with a known goal: 16.1 - 1.1 d, with mean distance d = 96/21"""


def roll_out(name, family, episodes, tasks=None, rollouts_per_task=1):
    tasks = family.goals() if tasks is None else tasks
    policy = family.references(episodes)[name].build(tasks)
    return collect(
        family,
        tasks,
        policy,
        episodes=episodes,
        rollouts_per_task=rollouts_per_task,
        seeds=Seeds(0),
    )


def returns_of(*args, **more):
    """Mean return of each episode, [E]."""
    trajectory = roll_out(*args, **more)
    return trajectory.episode_returns(args[2]).double().mean((1, 2))


def optimum_by_definition(cells, steps, episodes):
    """Optimal value of the belief MDP by backward induction, without further assumptions.

    A belief is the set of goals that the observations do not rule out.
    """
    goals = frozenset((x, y) for x in range(cells) for y in range(cells) if max(x, y) > 1)

    @cache
    def value(position, possible, left):
        if left == 0:
            return Fraction(0)
        if left % steps == 0:
            position = (0, 0)
        best = []
        for right, up in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
            x, y = (
                min(max(c + d, 0), cells - 1) for c, d in zip(position, (right, up), strict=True)
            )
            chance = Fraction((x, y) in possible, len(possible))
            total = Fraction(0)
            if chance > 0:
                total += chance * (1 + value((x, y), frozenset({(x, y)}), left - 1))
            if chance < 1:
                rest = possible - {(x, y)}
                total += (1 - chance) * (Fraction(-1, 10) + value((x, y), rest, left - 1))
            best.append(total)
        return max(best)

    return float(value((0, 0), goals, steps * episodes))


@pytest.mark.parametrize(
    "size", [(3, 2, 1), (3, 2, 3), (3, 3, 3), (3, 4, 2), (3, 5, 3), (3, 8, 2), (4, 4, 2), (4, 5, 1)]
)
def test_the_best_walk_has_the_optimal_value_of_the_belief_mdp(size):
    cells, steps, episodes = size
    returns = GridNavigation(cells=cells, steps=steps).optimal_returns(episodes)
    assert len(returns) == episodes
    assert abs(sum(returns) - optimum_by_definition(*size)) < 1e-9


def test_the_optimum_of_the_default_grid_equals_its_upper_bound():
    # The first step only reaches cells that are never the goal, each later step at most one new
    # goal: 14 of 21 goals are reached at steps 2, ..., 15, and earn 16.1 - 1.1 t. Later episodes
    # earn at most the return with a known goal; the other seven goals lie on one shortest path.
    first = (sum(16.1 - 1.1 * t for t in range(2, 16)) + 7 * -1.5) / 21
    assert round(first, 6) == 4
    np.testing.assert_allclose(GridNavigation().optimal_returns(4), [first] + [KNOWN_GOAL] * 3)


@pytest.mark.parametrize(
    "size", [(5, 15, 4), (5, 15, 1), (5, 8, 4), (4, 6, 2), (3, 3, 3), (5, 20, 2)]
)
def test_the_policy_earns_the_returns_of_the_search(size):
    cells, steps, episodes = size
    family = GridNavigation(cells=cells, steps=steps)
    # Policy and family are deterministic, so the mean over all goals is the expectation.
    np.testing.assert_allclose(
        returns_of("bayes_optimal", family, episodes), family.optimal_returns(episodes), atol=1e-5
    )


@pytest.mark.parametrize("size", [(4, 5, 2), (3, 8, 2), (3, 5, 3)])
def test_the_upper_bound_is_not_below_the_best_value(size):
    search = _Search(*size)
    best = search.find(0)
    highest = sum(search.on_goal(best)) * len(search.bits)
    assert search.initial_bound() >= highest
    assert search.find(round(highest)) is not None
    assert search.find(round(highest) + 1) is None


def test_the_optimum_increases_with_steps_and_episodes():
    by_steps = [sum(best_walk(5, steps, 3).on_goal) for steps in range(1, 16)]
    assert by_steps == sorted(by_steps)
    by_episodes = [sum(best_walk(5, 7, episodes).on_goal) for episodes in range(1, 6)]
    assert (np.diff(by_episodes) > 0).all()


def test_the_oracle_return_is_linear_in_the_goal_distance():
    returns = roll_out("oracle", GridNavigation(), 2).episode_returns(2)[..., 0]
    expected = 16.1 - 1.1 * GridNavigation().goals().sum(1)
    torch.testing.assert_close(returns, expected.expand(2, -1), atol=1e-5, rtol=0)
    assert abs(float(expected.mean()) - KNOWN_GOAL) < 1e-5


def random_return_by_definition(cells, steps):
    """Return of uniform moves in an episode, from the distribution over cells at every step."""
    chance, total = np.zeros((cells, cells)), 0.0
    chance[0, 0] = 1
    goals = [(x, y) for x in range(cells) for y in range(cells) if max(x, y) > 1]
    for _ in range(steps):
        padded = np.pad(chance, 1, mode="edge")
        moves = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
        chance = (chance + sum(moves)) / 5
        total += np.mean([chance[goal] for goal in goals])
    return 1.1 * total - 0.1 * steps


def test_the_random_floor_matches_a_random_walk():
    family = GridNavigation()
    returns = roll_out("random", family, 1, rollouts_per_task=300).episode_returns(1).double()
    error = float(returns.std()) / returns.numel() ** 0.5
    expected = random_return_by_definition(5, 15)
    assert abs(float(returns.mean()) - expected) < 4 * error
    assert -1.3 < expected < -1.1


def test_thompson_sampling_reaches_the_optimum_within_six_episodes():
    returns = returns_of("thompson", GridNavigation(), 6, rollouts_per_task=50)
    best = GridNavigation().optimal_returns(6)
    assert 3.0 < returns[0] < best[0]
    assert 8.0 < returns[1] < 9.0
    assert (returns[1:].diff() > -1e-3).all()
    # Figure 1 of the VariBAD paper: posterior sampling takes six episodes.
    assert abs(float(returns[5]) - KNOWN_GOAL) < 1e-3


def test_thompson_sampling_never_tries_a_ruled_out_goal():
    family = GridNavigation(cells=3, steps=30)
    trajectory = roll_out("thompson", family, 1, rollouts_per_task=200)
    # Moves from target to target on nine cells visit all five goals within 4 x 4 steps.
    assert trajectory.success[16:].all()


def test_policies_accept_goals_outside_the_distribution():
    family = GridNavigation(cells=3)
    tasks = torch.tensor([[0, 0], [1, 1], [0, 1]])
    for name in family.references(4):
        assert roll_out(name, family, 4, tasks=tasks).reward.isfinite().all()


def test_lanes_of_a_batch_are_independent():
    family = GridNavigation()
    together = roll_out("bayes_optimal", family, 3, rollouts_per_task=2)
    for row in (0, 7, 20):
        alone = roll_out("bayes_optimal", family, 3, tasks=family.goals()[row : row + 1])
        assert torch.equal(together.action[:, row, 1], alone.action[:, 0, 0])


def test_a_trial_longer_than_the_walk_raises_an_error():
    family = GridNavigation()
    policy = family.references(1)["bayes_optimal"].build(family.goals())
    with pytest.raises(ConfigError, match="solved for trials of 15 steps, but this one is longer"):
        collect(family, family.goals(), policy, episodes=2, seeds=Seeds(0))


def test_references_are_ordered_from_floor_to_ceiling():
    roles = {name: one.role for name, one in GridNavigation().references(4).items()}
    assert list(roles.items()) == [
        ("random", "floor"),
        ("thompson", "baseline"),
        ("bayes_optimal", "ceiling"),
        ("oracle", "ceiling"),
    ]


def test_a_grid_too_large_to_solve_has_no_bayes_optimum():
    family = GridNavigation(cells=6)
    assert set(family.references(4)) == {"random", "thompson", "oracle"}
    with pytest.raises(ConfigError, match=r"optimum of cells=6 cannot be found.*at most 5"):
        family.optimal_returns(4)
