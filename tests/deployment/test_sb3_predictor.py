"""The method `predict` of stable-baselines3, and its function `evaluate_policy`."""

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import metarl
from metarl.bridges.sb3_vec_env import to_sb3_vec_env
from metarl.bridges.trial_wrapper import TrialWrapper
from metarl.deployment.trained_policy import load_policy
from metarl.errors import ShapeError
from metarl.networks.action_heads import action_head
from metarl.networks.actor_critic import percept_features, percept_of_features
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.training.loop import train

SMALL = {"num_tasks": 8, "iterations": 1, "progress": False}
BANDIT, NAVIGATION = "metarl/BernoulliBandit-v0", "metarl/PointNavigation-v0"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "bandit": train(
            "rl2", BANDIT, out=folder / "a", hidden_size=8, memory="attention", **SMALL
        ),
        "navigation": train("rl2", NAVIGATION, out=folder / "b", hidden_size=8, **SMALL),
        "maml": train(
            "maml", NAVIGATION, out=folder / "c", hidden_sizes=(8,), rollouts_per_task=4, **SMALL
        ),
    }


@pytest.mark.parametrize("task", [BANDIT, NAVIGATION])
def test_a_percept_is_read_back_from_its_features(task):
    family = metarl.make_family(task)
    head = action_head(family.action_space)
    agent = metarl.agent_config("rl2")(hidden_size=8)
    tasks = family.sample_tasks(3, Seeds(0).torch("tasks"))
    context = metarl.AgentContext(
        observation_space=family.observation_space,
        action_space=family.action_space,
        seeds=Seeds(0),
        device=torch.device("cpu"),
    )
    policy = agent.build(context).start(3, None)
    percepts = collect(family, tasks, policy, episodes=2, seeds=Seeds(1)).percepts()
    features = percept_features(head, percepts)
    again = percept_of_features(head, features)
    torch.testing.assert_close(percept_features(head, again), features)
    for name in ("obs", "previous_reward", "previous_terminated", "first_of_trial"):
        assert torch.equal(getattr(again, name), getattr(percepts, name)), name


@pytest.mark.parametrize(("name", "task"), [("bandit", BANDIT), ("navigation", NAVIGATION)])
def test_most_likely_actions_are_those_of_the_policy_in_a_loop(runs, name, task):
    """Trials of navigation end at different steps, so memories of lanes are reset one by one."""
    policy, lanes = load_policy(runs[name]), 3
    predictor = policy.for_sb3()
    envs = to_sb3_vec_env(task, lanes, trial=True, episodes=2, seed=3)
    width = envs.family.observation_space.shape[0]
    obs, state, starts = envs.reset(), None, np.ones(lanes, dtype=bool)
    loops = [load_policy(runs[name]) for _ in range(lanes)]
    for _ in range(250):
        actions, state = predictor.predict(obs, state, starts, deterministic=True)
        for lane, loop in enumerate(loops):
            if starts[lane]:
                loop.begin_trial()
            else:
                reward, terminated, truncated = obs[lane, [-5, -4, -3]]
                loop.observe(reward, bool(terminated), bool(truncated))
            mine = loop.act(obs[lane, :width], deterministic=True)
            np.testing.assert_allclose(actions[lane], mine, atol=1e-6)
        obs, _, starts, _ = envs.step(actions)


def test_evaluate_policy_of_stable_baselines3_takes_an_agent_with_memory(runs):
    env = Monitor(TrialWrapper(gymnasium.make(BANDIT)))
    results = [
        evaluate_policy(
            load_policy(runs["bandit"]).for_sb3(seed=seed),
            env,
            n_eval_episodes=5,
            deterministic=False,
            return_episode_rewards=True,
        )
        for seed in (0, 1)
    ]
    for rewards, lengths in results:
        assert lengths == [10] * 5
        assert all(0 <= reward <= 10 for reward in rewards)


def test_evaluate_policy_of_stable_baselines3_takes_an_adapted_agent(runs):
    policy = load_policy(runs["maml"])
    env = gymnasium.make(NAVIGATION)
    before = policy.for_sb3().predict(np.ones(2, dtype=np.float32), deterministic=True)[0]
    assert env.action_space.contains(before)
    policy.begin_trial()
    obs, _ = env.reset(seed=0)
    for _ in range(2 * env.unwrapped.family.episode_steps):
        obs, reward, terminated, truncated, _ = env.step(policy.act(obs))
        policy.observe(reward, terminated, truncated)
        if terminated or truncated:
            obs, _ = env.reset()
    policy.adapt()
    after = policy.for_sb3().predict(np.ones(2, dtype=np.float32), deterministic=True)[0]
    assert not np.array_equal(before, after)
    rewards, _ = evaluate_policy(
        policy.for_sb3(), Monitor(env), n_eval_episodes=2, return_episode_rewards=True
    )
    assert len(rewards) == 2


def test_equal_seeds_give_equal_actions_and_lanes_and_trials_differ(runs):
    obs = to_sb3_vec_env(NAVIGATION, 3, trial=True).reset()
    predictor = load_policy(runs["navigation"]).for_sb3(seed=1)
    one, state = predictor.predict(obs)
    two, _ = load_policy(runs["navigation"]).for_sb3(seed=1).predict(obs)
    np.testing.assert_array_equal(one, two)
    assert len(np.unique(one[:, 0])) == 3
    again, _ = predictor.predict(obs, state, np.ones(3, dtype=bool))
    assert not np.array_equal(again, one)
    other, _ = load_policy(runs["navigation"]).for_sb3(seed=2).predict(obs)
    assert not np.array_equal(other, one)


def test_plain_observations_are_refused_with_a_remedy(runs):
    predictor = load_policy(runs["bandit"]).for_sb3()
    env = gymnasium.make(BANDIT)
    with pytest.raises(ShapeError, match=r"Wrap the environment with metarl.TrialWrapper"):
        predictor.predict(env.reset()[0])
    trial = TrialWrapper(env)
    _, state = predictor.predict(trial.reset()[0])
    with pytest.raises(ShapeError, match=r"The state is of 1 environments, the observation of 2"):
        predictor.predict(np.stack([trial.reset()[0]] * 2), state)
