"""The wrapper whose episodes are trials, around families and around other environments."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import metarl
from metarl.bridges.task_env import TaskEnv
from metarl.bridges.trial_env import TrialEnv
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.tasks.tensor_env import TensorEnv
from tests.known_ids import ENVIRONMENTS, FAMILIES
from tests.simple_families import Countdown


class Door(gymnasium.Env):
    """Three doors; the task is the one that pays, and holds for one episode only."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(3)

    def __init__(self):
        self.task_space = spaces.Discrete(3)
        self.reset_options = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._task = int((options or {}).get("task", -1))
        self.reset_options.append(options)
        return 1, {"start": True}

    def step(self, action):
        return 0, float(action == self._task), False, True, {"door": int(action)}


@pytest.mark.parametrize("task_id", [*FAMILIES, *ENVIRONMENTS[:2]])
@pytest.mark.filterwarnings("ignore:.*Box observation space m...mum value is -?infinity")
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box action")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_trials_of_every_family_pass_the_checkers(task_id):
    check_env(metarl.TrialWrapper(gymnasium.make(task_id)), skip_render_check=True)
    check_env_for_sb3(metarl.TrialWrapper(gymnasium.make(task_id), 2))


@pytest.mark.filterwarnings("ignore:.*Box observation space m...mum value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_trials_of_other_environments_pass_the_checkers():
    check_env(metarl.TrialWrapper(Door(), 2), skip_render_check=True)
    check_env_for_sb3(metarl.TrialWrapper(Door(), 2))


@pytest.mark.parametrize(
    ("task_id", "options", "tasks"),
    [
        ("metarl/PointNavigation-v0", {"steps": 6}, [[0.1, -0.1], [0.3, 0.0], [0.5, 0.5]]),
        ("metarl/GoalBandit-v0", {"p_goal": 1.0, "p_other": 0.0}, [0, 3]),
    ],
)
def test_the_wrapper_gives_the_transitions_of_a_batched_trial_env(task_id, options, tasks):
    family = metarl.make_family(task_id, **options)
    tasks = torch.tensor(tasks)
    tensor_env = TensorEnv(family, tasks, LaneNoise.of(Seeds(0), "world", len(tasks)))
    batched_env = TrialEnv(tensor_env, family.action_space, 3)
    envs = [metarl.TrialWrapper(gymnasium.make(task_id, **options), 3) for _ in tasks]
    obs = [env.reset(options={"task": t.numpy()})[0] for env, t in zip(envs, tasks, strict=True)]
    np.testing.assert_array_equal(obs, batched_env.reset())
    family.action_space.seed(0)
    finished = torch.zeros(len(tasks), dtype=torch.bool)
    for _ in range(18):
        action = np.stack([family.action_space.sample() for _ in tasks])
        last = batched_env.step(torch.tensor(action))
        for i, env in enumerate(envs):
            if finished[i]:
                continue
            obs, reward, terminated, truncated, _ = env.step(action[i])
            assert obs.dtype == np.float32
            np.testing.assert_array_equal(obs, last.next_obs[i])
            assert (reward, terminated) == (last.reward[i].item(), bool(last.terminated[i]))
            assert not truncated
        finished |= last.terminated
    assert finished.all()


def test_a_truncated_episode_sets_a_flag_and_does_not_end_the_trial():
    env = metarl.TrialWrapper(Door(), 2)
    # Observation of two, action of three, reward, terminated, truncated, first, first of trial.
    assert env.reset(options={"task": 2})[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    obs, reward, terminated, truncated, info = env.step(2)
    assert obs.tolist() == [0, 1, 0, 0, 1, 1, 0, 1, 1, 0]
    assert (reward, terminated, truncated, info) == (1.0, False, False, {"door": 2})
    obs, reward, terminated, truncated, _ = env.step(0)
    assert obs.tolist() == [1, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    assert (reward, terminated, truncated) == (0.0, True, False)
    with pytest.raises(ResetNeeded, match=r"No trial is running; call reset\(\)"):
        env.step(0)
    assert env.unwrapped.reset_options == [{"task": 2}, {}]  # the task is passed once


def test_every_reset_draws_a_task_and_every_episode_gets_the_options():
    env = metarl.TrialWrapper(Door(), 2)
    env.reset(seed=3, options={"colour": "red"})
    env.step(0)
    for _ in range(40):
        env.reset()
    first, second, *later = env.unwrapped.reset_options
    assert first == {"task": first["task"], "colour": "red"}
    assert second == {"colour": "red"}  # same task
    assert {int(options["task"]) for options in later} == {0, 1, 2}
    assert all("colour" not in options for options in later)


def tasks_of(env, seed):
    env.reset(seed=seed)
    drawn = [env.get_wrapper_attr("task").tolist()]
    for _ in range(3):
        env.reset()
        drawn.append(env.get_wrapper_attr("task").tolist())
    return drawn


def test_tasks_follow_the_seed_and_the_split():
    make = lambda split: metarl.TrialWrapper(  # noqa: E731
        gymnasium.make("metarl/GoalBandit-v0", arms=4, held_out_arms=2), split=split
    )
    train = [tasks_of(make("train"), seed) for seed in range(12)]
    assert train[0] == tasks_of(make("train"), 0)
    assert {task for tasks in train for task in tasks} == {0, 1}
    assert {task for seed in range(12) for task in tasks_of(make("test"), seed)} == {2, 3}


def test_the_task_space_of_the_environment_is_not_seeded():
    env, space = Door(), spaces.Discrete(3)
    env.task_space.seed(5)
    space.seed(5)
    metarl.TrialWrapper(env, 2).reset(seed=0)
    assert [env.task_space.sample() for _ in range(9)] == [space.sample() for _ in range(9)]


def test_the_number_of_episodes_is_that_of_the_family_unless_given():
    for episodes, ends in ((None, 4), (7, 7)):
        env = metarl.TrialWrapper(gymnasium.make("metarl/BernoulliBandit-v0", pulls=4), episodes)
        env.reset(seed=0)
        assert [env.step(0)[2] for _ in range(ends)] == [False] * (ends - 1) + [True]
    assert env.task_space.shape == (5,)


def test_environments_that_cannot_be_wrapped_are_refused():
    with pytest.raises(ConfigError, match="neither `task_space` nor"):
        metarl.TrialWrapper(gymnasium.make("CartPole-v1"), 2)
    with pytest.raises(ConfigError, match="does not define how many episodes"):
        metarl.TrialWrapper(Door())
    undefined = Door()
    undefined.trial_episodes = None  # the default of `register_varied_env`
    with pytest.raises(ConfigError, match="does not define how many episodes"):
        metarl.TrialWrapper(undefined)
    with pytest.raises(ConfigError, match="episodes=0"):
        metarl.TrialWrapper(Door(), 0)
    env = Door()
    env.action_space = spaces.MultiDiscrete([2, 2])
    with pytest.raises(ConfigError, match="No action head serves MultiDiscrete"):
        metarl.TrialWrapper(env, 2)
    env = Door()
    env.observation_space = spaces.Sequence(spaces.Discrete(2))
    with pytest.raises(ConfigError, match="have no fixed size"):
        metarl.TrialWrapper(env, 2)


def test_a_trial_ends_after_terminated_and_after_truncated_episodes():
    for task, ends in ((2, 4), (9, 8)):
        env = metarl.TrialWrapper(TaskEnv(Countdown), 2)
        env.reset(options={"task": task})
        flags = [env.step(0) for _ in range(ends)]
        assert [flag[2] for flag in flags] == [False] * (ends - 1) + [True]
        assert flags[-1][0][-4:].tolist() == [task == 2, task == 9, 0, 0]


def test_the_environment_can_define_the_number_of_episodes():
    door = Door()
    door.trial_episodes = None  # the default of `register_varied_env`
    with pytest.raises(ConfigError, match="how many episodes a trial has"):
        metarl.TrialWrapper(door)
    door.trial_episodes = 3
    trial = metarl.TrialWrapper(door)
    trial.reset(seed=0, options={"task": 1})
    assert [trial.step(0)[2] for _ in range(3)] == [False, False, True]
