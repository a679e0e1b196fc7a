"""The navigation oracle against the integral of its return, and the floors."""

import numpy as np
import pytest
import torch

from metarl.envs.navigation.point_navigation import PointNavigation, SparsePointNavigation
from metarl.rollout import collect
from metarl.seeding import Seeds


def oracle_return_by_definition():
    """Expected return of moving straight to the goal, on a fine grid of goals.

    After t steps, max(|goal| - 0.1 t, 0) is left per coordinate.
    """
    half = (np.arange(500) + 0.5) / 1000  # the square is symmetric: one quadrant is enough
    x, y = np.meshgrid(half, half)
    total, active = np.zeros_like(x), np.ones_like(x, dtype=bool)
    for t in range(1, 7):
        left_x, left_y = np.maximum(x - 0.1 * t, 0), np.maximum(y - 0.1 * t, 0)
        total -= active * np.hypot(left_x, left_y)
        active &= ~((left_x < 0.01) & (left_y < 0.01))
    assert not active.any()
    return total.mean()


def roll_out(name, num_tasks, *, seed=0, family=None):
    family = family or PointNavigation()
    tasks = family.sample_tasks(num_tasks, Seeds(seed).torch("tasks"))
    policy = family.references(3)[name].build(tasks)
    return collect(family, tasks, policy, episodes=1, seeds=Seeds(seed), keep_next_obs=True)


def test_the_oracle_earns_the_integrated_return():
    trajectory = roll_out("oracle", 5000)
    returns = trajectory.episode_returns(1).flatten()
    expected = oracle_return_by_definition()
    assert round(expected, 2) == -0.51
    assert abs(float(returns.mean()) - expected) < 4 * float(returns.std()) / 5000**0.5
    assert trajectory.episode_success(1).all()
    assert int(trajectory.episode_lengths(1).max()) == 5  # half a unit in moves of a tenth


def random_returns_by_definition(num_tasks):
    """Returns of uniform random moves in NumPy; episodes end at the goal."""
    rng = np.random.default_rng(0)
    goal = rng.uniform(-0.5, 0.5, (num_tasks, 2))
    left = goal - rng.uniform(-0.1, 0.1, (100, num_tasks, 2)).cumsum(0)
    arrived = (np.abs(left) < 0.01).all(-1)
    active = arrived.cumsum(0) - arrived == 0
    return -(np.linalg.norm(left, axis=-1) * active).sum(0)


def test_the_random_floor_matches_a_random_walk():
    returns = roll_out("random", 2000).episode_returns(1).flatten().numpy()
    expected = random_returns_by_definition(5000)
    error = (returns.var() / returns.size + expected.var() / expected.size) ** 0.5
    # By hand: sqrt(pi / 2) times the sum over t of sqrt(1 / 12 + t / 300), about -61.
    assert -64 < expected.mean() < -59
    assert abs(returns.mean() - expected.mean()) < 4 * error


def test_the_oracle_acts_in_every_rollout_of_a_task():
    family = PointNavigation()
    goals = torch.tensor([[0.2, 0.1], [-0.1, 0.0]])
    policy = family.references(3)["oracle"].build(goals)
    trajectory = collect(family, goals, policy, episodes=2, rollouts_per_task=3, seeds=Seeds(0))
    assert trajectory.episode_lengths(2).tolist() == [[[2] * 3, [1] * 3]] * 2
    assert torch.equal(trajectory.log_prob, torch.zeros_like(trajectory.log_prob))


def test_standing_still_earns_minus_the_distance_from_the_start():
    trajectory = roll_out("standing_still", 20_000)
    returns = trajectory.episode_returns(1).flatten()
    # A hundred times the mean distance from the centre of a unit square. In one of 2500 tasks the
    # goal is at the start, which ends the episode.
    expected = -100 * (2**0.5 + np.log(1 + 2**0.5)) / 6
    assert round(expected, 1) == -38.3
    assert abs(float(returns.mean()) - expected) < 4 * float(returns.std()) / 20_000**0.5
    assert not trajectory.next_obs.any()


def sparse_oracle_by_definition(goals, *, dense):
    """Oracle returns: max(|goal| - 0.1 t, 0) is left per coordinate after t steps."""
    left = np.maximum(np.abs(goals)[None] - 0.1 * np.arange(1, 21)[:, None, None], 0)
    distance = np.linalg.norm(left, axis=-1)
    return (-distance if dense else (1 - distance) * (distance <= 0.2)).sum(0)


@pytest.mark.parametrize("dense", [False, True])
def test_the_oracle_moves_straight_to_the_goal_and_stays(dense):
    family = SparsePointNavigation(dense=dense)
    trajectory = roll_out("oracle", 500, family=family)
    # Double precision can differ only where the distance is just 0.2.
    goals = family.sample_tasks(500, Seeds(0).torch("tasks"))
    returns = trajectory.episode_returns(1)[0, :, 0].numpy()
    expected = sparse_oracle_by_definition(goals.double().numpy(), dense=dense)
    equal = np.abs(returns - expected) < 1e-4
    assert equal.mean() > 0.97
    assert (np.abs(returns - expected) < (1e-4 if dense else 0.81)).all()
    assert trajectory.episode_success(1).all()
    assert trajectory.success[-8:].all()  # stays at the goal


def test_sparse_floors_rarely_find_the_goal():
    family = SparsePointNavigation()
    still = roll_out("standing_still", 200, family=family)
    assert not still.reward.any()
    random = roll_out("random", 2000, family=family)
    assert float(random.episode_success(1).float().mean()) < 0.02


def test_references_are_ordered_from_floor_to_ceiling():
    references = PointNavigation().references(3)
    assert [(name, reference.role) for name, reference in references.items()] == [
        ("random", "floor"),
        ("standing_still", "floor"),
        ("oracle", "ceiling"),
    ]
    assert references["oracle"].label == "oracle (knows the goal)"
