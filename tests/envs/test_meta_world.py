"""Meta-World: the splits are disjoint, and a task number determines skill and goal."""

import pickle

import numpy as np
import pytest
import torch

import metarl
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy

pytest.importorskip("metaworld", reason="needs the extra 'metaworld'")

from metarl.envs.meta_world import MetaWorld, benchmark_tasks


def skill_and_goal(task):
    """Skill and goal of a task."""
    return task.env_name, tuple(np.round(pickle.loads(task.data)["rand_vec"], 6))


@pytest.mark.parametrize(
    ("benchmark", "train", "test"),
    [
        ("ML1", (1, 50), (1, 50)),
        ("ML10", (10, 500), (5, 250)),
        pytest.param("ML45", (45, 2250), (5, 250), marks=pytest.mark.slow),  # a minute
    ],
)
def test_train_and_test_tasks_are_disjoint(benchmark, train, test):
    _, tasks, trained_on = benchmark_tasks(benchmark, "reach-v3", 1)
    splits = tasks[:trained_on], tasks[trained_on:]
    for part, (skills, count) in zip(splits, (train, test), strict=True):
        assert len(part) == count
        assert len({task.env_name for task in part}) == skills
    train_set, test_set = ({skill_and_goal(task) for task in part} for part in splits)
    assert len(train_set) > 0.9 * train[1]
    assert not train_set & test_set
    if benchmark != "ML1":
        assert not {name for name, _ in train_set} & {name for name, _ in test_set}


def test_further_draws_add_training_goals_and_keep_the_test_goals():
    _, once, trained_once = benchmark_tasks("ML1", "reach-v3", 1)
    _, thrice, trained_thrice = benchmark_tasks("ML1", "reach-v3", 1, 3)
    assert (trained_once, trained_thrice) == (50, 150)
    goals = [skill_and_goal(task) for task in thrice]
    assert goals[:50] == [skill_and_goal(task) for task in once[:50]]
    assert goals[150:] == [skill_and_goal(task) for task in once[50:]]
    assert len(set(goals)) == 200


def test_each_split_draws_all_of_its_task_numbers():
    family = metarl.make_family("metarl/MetaWorldML1-v0")
    train, test = (
        set(family.sample_tasks(500, metarl.Seeds(0).torch("tasks"), split).tolist())
        for split in ("train", "test")
    )
    assert train == set(range(50))
    assert test == set(range(50, 100))


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["ML1", "ML10"])
def test_under_random_actions_outputs_stay_finite_and_in_their_spaces(benchmark):
    env = MetaWorld(benchmark=benchmark)
    rng = np.random.default_rng(0)
    for episode in range(1000):
        task = env.sample_task(rng, "test" if episode % 2 else "train")
        obs, _ = env.reset(seed=episode, options={"task": task})
        assert env.observation_space.contains(obs)
        for _ in range(rng.integers(1, 6)):
            obs, reward, *_ = env.step(rng.uniform(-2, 2, 4).astype(np.float32))
            assert env.observation_space.contains(obs)
            assert np.isfinite(obs).all()
            assert np.isfinite(reward)


def test_the_goal_is_hidden_and_determines_the_reward():
    env = MetaWorld()
    rewards = []
    for task in (0, 1, 0):
        obs, _ = env.reset(options={"task": task})
        assert (obs[-3:] == 0).all()
        rewards.append([env.step(np.full(4, 0.5))[1] for _ in range(5)])
        assert env.reset()[0].shape == (39,)
        again = [env.step(np.full(4, 0.5))[1] for _ in range(5)]
        assert again == rewards[-1]  # reset keeps the task
    assert rewards[0] == rewards[2] != rewards[1]


def test_episodes_are_truncated_at_the_time_limit():
    family = metarl.make_family("metarl/MetaWorldML1-v0", thing="push-v3")
    assert family.defines_success
    policy = UniformPolicy(family.action_space)
    trajectory = metarl.collect(
        family, torch.tensor([3]), policy, episodes=2, seeds=metarl.Seeds(0)
    )
    assert trajectory.episode_lengths(2).flatten().tolist() == [500, 500]
    assert bool(trajectory.truncated[499, 0, 0])


def test_invalid_options_are_refused():
    with pytest.raises(ConfigError, match="Did you mean 'reach-v3'"):
        MetaWorld(thing="reach-v2")
    with pytest.raises(ConfigError, match="one of ML1, ML10, ML25, ML45"):
        MetaWorld(benchmark="ML2")
    with pytest.raises(ConfigError, match="at least 1"):
        MetaWorld(goals_seed=0)
    with pytest.raises(ConfigError, match="ML10 has its own skills"):
        MetaWorld(benchmark="ML10", thing="push-v3")
    with pytest.raises(ConfigError, match="the first draw is the benchmark itself"):
        MetaWorld(draws=0)
