"""Policies of stable-baselines3 models: their inputs, memory and random draws."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from metarl.bridges.sb3_policy import sb3_policy
from metarl.bridges.sb3_vec_env import to_sb3_vec_env
from metarl.envs.bandits.multi_armed import GoalBandit
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from tests.simple_families import Countdown


@pytest.fixture(autouse=True)
def one_thread():
    """A second thread slows down networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class RecordingModel:
    """Records the arguments of `predict`; its memory and actions count the predictions."""

    def __init__(self, width):
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,))
        self.device, self.policy, self.calls = torch.device("cpu"), self, []

    def predict(self, obs, state, episode_start, deterministic):
        call = SimpleNamespace(
            obs=obs,
            state=state,
            starts=episode_start,
            deterministic=deterministic,
            noise=float(torch.rand(())),
        )
        self.calls.append(call)
        return np.full(len(obs), len(self.calls) % 3), len(self.calls)


def rollout(model, family, tasks, *, episodes=2, rollouts_per_task=2, seed=0, **options):
    policy = sb3_policy(model, family, **options)(tasks)
    return collect(
        family,
        tasks,
        policy,
        episodes=episodes,
        rollouts_per_task=rollouts_per_task,
        seeds=Seeds(seed),
    )


@pytest.mark.parametrize(("trial", "starts"), [(False, [1, 0, 1, 0]), (True, [1, 0, 0, 0])])
def test_memory_is_passed_on_and_reset_at_the_same_steps_as_in_training(trial, starts):
    model = RecordingModel(2 + 8 * trial)
    data = rollout(model, Countdown(), torch.tensor([2, 2]), trial=trial)
    assert [call.state for call in model.calls] == [None, 1, 2, 3]
    for call, start in zip(model.calls, starts, strict=True):
        assert call.starts.tolist() == [bool(start)] * 4
    assert data.action[:, 0, 0].tolist() == [1, 2, 0, 1]
    assert not data.log_prob.any()


@pytest.mark.parametrize(("trial", "informed"), [(False, True), (True, False), (True, True)])
def test_a_model_gets_the_observations_of_training(trial, informed):
    tasks = torch.tensor([3, 1, 2])
    model = RecordingModel(2 + 8 * trial + 10 * informed)
    rollout(model, Countdown(), tasks, episodes=2, trial=trial, informed=informed)
    env = to_sb3_vec_env(
        Countdown(), 6, tasks=tasks, trial=trial, episodes=2 * trial or None, informed=informed
    )
    obs, active = env.reset(), np.ones(6, dtype=bool)
    ends = np.zeros(6)
    for number, call in enumerate(model.calls, 1):
        np.testing.assert_array_equal(call.obs[active], obs[active])
        obs, _, ended, _ = env.step(np.full(6, number % 3))
        ends += ended
        active = ends < (1 if trial else 2)
    assert not active.any()


def test_random_draws_follow_the_noise_and_the_global_stream_is_restored():
    noise = []
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for seed in (0, 0, 1):
        model = RecordingModel(2)
        rollout(model, Countdown(), torch.tensor([4]), seed=seed)
        noise.append([call.noise for call in model.calls])
    assert noise[0] == noise[1] != noise[2]
    assert len(set(noise[0])) == len(noise[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_predictions_can_be_deterministic_and_observations_normalised():
    model = RecordingModel(2)
    rollout(model, Countdown(), torch.tensor([2]), deterministic=True, normalise=lambda obs: -obs)
    assert model.calls[0].deterministic is True
    assert model.calls[1].obs[0].tolist() == [-2, -1]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_feed_forward_policy_takes_the_actions_of_its_model(deterministic):
    env = to_sb3_vec_env("metarl/PointNavigation-v0", 2, tasks=[[0.5, 0.5], [0.1, 0.2]], steps=7)
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=8, seed=0, device="cpu")
    data = rollout(model, env.family, torch.tensor([[0.5, 0.5], [0.1, 0.2]]), rollouts_per_task=1)
    assert bool((data.action.abs() <= 0.1).all())  # clipped, as in training
    if deterministic:
        data = rollout(model, env.family, data.obs.new_tensor([[0.5, 0.5]]), deterministic=True)
        obs = data.obs[:, 0, 0].numpy()
        np.testing.assert_array_equal(data.action[:, 0, 0], model.predict(obs, None, None, True)[0])


def test_a_recurrent_policy_gets_the_rewards_of_its_model_in_a_vec_env():
    contrib = pytest.importorskip("sb3_contrib")
    tasks = torch.tensor([[0.5, 0.5], [0.05, 0.1], [-0.3, 0.2]])
    env = to_sb3_vec_env("metarl/PointNavigation-v0", 3, tasks=tasks, steps=6, trial=True)
    small = {"lstm_hidden_size": 8, "net_arch": [8]}
    model = contrib.RecurrentPPO(
        "MlpLstmPolicy", env, n_steps=4, batch_size=12, policy_kwargs=small, seed=0, device="cpu"
    )
    data = rollout(
        model, env.family, tasks, episodes=3, rollouts_per_task=1, trial=True, deterministic=True
    )
    obs, state, starts = env.reset(), None, np.ones(3, dtype=bool)
    rewards = []
    for _ in range(18):
        action, state = model.predict(obs, state, starts, deterministic=True)
        obs, reward, starts, _ = env.step(action)
        rewards.append(reward)
    np.testing.assert_array_equal(data.reward[:, :, 0], np.stack(rewards))


def test_a_model_with_another_observation_shape_is_refused():
    model = RecordingModel(1)
    with pytest.raises(
        ConfigError, match=r"shape \(1,\); with trial=False and informed=True.*\(6,"
    ):
        sb3_policy(model, GoalBandit(), informed=True)
    with pytest.raises(ConfigError, match=r"trial=True.*\(11,\)"):
        sb3_policy(model, "metarl/GoalBandit-v0", trial=True)
    with pytest.raises(ConfigError, match="no option 'amrs'"):
        sb3_policy(model, "metarl/GoalBandit-v0", amrs=3)
    with pytest.raises(ConfigError, match="the options arms and a GoalBandit that is already"):
        sb3_policy(model, GoalBandit(), arms=3)
