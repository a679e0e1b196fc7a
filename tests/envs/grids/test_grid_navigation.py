"""Grid navigation against a plain one-lane loop, its goals, and invalid options."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metarl
from metarl.envs.grids.grid_navigation import GridNavigation
from metarl.errors import ConfigError, TaskError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import as_tasks
from metarl.tasks.tensor_env import TensorEnv
from tests.bandit_rollouts import noise_of, seeded


def step_by_definition(goal, position, action, cells):
    """One step as in the released code of VariBAD, for one agent."""
    x, y = position
    if action == 1:
        y = min(y + 1, cells - 1)
    elif action == 2:
        x = min(x + 1, cells - 1)
    elif action == 3:
        y = max(y - 1, 0)
    elif action == 4:
        x = max(x - 1, 0)
    return (x, y), 1.0 if (x, y) == goal else -0.1


@pytest.mark.parametrize("cells", [3, 5])
def test_every_lane_equals_a_plain_loop_over_steps(cells):
    family, rng = GridNavigation(cells=cells), np.random.default_rng(0)
    goals = [(2, 0), (0, 2), (1, 2), (2, 2), (0, 2)]
    env = TensorEnv(family, torch.tensor(goals), noise_of(0, 5))
    position = [(0, 0)] * 5
    assert env.reset().tolist() == [[0.0, 0.0]] * 5
    found = np.zeros(5, dtype=int)
    for step in range(15):
        action = rng.integers(5, size=5)
        last = env.step(torch.as_tensor(action))
        for lane in range(5):
            position[lane], reward = step_by_definition(
                goals[lane], position[lane], action[lane], cells
            )
            assert tuple(last.next_obs[lane].tolist()) == position[lane]
            assert float(last.reward[lane]) == np.float32(reward)
            assert bool(last.success[lane]) == (reward == 1)
            found[lane] += reward == 1
        assert not last.terminated.any()
        assert last.truncated.tolist() == [step == 14] * 5
    assert 0 < found.sum() < 75  # both rewards were compared


def test_goals_are_the_21_cells_not_adjacent_to_the_start():
    goals = {tuple(goal) for goal in GridNavigation().goals().tolist()}
    assert len(goals) == 21
    every = {(x, y) for x in range(5) for y in range(5)}
    assert every - goals == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_both_splits_draw_every_goal_equally_often():
    family = GridNavigation()
    for split in ("train", "test"):
        drawn = family.sample_tasks(21_000, seeded(0), split)
        goals, count = drawn.unique(dim=0, return_counts=True)
        assert sorted(goals.tolist()) == sorted(family.goals().tolist())
        # A thousand of each, within four standard deviations of a binomial.
        assert (count - 1000).abs().max() < 4 * (1000 * 20 / 21) ** 0.5


@pytest.mark.parametrize("held_out", [1, 5, 20])
def test_held_out_goals_are_never_training_goals(held_out):
    family = GridNavigation(held_out_goals=held_out)
    train, test = (
        {tuple(goal) for goal in family.sample_tasks(1000, seeded(0), split).tolist()}
        for split in ("train", "test")
    )
    assert train & test == set()
    assert (len(train), len(test)) == (21 - held_out, held_out)
    assert train | test == {tuple(goal) for goal in family.goals().tolist()}


def test_held_out_goals_are_spread_over_the_grid_and_fixed():
    goals = GridNavigation(held_out_goals=6).goals("test")
    assert all(len(coordinate.unique()) >= 3 for coordinate in goals.unbind(1))
    fewer = GridNavigation(held_out_goals=5).goals("test").tolist()
    assert all(goal in goals.tolist() for goal in fewer)


def test_tasks_are_integer_cells_of_the_grid():
    family = GridNavigation()
    tasks = as_tasks(family, [[4, 4], [0, 0]])
    assert (tasks.tolist(), tasks.dtype) == ([[4, 4], [0, 0]], torch.int64)
    with pytest.raises(TaskError, match=r"Task 1 of 2 is \[5, 0\], outside the task space"):
        as_tasks(family, [[4, 4], [5, 0]])
    with pytest.raises(TaskError, match=r"Task 0 of 1 is \[0, -1\], outside the task space"):
        as_tasks(family, [[0, -1]])
    with pytest.raises(TaskError, match="are whole numbers in Box"):
        as_tasks(family, [[1.5, 2.0]])


@given(seed=st.integers(0, 1000), cells=st.integers(3, 8), lanes=st.integers(1, 10))
def test_functions_are_pure_and_stay_within_their_spaces(seed, cells, lanes):
    family, generator = GridNavigation(cells=cells), seeded(seed)
    task = family.sample_tasks(lanes, generator)
    assert all(one in family.task_space for one in task.numpy())
    state = torch.randint(cells, (lanes, 2), generator=generator)
    action = torch.randint(5, (lanes,), generator=generator)
    before = task.clone(), state.clone(), action.clone()
    first, again = (family.step(task, state, action, noise_of(seed, lanes)) for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert all(map(torch.equal, (task, state, action), before))
    obs = family.observe(task, first[0])
    assert all(one in family.observation_space for one in obs.numpy())
    assert set(first[1].tolist()) <= {1.0, float(np.float32(-0.1))}
    family.observe(task, state).fill_(9.0)
    assert torch.equal(state, before[1])


def test_a_thousand_random_rollouts_are_finite_and_within_the_spaces():
    family = metarl.make_family("metarl/GridNavigation-v0")
    tasks = family.sample_tasks(1000, seeded(0))
    policy = family.references(4)["random"].build(tasks)
    trajectory = collect(family, tasks, policy, episodes=4, seeds=Seeds(0), keep_next_obs=True)
    assert trajectory.valid.all()
    assert trajectory.reward.shape == (60, 1000, 1)
    assert (trajectory.next_obs >= 0).all()
    assert (trajectory.next_obs <= 4).all()
    assert trajectory.episode_returns(4).isfinite().all()
    assert torch.equal(trajectory.success, trajectory.reward == 1)


def test_a_trial_has_four_episodes_of_fifteen_steps():
    family = GridNavigation()
    assert (family.episode_steps, family.trial_episodes) == (15, 4)
    assert GridNavigation(steps=7).episode_steps == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps=0 must be greater than zero"),
        ({"cells": 2}, "cells=2 must be at least 3"),
        ({"held_out_goals": 21}, "held_out_goals=21 must lie between 0 and 20"),
        ({"held_out_goals": -1}, "held_out_goals=-1 must lie between 0 and 20"),
        ({"cells": 3, "held_out_goals": 5}, "held_out_goals=5 must lie between 0 and 4: of 5"),
    ],
)
def test_invalid_options_raise_an_error(options, message):
    with pytest.raises(ConfigError, match=message):
        GridNavigation(**options)
