"""Meta-World: training never meets a test task, and a task is what its number says."""

import pickle

import numpy as np
import pytest
import torch

import metarl
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy

pytest.importorskip("metaworld", reason="needs the extra 'metaworld'")

from metarl.envs.meta_world import MetaWorld, benchmark_tasks


def place(task):
    """What a task is: the thing to do, and where."""
    return task.env_name, tuple(np.round(pickle.loads(task.data)["rand_vec"], 6))


@pytest.mark.parametrize(
    ("benchmark", "train", "test"),
    [
        ("ML1", (1, 50), (1, 50)),
        ("ML10", (10, 500), (5, 250)),
        pytest.param("ML45", (45, 2250), (5, 250), marks=pytest.mark.slow),  # a minute
    ],
)
def test_no_test_task_is_met_in_training(benchmark, train, test):
    _, tasks, trained_on = benchmark_tasks(benchmark, "reach-v3", 1)
    splits = tasks[:trained_on], tasks[trained_on:]
    for part, (things, count) in zip(splits, (train, test), strict=True):
        assert len(part) == count
        assert len({task.env_name for task in part}) == things
    seen, unseen = ({place(task) for task in part} for part in splits)
    assert len(seen) > 0.9 * train[1]
    assert not seen & unseen
    if benchmark != "ML1":
        assert not {name for name, _ in seen} & {name for name, _ in unseen}


def test_further_draws_add_training_goals_and_leave_test_goals_as_they_are():
    _, once, of_one = benchmark_tasks("ML1", "reach-v3", 1)
    _, thrice, of_three = benchmark_tasks("ML1", "reach-v3", 1, 3)
    assert (of_one, of_three) == (50, 150)
    goals = [place(task) for task in thrice]
    assert goals[:50] == [place(task) for task in once[:50]]
    assert goals[150:] == [place(task) for task in once[50:]]
    assert len(set(goals)) == 200


def test_splits_draw_their_own_numbers():
    family = metarl.make_family("metarl/MetaWorldML1-v0")
    train, test = (
        set(family.sample_tasks(500, metarl.Seeds(0).torch("tasks"), split).tolist())
        for split in ("train", "test")
    )
    assert train == set(range(50))
    assert test == set(range(50, 100))


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["ML1", "ML10"])
def test_in_a_thousand_lives_under_any_moves_spaces_hold_and_numbers_are_finite(benchmark):
    env = MetaWorld(benchmark=benchmark)
    luck = np.random.default_rng(0)
    for life in range(1000):
        task = env.sample_task(luck, "test" if life % 2 else "train")
        obs, _ = env.reset(seed=life, options={"task": task})
        assert env.observation_space.contains(obs)
        for _ in range(luck.integers(1, 6)):
            obs, reward, *_ = env.step(luck.uniform(-2, 2, 4).astype(np.float32))
            assert env.observation_space.contains(obs)
            assert np.isfinite(obs).all()
            assert np.isfinite(reward)


def test_the_goal_is_hidden_and_decides_the_reward():
    env = MetaWorld()
    lives = []
    for task in (0, 1, 0):
        obs, _ = env.reset(options={"task": task})
        assert (obs[-3:] == 0).all()
        lives.append([env.step(np.full(4, 0.5))[1] for _ in range(5)])
        assert env.reset()[0].shape == (39,)
        again = [env.step(np.full(4, 0.5))[1] for _ in range(5)]
        assert again == lives[-1]  # the task has stayed
    assert lives[0] == lives[2] != lives[1]


def test_a_trial_is_lived_to_its_time_limit():
    family = metarl.make_family("metarl/MetaWorldML1-v0", thing="push-v3")
    assert family.defines_success
    policy = UniformPolicy(family.action_space)
    life = metarl.collect(family, torch.tensor([3]), policy, episodes=2, seeds=metarl.Seeds(0))
    assert life.episode_lengths(2).flatten().tolist() == [500, 500]
    assert bool(life.truncated[499, 0, 0])


def test_what_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'reach-v3'"):
        MetaWorld(thing="reach-v2")
    with pytest.raises(ConfigError, match="one of ML1, ML10, ML25, ML45"):
        MetaWorld(benchmark="ML2")
    with pytest.raises(ConfigError, match="at least 1"):
        MetaWorld(goals_seed=0)
    with pytest.raises(ConfigError, match="ML10 has its own"):
        MetaWorld(benchmark="ML10", thing="push-v3")
    with pytest.raises(ConfigError, match="one is the benchmark itself"):
        MetaWorld(draws=0)
