"""Point navigation against a plain one-lane loop, its goals, and invalid options."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.envs.navigation.point_navigation import (
    PointNavigation,
    SparsePointNavigation,
    half_circle_goals,
)
from metarl.errors import ConfigError
from metarl.tasks.tensor_env import TensorEnv
from tests.bandit_rollouts import noise_of, seeded


def step_by_definition(goal, position, action):
    """One step as in the released code of MAML, in double precision, with clipped actions."""
    position = position + np.clip(action, -0.1, 0.1)
    x, y = position - goal
    return position, -((x**2 + y**2) ** 0.5), abs(x) < 0.01 and abs(y) < 0.01


def test_every_lane_equals_a_plain_loop_over_steps():
    family, rng = PointNavigation(steps=12), np.random.default_rng(0)
    goals = np.array([[0.25, 0.0], [-0.5, 0.5], [0.1, -0.3], [0.0, 0.0]])
    env = TensorEnv(family, torch.as_tensor(goals, dtype=torch.float32), noise_of(0, 4))
    position = np.zeros_like(goals)
    assert env.reset().tolist() == position.tolist()
    arrived = np.zeros(4, dtype=bool)
    for step in range(12):
        # Towards the goal and past it, with noise, often out of bounds; lane 1 moves away from it
        # and lane 3 stays.
        action = 1.3 * (goals - position) + rng.normal(0, 0.1, (4, 2)) * (step % 3 == 0)
        action[1] *= -1
        action[3] = 0.0
        last = env.step(torch.as_tensor(action, dtype=torch.float32))
        for lane in range(4):
            position[lane], reward, terminated = step_by_definition(
                goals[lane], position[lane], action[lane].astype(np.float32)
            )
            np.testing.assert_allclose(last.next_obs[lane], position[lane], atol=1e-6)
            np.testing.assert_allclose(last.reward[lane], reward, atol=1e-6)
            assert bool(last.terminated[lane]) == bool(last.success[lane]) == terminated
            assert bool(last.truncated[lane]) == (step == 11 and not terminated)
            arrived[lane] |= terminated
    assert arrived.tolist() == [True, False, True, True]  # both kinds of episode end were compared


def test_success_requires_both_coordinates():
    family = PointNavigation()
    goal = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    position = torch.tensor([[0.0099, -0.0099], [0.0099, 0.0101], [0.0101, 0.0]])
    assert family.success(goal, position).tolist() == [True, False, False]


def test_standing_still_earns_minus_the_mean_distance_of_the_goals():
    family = PointNavigation()
    goals = family.sample_tasks(40_000, seeded(0))
    noise = noise_of(0, len(goals))
    state = family.reset(goals, noise)
    _, reward, _ = family.step(goals, state, torch.zeros_like(goals), noise)
    # Mean distance from the centre of a unit square: (sqrt 2 + ln(1 + sqrt 2)) / 6.
    expected = -(2**0.5 + np.log(1 + 2**0.5)) / 6
    assert abs(float(reward.mean()) - expected) < 4 * float(reward.std()) / len(goals) ** 0.5


@pytest.mark.parametrize(
    "family", [PointNavigation(), SparsePointNavigation(), SparsePointNavigation(dense=True)]
)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_non_finite_action_gives_nan(bad, family):
    goal = torch.tensor([[0.1, 0.1], [0.1, 0.1]])
    action = torch.tensor([[bad, 0.1], [0.1, 0.1]])
    state, reward, terminated = family.step(goal, torch.zeros(2, 2), action, noise_of(0, 2))
    assert state.isnan().tolist() == [[True, False], [False, False]]
    assert reward.isnan().tolist() == [True, False]
    assert terminated.tolist() == [False, isinstance(family, PointNavigation)]
    assert family.success(goal, state).tolist() == [False, True]


@pytest.mark.parametrize("split", ["train", "test"])
def test_goals_fill_the_square(split):
    goals = PointNavigation().sample_tasks(50_000, seeded(0), split)
    # U[-1/2, 1/2]: mean 0, variance 1/12, coordinates independent.
    assert goals.abs().max() <= 0.5
    assert goals.mean(0).abs().max() < 4 * (1 / 12 / 50_000) ** 0.5
    torch.testing.assert_close(goals.T.cov(), torch.eye(2) / 12, atol=0.002, rtol=0)


def test_equal_seeds_draw_equal_goals_and_different_seeds_different_goals():
    first, again, other = (PointNavigation().sample_tasks(9, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(
    seed=st.integers(0, 1000),
    size=st.floats(0.0, 1e6, width=32),
    lanes=st.integers(1, 10),
)
@pytest.mark.parametrize("family", [PointNavigation(), SparsePointNavigation()])
def test_moves_are_bounded_and_rewards_finite(seed, size, lanes, family):
    generator = seeded(seed)
    goals = family.sample_tasks(lanes, generator)
    assert all(goal in family.task_space for goal in goals.numpy())
    noise = noise_of(seed, lanes)
    state = family.reset(goals, noise)
    action = size * torch.randn(lanes, 2, generator=generator)
    after, reward, terminated = family.step(goals, state, action, noise)
    assert (after - state).abs().max() <= 0.1
    assert reward.isfinite().all()
    assert terminated.dtype == torch.bool
    assert all(obs in family.observation_space for obs in family.observe(goals, after).numpy())


def test_observations_do_not_share_memory_with_the_state():
    family = PointNavigation()
    state = torch.zeros(1, 2)
    family.observe(state, state).fill_(9.0)
    assert state.tolist() == [[0.0, 0.0]]


def test_a_trial_has_three_episodes_of_a_hundred_steps():
    family = PointNavigation()
    assert (family.episode_steps, family.trial_episodes) == (100, 3)


def test_invalid_options_raise_an_error():
    with pytest.raises(ConfigError, match="steps=0 must be greater than zero"):
        PointNavigation(steps=0)
    with pytest.raises(ConfigError, match="steps=-1 must be greater than zero"):
        SparsePointNavigation(steps=-1)


def sparse_step_by_definition(goal, position, action):
    """One step as in the released code of PEARL, in double precision, with clipped actions."""
    position = position + np.clip(action, -0.1, 0.1)
    x, y = position - goal
    distance = (x**2 + y**2) ** 0.5
    return position, distance, 1 - distance if distance <= 0.2 else 0.0


@pytest.mark.parametrize("dense", [False, True])
def test_every_sparse_lane_equals_a_plain_loop_over_steps(dense):
    family, rng = SparsePointNavigation(dense=dense), np.random.default_rng(0)
    angle = np.array([0.3, 1.5, np.pi, 2.0])
    goals = np.stack([np.cos(angle), np.sin(angle)], 1)
    env = TensorEnv(family, torch.as_tensor(goals, dtype=torch.float32), noise_of(0, 4))
    position = np.zeros_like(goals)
    assert env.reset().tolist() == position.tolist()
    inside = np.zeros(4, dtype=int)
    for step in range(20):
        # Towards the goal, with noise, often out of bounds; lane 1 moves away from it.
        action = goals - position + rng.normal(0, 0.1, (4, 2))
        action[1] *= -1
        last = env.step(torch.as_tensor(action, dtype=torch.float32))
        for lane in range(4):
            position[lane], distance, sparse = sparse_step_by_definition(
                goals[lane], position[lane], action[lane].astype(np.float32)
            )
            np.testing.assert_allclose(last.next_obs[lane], position[lane], atol=1e-6)
            reward = -distance if dense else sparse
            np.testing.assert_allclose(last.reward[lane], reward, atol=2e-6)
            assert bool(last.success[lane]) == (distance <= 0.2)
            inside[lane] += distance <= 0.2
        assert not last.terminated.any()
        assert last.truncated.tolist() == [step == 19] * 4
    assert inside[1] == 0  # both sides of the radius were compared
    assert all(5 < count < 20 for count in inside[[0, 2, 3]])


def test_sparse_train_and_test_goals_are_disjoint():
    splits = {
        split: {tuple(goal) for goal in half_circle_goals(split).tolist()}
        for split in ("train", "test")
    }
    assert [len(goals) for goals in splits.values()] == [80, 20]
    assert splits["train"] & splits["test"] == set()
    family = SparsePointNavigation()
    for split, goals in splits.items():
        drawn = family.sample_tasks(3000, seeded(0), split)
        assert {tuple(goal) for goal in drawn.tolist()} == goals  # exactly the goals of the split
    everything = np.array(sorted(splits["train"] | splits["test"], reverse=True))
    angle = np.arctan2(everything[:, 1], everything[:, 0])
    np.testing.assert_allclose(angle, np.linspace(0, np.pi, 100), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(everything, axis=1), 1, atol=1e-6)


def test_the_sparse_split_matches_the_released_code_for_any_global_random_state():
    angle = np.linspace(0, np.pi, 100)
    goals = np.stack([np.cos(angle), np.sin(angle)], 1)
    before = np.random.get_state()  # noqa: NPY002  (the released code draws globally)
    try:
        np.random.seed(1337)  # noqa: NPY002
        np.random.shuffle(goals)  # noqa: NPY002
        np.random.seed(5)  # noqa: NPY002
        half_circle_goals.cache_clear()
        untouched = np.random.get_state()[1].tolist()  # noqa: NPY002
        np.testing.assert_allclose(half_circle_goals("train"), goals[:80], atol=1e-7)
        np.testing.assert_allclose(half_circle_goals("test"), goals[80:], atol=1e-7)
        assert np.random.get_state()[1].tolist() == untouched  # noqa: NPY002
    finally:
        np.random.set_state(before)  # noqa: NPY002


def test_changing_drawn_goals_does_not_change_later_draws():
    first = SparsePointNavigation().sample_tasks(2000, seeded(0)).fill_(9.0)
    assert first.max() == 9
    assert SparsePointNavigation().sample_tasks(2000, seeded(0)).max() <= 1


def test_a_sparse_trial_has_six_episodes_of_twenty_steps():
    family = SparsePointNavigation()
    assert (family.episode_steps, family.trial_episodes) == (20, 6)
