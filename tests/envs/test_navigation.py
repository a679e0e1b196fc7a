"""Point navigation beside a plain one-lane loop, its goals, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.envs.navigation import PointNavigation
from metarl.errors import ConfigError
from metarl.worlds import BatchedWorld


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def step_by_definition(goal, position, action):
    """The released code of MAML, in double precision, with clipped actions."""
    position = position + np.clip(action, -0.1, 0.1)
    x, y = position - goal
    return position, -((x**2 + y**2) ** 0.5), abs(x) < 0.01 and abs(y) < 0.01


def test_every_lane_equals_a_plain_loop_over_steps():
    family, rng = PointNavigation(steps=12), np.random.default_rng(0)
    goals = np.array([[0.25, 0.0], [-0.5, 0.5], [0.1, -0.3], [0.0, 0.0]])
    world = BatchedWorld(family, torch.as_tensor(goals, dtype=torch.float32), seeded(0))
    position = np.zeros_like(goals)
    assert world.reset().tolist() == position.tolist()
    arrived = np.zeros(4, dtype=bool)
    for step in range(12):
        # Towards the goal and past it, with noise, often out of bounds; lane 1 walks away from it
        # and lane 3 stays.
        action = 1.3 * (goals - position) + rng.normal(0, 0.1, (4, 2)) * (step % 3 == 0)
        action[1] *= -1
        action[3] = 0.0
        last = world.step(torch.as_tensor(action, dtype=torch.float32))
        for lane in range(4):
            position[lane], reward, terminated = step_by_definition(
                goals[lane], position[lane], action[lane].astype(np.float32)
            )
            np.testing.assert_allclose(last.obs[lane], position[lane], atol=1e-6)
            np.testing.assert_allclose(last.reward[lane], reward, atol=1e-6)
            assert bool(last.terminated[lane]) == bool(last.success[lane]) == terminated
            assert bool(last.truncated[lane]) == (step == 11 and not terminated)
            arrived[lane] |= terminated
    assert arrived.tolist() == [True, False, True, True]  # both ends were compared


def test_arrival_needs_both_coordinates():
    family = PointNavigation()
    goal = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    position = torch.tensor([[0.0099, -0.0099], [0.0099, 0.0101], [0.0101, 0.0]])
    assert family.success(goal, position).tolist() == [True, False, False]


def test_standing_still_costs_the_mean_distance_of_the_goals():
    family = PointNavigation()
    goals = family.sample_tasks(40_000, seeded(0))
    state = family.reset(goals, seeded(0))
    _, reward, _ = family.step(goals, state, torch.zeros_like(goals), seeded(0))
    # Mean distance from the centre of a unit square: (sqrt 2 + ln(1 + sqrt 2)) / 6; -38.26 a life.
    expected = -(2**0.5 + np.log(1 + 2**0.5)) / 6
    assert abs(float(reward.mean()) - expected) < 4 * float(reward.std()) / len(goals) ** 0.5


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_an_action_that_is_not_finite_is_not_hidden(bad):
    family = PointNavigation()
    goal = torch.tensor([[0.1, 0.1], [0.1, 0.1]])
    action = torch.tensor([[bad, 0.1], [0.1, 0.1]])
    state, reward, terminated = family.step(goal, torch.zeros(2, 2), action, seeded(0))
    assert state.isnan().tolist() == [[True, False], [False, False]]
    assert reward.isnan().tolist() == [True, False]
    assert terminated.tolist() == [False, True]


@pytest.mark.parametrize("split", ["train", "test"])
def test_goals_fill_the_square(split):
    goals = PointNavigation().sample_tasks(50_000, seeded(0), split)
    # U[-1/2, 1/2]: mean 0, variance 1/12, coordinates independent.
    assert goals.abs().max() <= 0.5
    assert goals.mean(0).abs().max() < 4 * (1 / 12 / 50_000) ** 0.5
    torch.testing.assert_close(goals.T.cov(), torch.eye(2) / 12, atol=0.002, rtol=0)


def test_equal_seeds_draw_equal_goals_and_other_seeds_others():
    first, again, other = (PointNavigation().sample_tasks(9, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(
    seed=st.integers(0, 1000),
    size=st.floats(0.0, 1e6, width=32),
    lanes=st.integers(1, 10),
)
def test_moves_are_short_and_everything_is_finite(seed, size, lanes):
    family, generator = PointNavigation(), seeded(seed)
    goals = family.sample_tasks(lanes, generator)
    assert all(goal in family.task_space for goal in goals.numpy())
    state = family.reset(goals, generator)
    action = size * torch.randn(lanes, 2, generator=generator)
    after, reward, terminated = family.step(goals, state, action, generator)
    assert (after - state).abs().max() <= 0.1
    assert reward.isfinite().all()
    assert (reward <= 0).all()
    assert terminated.dtype == torch.bool
    assert all(obs in family.observation_space for obs in family.observe(goals, after).numpy())


def test_observations_are_nobodys_state():
    family = PointNavigation()
    state = torch.zeros(1, 2)
    family.observe(state, state).fill_(9.0)
    assert state.tolist() == [[0.0, 0.0]]


def test_a_trial_has_three_episodes_of_a_hundred_steps():
    family = PointNavigation()
    assert (family.episode_steps, family.trial_episodes) == (100, 3)


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="steps=0 must be greater than zero"):
        PointNavigation(steps=0)
