"""Bandits against a plain one-lane loop, their task distributions, and invalid options."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.envs.bandits.multi_armed import BernoulliBandit, GaussianBandit, GoalBandit
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.tasks.tensor_env import TensorEnv
from tests.bandit_rollouts import noise_of, seeded

FAMILIES = [
    BernoulliBandit(arms=3, pulls=7),
    GoalBandit(arms=3, pulls=7),
    GoalBandit(arms=4, p_goal=0.7, p_other=0.2, held_out_arms=2),
]


def step_once(family, tasks, arm, *, seed):
    """The first step of an episode: state, reward, terminated."""
    noise = noise_of(seed, len(tasks))
    return family.step(tasks, family.reset(tasks, noise.child(0)), arm, noise)


def probability_by_definition(family, task, arm):
    if isinstance(family, BernoulliBandit):
        return float(task[arm])
    return np.float32(family.p_goal if arm == int(task) else family.p_other)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_lane_equals_a_plain_loop_over_pulls(family):
    lanes, rng = 6, np.random.default_rng(0)
    tasks = family.sample_tasks(lanes, seeded(1))
    env = TensorEnv(family, tasks, noise_of(2, lanes))
    alone = [LaneNoise(key) for key in noise_of(2, lanes).keys.split(1)]
    rewards = []
    for step in range(40):
        obs = env.reset()
        arms = rng.integers(family.arms, size=lanes)
        last = env.step(torch.as_tensor(arms))
        for lane in range(lanes):
            uniform = float(alone[lane].at(step).uniform())
            paid = uniform < probability_by_definition(family, tasks[lane], arms[lane])
            assert float(last.reward[lane]) == float(paid)
        assert obs.tolist() == last.next_obs.tolist() == [[0.0]] * lanes
        assert last.terminated.all()
        assert not last.truncated.any()
        rewards.append(last.reward)
    assert 0 < torch.stack(rewards).mean() < 1  # both outcomes were compared


def test_every_gaussian_lane_equals_a_plain_loop_over_pulls():
    family, lanes, rng = GaussianBandit(arms=3), 6, np.random.default_rng(0)
    tasks = family.sample_tasks(lanes, seeded(1))
    env = TensorEnv(family, tasks, noise_of(2, lanes))
    alone = [LaneNoise(key) for key in noise_of(2, lanes).keys.split(1)]
    for step in range(20):
        obs = env.reset()
        arms = rng.integers(3, size=lanes)
        last = env.step(torch.as_tensor(arms))
        for lane in range(lanes):
            (normal,) = alone[lane].at(step).normal().numpy()
            assert float(last.reward[lane]) == tasks[lane].numpy()[arms[lane]] + normal
        assert obs.tolist() == last.next_obs.tolist() == [[0.0]] * lanes
        assert last.terminated.all()
        assert not last.truncated.any()


def test_gaussian_tasks_and_rewards_have_unit_variance():
    family, lanes = GaussianBandit(arms=2), 50_000
    tasks = family.sample_tasks(lanes, seeded(0))
    arm = torch.ones(lanes, dtype=torch.int64)
    _, reward, _ = step_once(family, tasks, arm, seed=1)
    for sample in (tasks[:, 0], tasks[:, 1], reward - tasks[:, 1]):
        assert abs(float(sample.mean())) < 4 / lanes**0.5
        assert float(sample.var()) == pytest.approx(1, abs=4 * (2 / lanes) ** 0.5)
    assert abs(float(tasks.T.corrcoef()[0, 1])) < 4 / lanes**0.5


def test_gaussian_noise_does_not_depend_on_the_arm():
    family = GaussianBandit(arms=2)
    tasks = family.sample_tasks(1000, seeded(0))
    first, second = (
        step_once(family, tasks, torch.full((1000,), arm), seed=5)[1] for arm in (0, 1)
    )
    torch.testing.assert_close(second - first, tasks[:, 1] - tasks[:, 0], atol=1e-5, rtol=0)
    assert (first - tasks[:, 0]).unique().numel() > 900  # lanes have independent noise


@pytest.mark.parametrize("arms", [2, 5, 10])
def test_the_best_of_k_uniform_arms_pays_k_over_k_plus_1(arms):
    family = BernoulliBandit(arms=arms)
    tasks = family.sample_tasks(100_000, seeded(0))
    best = family.arm_means(tasks).amax(1)
    # The maximum of k uniforms has variance k / ((k + 1)^2 (k + 2)).
    error = (arms / ((arms + 1) ** 2 * (arms + 2)) / len(tasks)) ** 0.5
    assert abs(float(best.mean()) - arms / (arms + 1)) < 4 * error


def test_arms_pay_with_the_probability_of_the_task():
    family = BernoulliBandit(arms=4)
    probability = torch.tensor([0.0, 0.25, 0.8, 1.0])
    pulls = 20_000
    arm = torch.arange(4).repeat_interleave(pulls)
    tasks = probability.expand(len(arm), 4)
    _, reward, _ = step_once(family, tasks, arm, seed=1)
    mean = reward.view(4, pulls).mean(1)
    error = (probability * (1 - probability) / pulls).sqrt()
    assert ((mean - probability).abs() <= 4 * error).all()  # exact for certain arms


def test_policies_with_equal_seeds_get_common_random_numbers():
    family = BernoulliBandit(arms=2)
    tasks = torch.tensor([[0.3, 0.6]]).expand(1000, 2)
    state = family.reset(tasks, noise_of(0, 1000))
    rewards = []
    for arm in (0, 1):
        noise = noise_of(5, 1000)
        for _ in range(3):
            _, reward, _ = family.step(tasks, state, torch.full((1000,), arm), noise)
        rewards.append(reward)
    assert (rewards[0] <= rewards[1]).all()  # the better arm never pays less for the same noise
    assert (rewards[0] < rewards[1]).any()


@pytest.mark.parametrize("family", [*FAMILIES, GaussianBandit()])
def test_equal_seeds_draw_equal_tasks_and_different_seeds_different_tasks(family):
    first, again, other = (family.sample_tasks(50, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_held_out_goals_are_never_training_goals():
    family = GoalBandit(arms=5, held_out_arms=2)
    goals = {
        split: set(family.sample_tasks(500, seeded(0), split).tolist())
        for split in ("train", "test")
    }
    assert goals == {"train": {0, 1, 2}, "test": {3, 4}}


def test_without_held_out_arms_both_splits_share_all_goals():
    family = GoalBandit(arms=3)
    for split in ("train", "test"):
        assert set(family.sample_tasks(200, seeded(0), split).tolist()) == {0, 1, 2}


def test_every_pull_is_an_episode_of_the_trial():
    family = BernoulliBandit(arms=2, pulls=30)
    assert (family.episode_steps, family.trial_episodes) == (1, 30)


@given(arms=st.integers(1, 8), lanes=st.integers(1, 20), seed=st.integers(0, 1000))
def test_tasks_rewards_and_observations_stay_within_their_spaces(arms, lanes, seed):
    generator = seeded(seed)
    for family in (BernoulliBandit(arms=arms), GaussianBandit(arms=arms), GoalBandit(arms=arms)):
        tasks = family.sample_tasks(lanes, generator)
        assert all(task in family.task_space for task in tasks.numpy())
        action = torch.randint(arms, (lanes,), generator=generator)
        state, reward, terminated = step_once(family, tasks, action, seed=seed)
        if not isinstance(family, GaussianBandit):
            assert set(reward.tolist()) <= {0.0, 1.0}
        assert reward.isfinite().all()
        assert reward.dtype == torch.float32
        assert terminated.tolist() == [True] * lanes
        assert all(obs in family.observation_space for obs in family.observe(tasks, state).numpy())


def test_expected_rewards_are_those_of_the_arms():
    family = GoalBandit(arms=3, p_goal=0.75, p_other=0.25)
    assert family.expected_rewards(torch.tensor([1])).tolist() == [[0.25, 0.75, 0.25]]


def test_observations_do_not_share_memory_with_the_state():
    family = BernoulliBandit()
    tasks = family.sample_tasks(2, seeded(0))
    state = family.reset(tasks, noise_of(0, 2))
    family.observe(tasks, state).fill_(1.0)
    assert family.observe(tasks, state).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (BernoulliBandit, {"arms": 0}, "arms=0 must be greater than zero"),
        (BernoulliBandit, {"pulls": -1}, "pulls=-1 must be greater than zero"),
        (GaussianBandit, {"arms": 0}, "arms=0 must be greater than zero"),
        (GaussianBandit, {"pulls": 0}, "pulls=0 must be greater than zero"),
        (GoalBandit, {"arms": 0}, "arms=0 must be greater than zero"),
        (GoalBandit, {"p_goal": 1.1}, r"p_goal=1\.1 must lie between 0\.0 and 1\.0"),
        (GoalBandit, {"p_other": -0.1}, r"p_other=-0\.1 must lie between"),
        (GoalBandit, {"p_goal": 0.1, "p_other": 0.1}, r"must be below p_goal=0\.1"),
        (GoalBandit, {"arms": 3, "held_out_arms": 3}, "between 0 and 2.*at least one"),
        (GoalBandit, {"held_out_arms": -1}, "held_out_arms=-1 must lie between 0 and 4"),
    ],
)
def test_invalid_options_raise_an_error(family, options, message):
    with pytest.raises(ConfigError, match=message):
        family(**options)
