"""Locomotion: rewards against their formulas, tasks that scale the body, and invalid sources."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metarl
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy

pytest.importorskip("mujoco", reason="locomotion needs the extra 'mujoco'")

import mujoco

from metarl.envs.locomotion import ants, cheetah, humanoid, random_parameters

EPISODES, EXAMPLES, MAX_STEPS = 250, 4, 6

BODIES = (
    "HalfCheetahDir",
    "HalfCheetahVel",
    "AntDir",
    "AntVel",
    "AntGoal",
    "HumanoidDir",
    "Walker2DRandParams",
    "HopperRandParams",
)


@cache
def make(name):
    """The environment of this name, created once."""
    modules = (cheetah, humanoid, ants, random_parameters)
    return next(getattr(module, name) for module in modules if hasattr(module, name))()


def roll_out(env, task, actions, seed=0):
    """Results of the steps of one episode, until it terminates."""
    env.reset(seed=seed, options={"task": task})
    steps = []
    for action in actions:
        steps.append(env.step(action))
        if steps[-1][2]:
            break
    return steps


def random_actions(env, count=20):
    generator = np.random.default_rng(0)
    return generator.uniform(
        env.action_space.low, env.action_space.high, (count, *env.action_space.shape)
    )


@pytest.mark.parametrize("name", BODIES)
def test_trials_are_reproducible(name):
    family = metarl.make_family(f"metarl/{name}-v0")
    assert family.episode_steps == 200
    tasks = family.sample_tasks(2, metarl.Seeds(0).torch("tasks"))
    policy = UniformPolicy(family.action_space)
    trajectory, again = (
        metarl.collect(family, tasks, policy, episodes=2, seeds=metarl.Seeds(1)) for _ in range(2)
    )
    assert torch.equal(trajectory.reward, again.reward)
    assert bool(trajectory.episode_lengths(2).ge(1).all())
    assert not torch.equal(trajectory.reward[:, 0], trajectory.reward[:, 1])


@pytest.mark.parametrize("name", BODIES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), split=st.sampled_from(["train", "test"]))
def test_under_random_torques_observations_and_rewards_stay_finite_and_in_their_spaces(
    name, seed, split
):
    env = make(name)
    rng = np.random.default_rng(seed)
    for _ in range(EPISODES):
        task = env.sample_task(rng, split)
        obs, _ = env.reset(seed=int(rng.integers(2**31)), options={"task": task})
        assert env.observation_space.contains(obs)
        for _ in range(rng.integers(1, MAX_STEPS)):
            action = 2 * env.action_space.high * rng.uniform(-1, 1, env.action_space.shape)
            obs, reward, terminated, truncated, _ = env.step(action)
            assert env.observation_space.contains(obs)
            assert np.isfinite(obs).all()
            assert np.isfinite(reward)
            assert not (terminated and truncated)
            if terminated or truncated:
                break


def outside_of_view(model, data, camera):
    """Names of the geometries of the body whose centres are not in the square picture."""
    offsets = data.geom_xpos - data.cam_xpos[camera]  # [G, 3]
    right, up, back = (offsets @ data.cam_xmat[camera].reshape(3, 3)).T
    edge = -back * np.tan(np.radians(model.cam_fovy[camera]) / 2)
    outside = np.maximum(np.abs(right), np.abs(up)) > edge
    return [model.geom(int(i)).name for i in np.flatnonzero(outside & (model.geom_bodyid > 0))]


@pytest.mark.parametrize("name", BODIES)
def test_the_camera_shows_the_whole_body_and_follows_it(name):
    env = make(name)
    model, data = env.mujoco_env.model, env.mujoco_env.data
    camera = env.mujoco_env.mujoco_renderer.camera_id
    assert camera >= 0
    for task in (env.task_space.low, env.task_space.high):
        env.reset(seed=0, options={"task": task})
        assert not outside_of_view(model, data, camera)
        data.qpos[0] += 30
        mujoco.mj_forward(model, data)
        assert not outside_of_view(model, data, camera)


def test_cheetah_directions_have_opposite_rewards():
    env = cheetah.HalfCheetahDir()
    forward, backward = (roll_out(env, task, random_actions(env)) for task in ([1.0], [-1.0]))
    for action, one, two in zip(random_actions(env), forward, backward, strict=True):
        velocity, cost = one[4]["x_velocity"], 0.05 * float(action @ action)
        assert one[1] == pytest.approx(velocity - cost)
        assert two[1] == pytest.approx(-velocity - cost)


@pytest.mark.parametrize(("source", "fastest"), [("maml", 2.0), ("varibad", 3.0)])
def test_cheetah_velocity_reward_and_tasks_follow_the_source(source, fastest):
    env = cheetah.HalfCheetahVel(source)
    assert env.task_space.high.tolist() == [fastest]
    tasks = [env.sample_task(np.random.default_rng(seed), "test")[0] for seed in range(200)]
    assert 0.9 * fastest < max(tasks) < fastest
    for action, step in zip(
        random_actions(env), roll_out(env, [1.5], random_actions(env)), strict=True
    ):
        expected = -abs(step[4]["x_velocity"] - 1.5) - 0.05 * float(action @ action)
        assert step[1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("source", "effort", "bonus"), [("maml", 0.005, 0.05), ("pearl", 0.5, 1.0)]
)
def test_ant_direction_reward_follows_the_source(source, effort, bonus):
    env = ants.AntDir(source)
    env.reset(seed=0, options={"task": [0.0, 1.0]})
    for action in random_actions(env, 5):
        _, reward, terminated, _, info = env.step(action)
        contact = np.square(np.clip(env.mujoco_env.data.cfrc_ext, -1, 1)).sum()
        cost = effort * float(action @ action) + 0.0005 * contact
        assert reward == pytest.approx(info["y_velocity"] - cost + bonus)
        assert terminated == (not 0.2 <= env.mujoco_env.data.qpos[2] <= 1.0)


def test_ant_goals_are_drawn_from_a_square_or_a_disc():
    square, disc = ants.AntGoal("maml"), ants.AntGoal("pearl")
    rng = np.random.default_rng(0)
    squares, discs = (
        np.array([env.sample_task(rng, "train") for _ in range(2000)]) for env in (square, disc)
    )
    assert np.abs(squares).max() <= 3 < np.linalg.norm(squares, axis=1).max()
    radius = np.linalg.norm(discs, axis=1)
    assert radius.max() <= 3
    assert np.mean(radius < 1.5) == pytest.approx(0.25, abs=0.04)  # uniform in the disc
    disc.reset(seed=0, options={"task": [3.0, 0.0]})
    _, reward, terminated, _, _ = disc.step(np.zeros(8))
    contact = np.square(np.clip(disc.mujoco_env.data.cfrc_ext, -1, 1)).sum()
    distance = np.abs(disc.mujoco_env.data.qpos[:2] - [3.0, 0.0]).sum()
    assert reward == pytest.approx(-distance - 0.0005 * contact)
    assert not terminated


def test_parameters_scale_the_model_and_change_the_rewards():
    env = random_parameters.HopperRandParams()
    env.reset(seed=0, options={"task": np.zeros(env.task_space.shape)})
    mass = np.array(env.mujoco_env.model.body_mass)
    env.reset(seed=0, options={"task": np.ones(env.task_space.shape)})
    np.testing.assert_allclose(env.mujoco_env.model.body_mass, 1.5 * mass)
    env.reset(seed=0)
    np.testing.assert_allclose(env.mujoco_env.model.body_mass, 1.5 * mass)  # scaled once, not twice
    original, heavy = (
        roll_out(env, np.full(env.task_space.shape, u), random_actions(env)) for u in (0.0, 1.0)
    )
    assert original[3][1] != heavy[3][1]
    assert np.abs(env.reset(seed=0)[0][-env.mujoco_env.model.nv :]).max() <= 10


def test_an_unknown_source_is_refused():
    with pytest.raises(ConfigError, match="'varibat' must be one of maml, promp, pearl, varibad"):
        cheetah.HalfCheetahVel("varibat")
