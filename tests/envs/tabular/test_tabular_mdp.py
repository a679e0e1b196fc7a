"""Tabular MDPs: steps against a plain loop, transition frequencies, tasks and options."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metarl.envs.tabular.planning import MDP
from metarl.envs.tabular.tabular_mdp import TabularMDP
from metarl.errors import ConfigError, TaskError
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.tasks.family import as_tasks
from metarl.tasks.tensor_env import TensorEnv
from tests.bandit_rollouts import seeded

SMALL = {"states": 3, "actions": 2, "steps": 4}


def noise_of(lanes, seed=0):
    return LaneNoise.of(Seeds(seed), "noise", lanes)


def step_by_definition(table, reward, state, action, uniform, normal):
    """Inverse of the distribution function, and a normal reward; in double precision."""
    row = [float(table[state][action][other]) for other in range(len(table))]
    total, next_state = 0.0, 0
    for other, weight in enumerate(row):
        total += weight / sum(row)
        if uniform < total:
            next_state = other
            break
    return next_state, float(reward[state][action]) + normal


def test_every_lane_equals_a_plain_loop_over_steps():
    family, rng = TabularMDP(**SMALL), np.random.default_rng(0)
    lanes = 7
    tasks = family.sample_tasks(lanes, seeded(1))
    env, same_noise = TensorEnv(family, tasks, noise_of(lanes)), noise_of(lanes)
    visited = set()
    for episode in range(5):
        state = [0] * lanes
        assert env.reset().argmax(1).tolist() == state
        for step in range(4):
            action = rng.integers(2, size=lanes)
            last = env.step(torch.as_tensor(action))
            now = same_noise.at(4 * episode + step)
            uniform, normal = now.uniform().tolist(), now.normal().tolist()
            for lane in range(lanes):
                numbers = tasks[lane].numpy()
                table, reward = numbers[:18].reshape(3, 2, 3), numbers[18:].reshape(3, 2)
                state[lane], expected = step_by_definition(
                    table, reward, state[lane], action[lane], uniform[lane], normal[lane]
                )
                assert last.next_obs[lane].tolist() == [float(state[lane] == k) for k in range(3)]
                assert float(last.reward[lane]) == pytest.approx(expected, abs=1e-5)
                visited.add((state[lane], int(action[lane])))
            assert not last.terminated.any()
            assert last.truncated.tolist() == [step == 3] * lanes
    assert len(visited) == 6


def test_transitions_and_rewards_have_the_distributions_of_the_tables():
    family, lanes = TabularMDP(**SMALL), 40_000
    mdp = family.mdp(family.sample_tasks(1, seeded(0)))
    task = mdp.packed().expand(lanes, -1)
    noise = noise_of(lanes)
    for state in range(3):
        for action in range(2):
            states, actions = torch.full((lanes,), state), torch.full((lanes,), action)
            after, reward, _ = family.step(task, states, actions, noise)
            p = mdp.transitions[0, state, action]
            share = torch.bincount(after, minlength=3) / lanes
            assert ((share - p).abs() < 4 * (p * (1 - p) / lanes).sqrt()).all()
            expected = float(mdp.rewards[0, state, action])
            assert abs(float(reward.mean()) - expected) < 4 / lanes**0.5
            # The variance of a sample of normal numbers has variance 2 / n.
            assert abs(float(reward.var()) - 1) < 4 * (2 / lanes) ** 0.5


def tasks_with_rows(row, reward=0.0, lanes=2000):
    """Tasks [lanes, F] with one action, where the next state of every state is drawn by `row`."""
    states = len(row)
    table = torch.tensor(row).expand(states, 1, states)
    return MDP(table, torch.full((states, 1), reward)).packed().expand(lanes, -1)


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        ([0.0, 1.0, 0.0], {1}),
        ([0.0, 0.5, 0.0, 0.5, 0.0], {1, 3}),
        ([1.0, 0.0], {0}),
        ([0.0, 0.0, 1.0], {2}),
        ([1.0], {0}),
        ([0.25, 0.75], {0, 1}),
        ([0.1, 0.1], {0, 1}),  # weights: they need not add up to one
        ([0.3] * 10, set(range(10))),
    ],
)
def test_states_of_probability_zero_are_never_reached(row, reached):
    family = TabularMDP(states=len(row), actions=1)
    task = tasks_with_rows(row)
    zero = torch.zeros(len(task), dtype=torch.int64)
    after, _, _ = family.step(task, zero, zero, noise_of(2000))
    assert set(after.tolist()) == reached


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("row", [[0.0, 0.1, 0.2, 0.0], [0.0, 0.7, 0.1, 0.2, 0.0]])
def test_extreme_uniform_samples_reach_only_possible_states(monkeypatch, uniform, row):
    family = TabularMDP(states=len(row), actions=1)
    monkeypatch.setattr(LaneNoise, "uniform", lambda self: torch.full((self.lanes,), uniform))
    zero = torch.zeros(2000, dtype=torch.int64)
    after, _, _ = family.step(tasks_with_rows(row), zero, zero, noise_of(2000))
    possible = [state for state, weight in enumerate(row) if weight]
    assert set(after.tolist()) == {possible[-1] if uniform else possible[0]}


def test_reward_noise_does_not_depend_on_the_action():
    family = TabularMDP()
    task = family.sample_tasks(500, seeded(0))
    state = family.reset(task, noise_of(500))
    noise = []
    for action in (0, 3):
        taken = torch.full((500,), action)
        _, reward, _ = family.step(task, state, taken, noise_of(500))
        noise.append(reward - family.mdp(task).rewards[:, 0, action])
    torch.testing.assert_close(*noise, atol=1e-5, rtol=0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_tasks_are_drawn_from_the_prior(split):
    family, num_tasks = TabularMDP(prior_mean=-2.0), 4000
    mdp = family.mdp(family.sample_tasks(num_tasks, seeded(0), split))
    rows = mdp.transitions.flatten(0, 2).double()
    assert (rows.sum(1) - 1).abs().max() < 1e-6
    # Dirichlet(1, ..., 1) of ten: every entry is Beta(1, 9), two of them are correlated by -1/9.
    variance = 9 / (10**2 * 11)
    assert (rows.mean(0) - 0.1).abs().max() < 4 * (variance / len(rows)) ** 0.5
    off_diagonal = 1 - torch.eye(10)
    expected = variance * (torch.eye(10) - off_diagonal / 9)
    torch.testing.assert_close(rows.T.cov(), expected.double(), atol=2e-4, rtol=0)
    assert float((rows[:, 0] > 0.5).double().mean()) == pytest.approx(0.5**9, rel=0.2)
    rewards = mdp.rewards.flatten()
    assert abs(float(rewards.mean()) + 2) < 4 / len(rewards) ** 0.5
    assert abs(float(rewards.var()) - 1) < 4 * (2 / len(rewards)) ** 0.5


def test_equal_seeds_draw_equal_tasks_and_different_seeds_different_ones():
    first, again, other = (TabularMDP().sample_tasks(9, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    states=st.integers(1, 6),
    actions=st.integers(1, 4),
    lanes=st.integers(1, 10),
)
def test_tasks_and_observations_lie_in_their_spaces(seed, states, actions, lanes):
    family, generator = TabularMDP(states=states, actions=actions), seeded(seed)
    tasks, noise = family.sample_tasks(lanes, generator), noise_of(lanes, seed)
    assert tasks.shape == (lanes, states * actions * (states + 1))
    assert all(task in family.task_space for task in tasks.numpy())
    torch.testing.assert_close(family.mdp(tasks).packed(), tasks)
    state = family.reset(tasks, noise)
    for _ in range(3):
        action = torch.randint(actions, (lanes,), generator=generator)
        before = state.clone()
        after, reward, terminated = family.step(tasks, state, action, noise)
        assert torch.equal(state, before)
        assert reward.isfinite().all()
        assert terminated.dtype == torch.bool
        observed = family.observe(tasks, after)
        assert all(obs in family.observation_space for obs in observed.numpy())
        state = after


def test_tasks_outside_the_task_space_are_refused():
    family = TabularMDP(states=2, actions=1)
    given = [[0.5, 0.5, 1.0, 0.0, -100.0, 100.0]]  # mean rewards are unbounded
    assert as_tasks(family, given).tolist() == given
    with pytest.raises(TaskError, match="outside the task space"):
        as_tasks(family, [[-0.5, 0.5, 1.0, 0.0, 0.0, 0.0]])
    with pytest.raises(TaskError, match=r"must have shape \['N', 6\]"):
        as_tasks(family, [[0.5, 0.5]])


def test_a_trial_has_ten_episodes_of_ten_steps():
    family = TabularMDP()
    assert (family.episode_steps, family.trial_episodes) == (10, 10)
    assert family.task_space.shape == (550,)
    assert family.action_space.n == 5


@pytest.mark.parametrize("name", ["states", "actions", "steps"])
def test_options_of_zero_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name}=0 must be greater than zero"):
        TabularMDP(**{name: 0})
