"""Models of stable-baselines3 in our lanes: what they are shown, and whose luck they draw."""

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
    """Networks so small are slowed down by a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Glass:
    """A model that counts its predictions, and keeps what it was shown."""

    def __init__(self, width):
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,))
        self.device, self.policy, self.seen = torch.device("cpu"), self, []

    def predict(self, obs, state, episode_start, deterministic):
        self.seen.append(SimpleNamespace(obs=obs, state=state, opened=episode_start))
        noise = torch.rand(())
        self.seen[-1].luck = (deterministic, float(noise))
        return np.full(len(obs), len(self.seen) % 3), len(self.seen)


def lived(model, family, tasks, *, episodes=2, rollouts_per_task=2, seed=0, **options):
    policy = sb3_policy(model, family, **options)(tasks)
    return collect(
        family,
        tasks,
        policy,
        episodes=episodes,
        rollouts_per_task=rollouts_per_task,
        seeds=Seeds(seed),
    )


@pytest.mark.parametrize(("trial", "opened"), [(False, [1, 0, 1, 0]), (True, [1, 0, 0, 0])])
def test_memory_is_handed_on_and_cleared_where_it_was_in_training(trial, opened):
    model = Glass(2 + 8 * trial)
    life = lived(model, Countdown(), torch.tensor([2, 2]), trial=trial)
    assert [step.state for step in model.seen] == [None, 1, 2, 3]
    for step, flag in zip(model.seen, opened, strict=True):
        assert step.opened.tolist() == [bool(flag)] * 4
    assert life.action[:, 0, 0].tolist() == [1, 2, 0, 1]
    assert not life.log_prob.any()


@pytest.mark.parametrize(("trial", "informed"), [(False, True), (True, False), (True, True)])
def test_a_model_sees_here_what_it_sees_in_training(trial, informed):
    tasks = torch.tensor([3, 1, 2])
    model = Glass(2 + 8 * trial + 10 * informed)
    lived(model, Countdown(), tasks, episodes=2, trial=trial, informed=informed)
    env = to_sb3_vec_env(
        Countdown(), 6, tasks=tasks, trial=trial, episodes=2 * trial or None, informed=informed
    )
    obs, alive = env.reset(), np.ones(6, dtype=bool)
    ends = np.zeros(6)
    for number, step in enumerate(model.seen, 1):
        np.testing.assert_array_equal(step.obs[alive], obs[alive])
        obs, _, ended, _ = env.step(np.full(6, number % 3))
        ends += ended
        alive = ends < (1 if trial else 2)
    assert not alive.any()


def test_luck_comes_from_the_generator_and_the_global_stream_is_left_alone():
    lucks = []
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for seed in (0, 0, 1):
        model = Glass(2)
        lived(model, Countdown(), torch.tensor([4]), seed=seed)
        lucks.append([step.luck[1] for step in model.seen])
    assert lucks[0] == lucks[1] != lucks[2]
    assert len(set(lucks[0])) == len(lucks[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_deterministic_policy_says_so_and_observations_can_be_normalised():
    model = Glass(2)
    lived(model, Countdown(), torch.tensor([2]), deterministic=True, normalise=lambda obs: -obs)
    assert model.seen[0].luck[0] is True
    assert model.seen[1].obs[0].tolist() == [-2, -1]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_flat_model_acts_as_it_does_by_itself(deterministic):
    env = to_sb3_vec_env("metarl/PointNavigation-v0", 2, tasks=[[0.5, 0.5], [0.1, 0.2]], steps=7)
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=8, seed=0, device="cpu")
    life = lived(model, env.family, torch.tensor([[0.5, 0.5], [0.1, 0.2]]), rollouts_per_task=1)
    assert bool((life.action.abs() <= 0.1).all())  # as in training, they are clipped
    if deterministic:
        life = lived(model, env.family, life.obs.new_tensor([[0.5, 0.5]]), deterministic=True)
        obs = life.obs[:, 0, 0].numpy()
        np.testing.assert_array_equal(life.action[:, 0, 0], model.predict(obs, None, None, True)[0])


def test_a_recurrent_model_lives_a_trial_as_in_its_own_environment():
    contrib = pytest.importorskip("sb3_contrib")
    tasks = torch.tensor([[0.5, 0.5], [0.05, 0.1], [-0.3, 0.2]])
    env = to_sb3_vec_env("metarl/PointNavigation-v0", 3, tasks=tasks, steps=6, trial=True)
    small = {"lstm_hidden_size": 8, "net_arch": [8]}
    model = contrib.RecurrentPPO(
        "MlpLstmPolicy", env, n_steps=4, batch_size=12, policy_kwargs=small, seed=0, device="cpu"
    )
    life = lived(
        model, env.family, tasks, episodes=3, rollouts_per_task=1, trial=True, deterministic=True
    )
    obs, state, opened = env.reset(), None, np.ones(3, dtype=bool)
    rewards = []
    for _ in range(18):
        action, state = model.predict(obs, state, opened, deterministic=True)
        obs, reward, opened, _ = env.step(action)
        rewards.append(reward)
    np.testing.assert_array_equal(life.reward[:, :, 0], np.stack(rewards))


def test_a_model_of_other_observations_is_refused():
    model = Glass(1)
    with pytest.raises(
        ConfigError, match=r"shape \(1,\); with trial=False and informed=True.*\(6,"
    ):
        sb3_policy(model, GoalBandit(), informed=True)
    with pytest.raises(ConfigError, match=r"trial=True.*\(11,\)"):
        sb3_policy(model, "metarl/GoalBandit-v0", trial=True)
    with pytest.raises(ConfigError, match="no option 'amrs'"):
        sb3_policy(model, "metarl/GoalBandit-v0", amrs=3)
