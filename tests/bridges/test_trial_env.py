"""Trials as episodes: percepts of the engine, read as one vector, and what ends where."""

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
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TensorEnv
from tests.simple_families import Countdown, Recorder

SPREAD = torch.tensor([1, 2, 3, 5])  # episodes of 1, 2, 3 and (cut at the limit) 4 steps


def trial_world(family, tasks, episodes, seed=0):
    world = TensorEnv(family, tasks, Seeds(seed).torch("world"))
    return TrialEnv(world, family.action_space, episodes)


def test_the_vector_spelt_out():
    world = trial_world(Countdown(), torch.tensor([2]), 2)
    # Observation (task, steps), one-hot action, reward, terminated, truncated, first, first.
    assert world.reset()[0].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    lived = [world.step(torch.tensor([action])) for action in (1, 2, 0, 1)]
    assert [step.obs[0].tolist() for step in lived] == [
        [2, 1, 0, 1, 0, 211, 0, 0, 0, 0],
        [2, 0, 0, 0, 1, 222, 1, 0, 1, 0],  # the next episode is open, the last flags are told
        [2, 1, 1, 0, 0, 210, 0, 0, 0, 0],
        [2, 2, 0, 1, 0, 221, 1, 0, 0, 0],  # the trial is over, and nothing opens
    ]
    assert [step.terminated.item() for step in lived] == [False, False, False, True]
    assert [step.reward.item() for step in lived] == [211, 222, 210, 221]
    assert world.reset(torch.tensor([True]))[0].tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 1, 1]


def test_a_trial_that_ends_at_a_time_limit_is_terminated():
    world = trial_world(Countdown(limit=2), torch.tensor([9]), 1)
    world.reset()
    lived = [world.step(torch.tensor([0])) for _ in range(2)]
    assert [bool(step.terminated) for step in lived] == [False, True]
    assert not any(bool(step.truncated) for step in lived)
    assert lived[1].obs[0, -4:].tolist() == [0, 1, 0, 0]  # truncated is told, nothing opens


@pytest.mark.parametrize(
    ("family", "tasks"),
    [
        (Countdown(), SPREAD),
        (BernoulliBandit(), torch.rand(3, 5, generator=Seeds(1).torch("tasks"))),
        (PointNavigation(steps=5), torch.tensor([[0.05, 0.0], [0.5, 0.5]])),
    ],
)
def test_a_life_reads_as_in_the_engine(family, tasks):
    policy = family.references(3)["random"].build(tasks) if family.references(3) else Recorder()
    life = collect(family, tasks, policy, episodes=3, seeds=Seeds(0))
    shown = percept_features(action_head(family.action_space), life.percepts())[:, :, 0]
    world = trial_world(family, tasks, 3)
    obs = world.reset()
    for t in range(len(life.valid)):
        alive = life.valid[t, :, 0]
        torch.testing.assert_close(obs[alive], shown[t, alive], rtol=0, atol=0)
        step = world.step(life.action[t, :, 0])
        torch.testing.assert_close(step.reward[alive], life.reward[t, alive, 0])
        assert step.terminated[alive].tolist() == life.trial_end[t, alive, 0].tolist()
        # Lanes that are over live on like others; the engine's log of them is blank.
        obs = step.obs
    assert bool(life.trial_end.any(0).all())


def test_lanes_are_alike_whenever_their_neighbours_end():
    together = trial_world(Countdown(), SPREAD, 2)
    alone = [trial_world(Countdown(), task[None], 2) for task in SPREAD]
    seen, single = together.reset(), [world.reset() for world in alone]
    ends = torch.zeros(4, dtype=torch.int64)
    for t in range(30):
        torch.testing.assert_close(seen, torch.cat(single), rtol=0, atol=0)
        action = torch.full((4,), t % 3)
        last = together.step(action)
        single = []
        for lane, world in enumerate(alone):
            step = world.step(action[lane, None])
            assert step.terminated[0] == last.terminated[lane]
            single.append(world.reset() if bool(step.terminated) else step.obs)
        ends += last.terminated
        seen = together.reset(last.terminated) if bool(last.terminated.any()) else last.obs
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


def test_a_trial_has_an_episode():
    with pytest.raises(ConfigError, match="episodes=0"):
        trial_world(Countdown(), SPREAD, 0)
