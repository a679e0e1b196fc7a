"""Trials as episodes of a batched env: percepts as vectors, ends of episodes and trials."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.bridges.trial_env import TrialEnv, percept_space
from metarl.envs.bandits.multi_armed import BernoulliBandit
from metarl.envs.navigation.point_navigation import PointNavigation
from metarl.errors import ConfigError
from metarl.networks.action_heads import action_head
from metarl.networks.actor_critic import percept_features
from metarl.noise import LaneNoise
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.tensor_env import TensorEnv
from tests.simple_families import Countdown, Recorder

SPREAD = torch.tensor([1, 2, 3, 5])  # episodes of 1, 2, 3 and (truncated) 4 steps


def trial_env(family, tasks, episodes, seed=0):
    env = TensorEnv(family, tasks, LaneNoise.of(Seeds(seed), "world", len(tasks)))
    return TrialEnv(env, family.action_space, episodes)


def test_the_numbers_of_the_observation():
    env = trial_env(Countdown(), torch.tensor([2]), 2)
    # Observation (task, steps), one-hot action, reward, terminated, truncated, first, first.
    assert env.reset()[0].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    steps = [env.step(torch.tensor([action])) for action in (1, 2, 0, 1)]
    assert [step.next_obs[0].tolist() for step in steps] == [
        [2, 1, 0, 1, 0, 211, 0, 0, 0, 0],
        [
            2,
            0,
            0,
            0,
            1,
            222,
            1,
            0,
            1,
            0,
        ],  # initial observation of episode 2, flags of episode 1
        [2, 1, 1, 0, 0, 210, 0, 0, 0, 0],
        [2, 2, 0, 1, 0, 221, 1, 0, 0, 0],  # terminal observation: the trial has ended
    ]
    assert [step.terminated.item() for step in steps] == [False, False, False, True]
    assert [step.reward.item() for step in steps] == [211, 222, 210, 221]
    assert env.reset(torch.tensor([True]))[0].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 1, 1]


def test_a_trial_that_ends_at_a_time_limit_is_terminated():
    env = trial_env(Countdown(limit=2), torch.tensor([9]), 1)
    env.reset()
    steps = [env.step(torch.tensor([0])) for _ in range(2)]
    assert [bool(step.terminated) for step in steps] == [False, True]
    assert not any(bool(step.truncated) for step in steps)
    assert steps[1].next_obs[0, -4:].tolist() == [
        0,
        1,
        0,
        0,
    ]  # `truncated` is still shown


@pytest.mark.parametrize(
    ("family", "tasks"),
    [
        (Countdown(), SPREAD),
        (BernoulliBandit(), torch.rand(3, 5, generator=Seeds(1).torch("tasks"))),
        (PointNavigation(steps=5), torch.tensor([[0.05, 0.0], [0.5, 0.5]])),
    ],
)
def test_observations_equal_the_percepts_of_collect(family, tasks):
    policy = family.references(3)["random"].build(tasks) if family.references(3) else Recorder()
    data = collect(family, tasks, policy, episodes=3, seeds=Seeds(0))
    features = percept_features(action_head(family.action_space), data.percepts())[:, :, 0]
    env = trial_env(family, tasks, 3)
    obs = env.reset()
    for t in range(len(data.valid)):
        active = data.valid[t, :, 0]
        torch.testing.assert_close(obs[active], features[t, active], rtol=0, atol=0)
        step = env.step(data.action[t, :, 0])
        torch.testing.assert_close(step.reward[active], data.reward[t, active, 0])
        assert step.terminated[active].tolist() == data.trial_end[t, active, 0].tolist()
        obs = step.next_obs
    assert bool(data.trial_end.any(0).all())


def test_a_lane_does_not_depend_on_when_other_lanes_end():
    together = trial_env(Countdown(), SPREAD, 2)
    alone = [trial_env(Countdown(), task[None], 2) for task in SPREAD]
    obs, single = together.reset(), [env.reset() for env in alone]
    ends = torch.zeros(4, dtype=torch.int64)
    for t in range(30):
        torch.testing.assert_close(obs, torch.cat(single), rtol=0, atol=0)
        action = torch.full((4,), t % 3)
        last = together.step(action)
        single = []
        for lane, env in enumerate(alone):
            step = env.step(action[lane, None])
            assert step.terminated[0] == last.terminated[lane]
            single.append(env.reset() if bool(step.terminated) else step.next_obs)
        ends += last.terminated
        obs = together.reset(last.terminated) if bool(last.terminated.any()) else last.next_obs
    assert ends.tolist() == [15, 7, 5, 3]  # 30 steps in trials of 2, 4, 6 and 8


def test_percepts_lie_in_their_space():
    unbounded = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    bounds = np.array([[-2, -np.inf], [4, np.inf]], dtype=np.float32)
    head = action_head(spaces.Box(*bounds))
    space = percept_space(unbounded, head)
    inf = np.inf
    assert space.high.tolist() == [inf, inf, 1, inf, inf, 1, 1, 1, 1]
    assert space.low.tolist() == [-inf, -inf, -1, -inf, -inf, 0, 0, 0, 0]
    one_hot = percept_space(spaces.Box(-1, 1, (1,)), action_head(spaces.Discrete(2)))
    assert one_hot.low.tolist() == [-1, 0, 0, -inf, 0, 0, 0, 0]
    assert one_hot.high.tolist() == [1, 1, 1, inf, 1, 1, 1, 1]


def test_a_trial_needs_a_positive_number_of_episodes():
    with pytest.raises(ConfigError, match="episodes=0"):
        trial_env(Countdown(), SPREAD, 0)
