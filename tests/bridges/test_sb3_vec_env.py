"""Families as vector environments of stable-baselines3: conventions, tasks, trials, agents."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import metarl
from metarl.bridges.sb3_vec_env import task_features, to_sb3_vec_env
from metarl.bridges.task_env import TaskEnv
from metarl.envs.bandits.multi_armed import GoalBandit
from metarl.envs.navigation.point_navigation import PointNavigation
from metarl.errors import ConfigError, TaskError, UnknownNameError
from tests.broken_envs import ValidFamily
from tests.simple_families import Countdown

NAVIGATION = "metarl.envs.navigation.point_navigation:PointNavigation"
SURE = {"p_goal": 1.0, "p_other": 0.0}


@pytest.fixture(autouse=True)
def one_thread():
    """A second thread slows down networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_behaves_as_a_dummy_vec_env():
    # Lanes reach their goals at different steps; one starts at its goal, one never reaches it.
    tasks = np.array([[0.1, 0.1], [0.25, -0.3], [0.0, 0.0], [-0.5, 0.5]], dtype=np.float32)
    dummy = DummyVecEnv([lambda: TaskEnv(NAVIGATION, steps=4) for _ in tasks])
    for env, task in zip(dummy.envs, tasks, strict=True):
        env.reset(options={"task": task})
    env = to_sb3_vec_env("metarl/PointNavigation-v0", 4, tasks=tasks, steps=4)
    assert env.observation_space == dummy.observation_space
    assert env.action_space == dummy.action_space
    np.testing.assert_array_equal(dummy.reset(), env.reset())
    ends = np.zeros(4, dtype=int)
    for _ in range(15):
        action = np.clip(tasks, -0.1, 0.1)
        one, two = dummy.step(action), env.step(action)
        for part, other in zip(one[:3], two[:3], strict=True):
            np.testing.assert_array_equal(part, other)
            assert part.dtype == other.dtype
        ends += two[2]
        for expected, info, ended in zip(one[3], two[3], two[2], strict=True):
            assert expected["TimeLimit.truncated"] == info["TimeLimit.truncated"]
            assert ("terminal_observation" in expected) == ("terminal_observation" in info) == ended
            if ended:
                final = expected["terminal_observation"], info["terminal_observation"]
                np.testing.assert_array_equal(*final)
                assert info["is_success"] != info["TimeLimit.truncated"]
    assert (ends >= 3).all()


def goals(env):
    return [int(task) for task in env.get_attr("task")]


def test_every_episode_draws_a_task_of_the_split():
    split = {"arms": 9, "held_out_arms": 4}
    for name, arms in (("train", range(5)), ("test", range(5, 9))):
        env = to_sb3_vec_env("metarl/GoalBandit-v0", 8, split=name, **split)
        env.reset()
        drawn = []
        for _ in range(60):
            drawn.append(goals(env))
            env.step(np.zeros(8, dtype=int))
        drawn = np.array(drawn)
        assert all(set(drawn[:, lane]) == set(arms) for lane in range(8))
        assert any(len(set(row)) > 1 for row in drawn.tolist())


def test_only_ended_lanes_get_a_new_task():
    env = to_sb3_vec_env(Countdown(), 16, seed=3)  # episodes of 1 to 4 steps
    obs = env.reset()
    changed = kept = 0
    for _ in range(40):
        before = np.array(goals(env))
        np.testing.assert_array_equal(obs[:, 0], before)
        obs, reward, ended, infos = env.step(np.zeros(16, dtype=int))
        assert ((reward // 100) == before).all()  # the reward encodes the task of the step
        now = np.array(goals(env))
        assert (now == before)[~ended].all()
        changed += (now != before)[ended].sum()
        kept += (~ended).sum()
        for lane in np.flatnonzero(ended):
            assert infos[lane]["terminal_observation"][0] == before[lane]
            assert obs[lane].tolist() == [now[lane], 0]
    assert changed > 50 < kept


def test_given_tasks_are_fixed_and_lanes_of_a_task_are_neighbours():
    env = to_sb3_vec_env("metarl/GoalBandit-v0", 6, tasks=[4, 0, 2], **SURE)
    for _ in range(3):
        env.reset()
        for _ in range(4):
            _, reward, _, _ = env.step(np.array([4, 3, 0, 0, 2, 1]))
            assert reward.tolist() == [1, 0, 1, 1, 1, 0]
    assert goals(env) == [4, 4, 0, 0, 2, 2]


def test_an_episode_is_a_trial_and_the_next_one_draws_a_task():
    env = to_sb3_vec_env("metarl/GoalBandit-v0", 32, trial=True, episodes=3, **SURE)
    assert env.observation_space.shape == (1 + 5 + 5,)
    obs = env.reset()
    tasks = []
    for trial in range(4):
        tasks.append(goals(env))
        assert (obs[:, -1] == 1).all()
        for pull in range(3):
            obs, reward, ended, infos = env.step(np.full(32, pull))
            np.testing.assert_array_equal(reward, np.array(tasks[trial]) == pull)
            assert (ended == (pull == 2)).all()
            if pull < 2:
                assert goals(env) == tasks[trial]
                np.testing.assert_array_equal(obs[:, 6], reward)
                assert (obs[:, 1 + pull] == 1).all()
        assert not any(info["TimeLimit.truncated"] for info in infos)
        finals = np.stack([info["terminal_observation"] for info in infos])
        np.testing.assert_array_equal(finals[:, 6], reward)
    assert len({tuple(task) for task in tasks}) == 4
    default = to_sb3_vec_env("metarl/GoalBandit-v0", 1, trial=True, pulls=7)
    default.reset()
    assert [bool(default.step(np.zeros(1, dtype=int))[2]) for _ in range(7)] == [False] * 6 + [True]


@pytest.mark.parametrize("trial", [False, True])
def test_informed_observations_end_with_the_current_task(trial):
    plain, env = (
        to_sb3_vec_env(Countdown(), 16, seed=3, trial=trial, informed=informed)
        for informed in (False, True)
    )
    obs, uninformed = env.reset(), plain.reset()
    for step in range(20):
        now = np.eye(10)[np.array(goals(env)) - 1]
        np.testing.assert_array_equal(obs, np.concatenate((uninformed, now), 1))
        assert env.observation_space.contains(obs[0])
        obs, _, ended, infos = env.step(np.full(16, step % 3))
        uninformed = plain.step(np.full(16, step % 3))[0]
        for lane in np.flatnonzero(ended):
            final = infos[lane]["terminal_observation"]
            assert final[0] == final[-10:].argmax() + 1
            np.testing.assert_array_equal(final[-10:], now[lane])


def test_task_features_and_the_space_of_informed_observations():
    env = to_sb3_vec_env("metarl/PointNavigation-v0", 1, informed=True)
    assert env.observation_space.high.tolist() == [np.inf, np.inf, 0.5, 0.5]
    goal = torch.tensor([[0.1, 0.2]])
    torch.testing.assert_close(task_features(PointNavigation().task_space, goal), goal)
    arms = task_features(GoalBandit(arms=3).task_space, torch.tensor([2, 0]))
    assert arms.tolist() == [[0, 0, 1], [1, 0, 0]]


def rollout(env, seed=None):
    if seed is not None:
        env.seed(seed)
    env.reset()
    return [env.step(np.full(64, t % 5))[1].tolist() for t in range(4)], env.get_attr("task")


def same(one, other):
    return one[0] == other[0] and np.array_equal(one[1], other[1])


def test_seeds_repeat_tasks_and_noise():
    env = to_sb3_vec_env("metarl/BernoulliBandit-v0", 64, seed=1)
    other = to_sb3_vec_env("metarl/BernoulliBandit-v0", 64, seed=2)
    first = rollout(env, 5)
    assert same(first, rollout(other, 5))
    assert not same(first, rollout(other, 6))
    assert same(first, rollout(env, 5))
    assert not same(first, rollout(env))  # a seed holds for one reset
    assert env.seed(9) == list(range(9, 73))
    made = [rollout(to_sb3_vec_env("metarl/BernoulliBandit-v0", 64, seed=s)) for s in (3, 3, 4)]
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


def test_every_reset_draws_fresh_noise():
    env = to_sb3_vec_env(ValidFamily(), 3, tasks=[0, 1, 2])
    noise = [obs[1] for _ in range(3) for obs in env.reset().tolist()]
    for _ in range(12):
        obs, _, ended, _ = env.step(np.zeros(3, dtype=int))
        noise += obs[ended, 1].tolist()
    noise += [obs[1] for obs in env.reset().tolist()]
    assert len(noise) == len(set(noise)) == 3 * (3 + 2 + 1)
    env.seed(0)
    first = env.reset()
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), first)


@pytest.mark.parametrize("trial", [False, True])
def test_the_noise_of_a_lane_depends_on_no_other_lane(trial):
    few, many = (
        to_sb3_vec_env(ValidFamily(), len(tasks), tasks=tasks, trial=trial, seed=4)
        for tasks in ([5, 2], [5, 2, 7, 0, 1])
    )
    np.testing.assert_array_equal(few.reset(), many.reset()[:2])
    for step in range(12):
        one = few.step(np.full(2, step % 8))
        other = many.step(np.full(5, step % 8))
        for part, whole in zip(one[:3], other[:3], strict=True):
            np.testing.assert_array_equal(part, whole[:2])


def test_infos_of_running_lanes_are_reused():
    env = to_sb3_vec_env(Countdown(), 3, tasks=[1, 3, 3])
    env.reset()
    one, two = (env.step(np.zeros(3, dtype=int))[3] for _ in range(2))
    assert one is not two
    assert one[1] is two[1] == {"TimeLimit.truncated": False}
    assert one[0] is not two[0]
    assert one[1] is not one[2]


@dataclass(frozen=True, kw_only=True)
class Accumulator(Countdown):
    """The reward of step k is k, and it is the same tensor as the state."""

    def reset(self, task, noise):
        return torch.zeros(len(task))

    def observe(self, task, state):
        return torch.stack((state, state), -1)

    def step(self, task, state, action, noise):
        total = state + 1
        return total, total, total >= task

    def success(self, task, state):
        return state >= task


def test_changes_of_returned_rewards_do_not_change_the_state():
    env = to_sb3_vec_env(Accumulator(), 1, tasks=[4])
    env.reset()
    obs, reward, _, _ = env.step(np.zeros(1, dtype=int))
    reward += 100.0  # on-policy learners add the bootstrap value of a truncated episode
    obs += 100.0
    assert env.step(np.zeros(1, dtype=int))[1].tolist() == [2]


def test_vec_monitor_adds_episode_statistics():
    env = VecMonitor(to_sb3_vec_env(Countdown(), 2, tasks=[1, 3]))
    env.reset()
    infos = [env.step(np.zeros(2, dtype=int))[3] for _ in range(3)]
    assert [row[0]["episode"]["l"] for row in infos] == [1, 1, 1]
    assert infos[2][1]["episode"]["r"] == 310 + 320 + 330
    assert "episode" not in infos[1][1]


def test_attributes_and_methods_of_lanes():
    env = to_sb3_vec_env("metarl/GoalBandit-v0", 4, tasks=[0, 3])
    assert goals(env) == [0, 0, 3, 3]
    assert [int(task) for task in env.get_attr("task", [3, 0])] == [3, 0]
    assert env.get_attr("render_mode", 1) == [None]
    assert env.get_attr("family")[0] is env.family
    assert env.get_attr("task_space", 0)[0].n == 5
    assert env.has_attr("spec")
    assert not env.has_attr("colour")
    assert env.env_is_wrapped(TimeLimit) == [False] * 4
    drawn = env.env_method("sample_task", np.random.default_rng(0), split="test", indices=[0, 1])
    assert [int(task) in range(5) for task in drawn] == [True, True]
    with pytest.raises(AttributeError, match="no method 'fly'; it has sample_task"):
        env.env_method("fly")
    with pytest.raises(AttributeError, match="'task' of a lane cannot be set"):
        env.set_attr("task", 3)
    with pytest.raises(ConfigError, match="no reset options"):
        env.set_options({"task": 3})
    env.set_options()
    env.close()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_envs": 0}, ConfigError, "num_envs=0"),
        ({"episodes": 3}, ConfigError, "pass trial=True"),
        ({"episodes": 0, "trial": True}, ConfigError, "episodes=0"),
        ({"tasks": [0, 1, 2]}, ConfigError, "num_envs=4 must be a multiple of the 3 tasks"),
        ({"tasks": [9]}, TaskError, "outside the task space"),
        ({"amrs": 3}, ConfigError, "Did you mean 'arms'"),
        ({"task": "metarl/GaolBandit-v0"}, UnknownNameError, "Did you mean"),
        ({"task": GoalBandit(), "arms": 3}, ConfigError, "a GoalBandit that is already"),
    ],
)
def test_wrong_options_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        to_sb3_vec_env(**{"task": "metarl/GoalBandit-v0", "num_envs": 4, **arguments})


@pytest.mark.parametrize("action", [[0, 0, 0], [[0]] * 4, 0])
def test_actions_of_another_shape_are_refused(action):
    env = to_sb3_vec_env("metarl/GoalBandit-v0", 4)
    env.reset()
    with pytest.raises(InvalidAction, match=r"must have shape \[4\], Discrete\(5\)"):
        env.step(np.array(action))


def test_agents_of_stable_baselines3_train_and_evaluate():
    env = to_sb3_vec_env("metarl/PointNavigation-v0", 8, steps=5)
    model = PPO(
        "MlpPolicy", VecNormalize(VecMonitor(env)), n_steps=8, batch_size=32, n_epochs=1, seed=0
    )
    model.learn(128)
    assert model.ep_info_buffer[0]["l"] == 5
    mean, _ = evaluate_policy(model, VecMonitor(env), n_eval_episodes=8)
    assert -5.0 < mean < 0.0
    SAC("MlpPolicy", env, buffer_size=1000, learning_starts=16, seed=0).learn(48)
    assert not any(info.keys() - {"TimeLimit.truncated"} for info in env._running_infos)


def test_equal_seeds_train_equal_models():
    weights = []
    for seed in (0, 0, 1):
        env = metarl.to_sb3_vec_env("metarl/BernoulliBandit-v0", 8, trial=True)
        model = PPO("MlpPolicy", env, n_steps=10, batch_size=40, n_epochs=1, seed=seed)
        weights.append(model.learn(160).policy.action_net.weight)
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.learning
@pytest.mark.parametrize(("memory", "low", "high"), [(True, 5.3, 6.7), (False, 4.8, 5.2)])
def test_a_recurrent_agent_with_trials_as_episodes_is_rl2(memory, low, high):
    # Ten pulls of five arms: the return is 5 without learning, and 6.66 at the Bayes optimum.
    contrib = pytest.importorskip("sb3_contrib")
    options = {"n_steps": 10, "batch_size": 640, "n_epochs": 4, "learning_rate": 3e-3, "seed": 0}
    env = to_sb3_vec_env("metarl/BernoulliBandit-v0", 256, trial=memory)
    small = {"lstm_hidden_size": 64, "enable_critic_lstm": False, "shared_lstm": True}
    if memory:
        model = contrib.RecurrentPPO("MlpLstmPolicy", env, policy_kwargs=small, **options)
    else:
        model = PPO("MlpPolicy", env, **options)
    model.learn(200_000 if memory else 50_000)
    policy = metarl.sb3_policy(model, "metarl/BernoulliBandit-v0", trial=memory)
    (curve,) = metarl.evaluate_policy(policy, "metarl/BernoulliBandit-v0", agent="ppo")
    assert low <= curve.returns.sum(0).mean() <= high
