"""What other libraries expect of every id: copies, options, time limits, tasks and vector modes."""

import copy
import itertools
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled
from gymnasium.utils.env_match import check_environments_match
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeAwareObservation

import metarl
from metarl.bridges.task_env import TaskEnv, TaskVectorEnv
from metarl.errors import ConfigError, MissingPackageError, UnknownOptionError
from metarl.new_tasks import NewTasks
from tests.known_ids import ENVIRONMENTS, FAMILIES, METARL_IDS

IDS = [*FAMILIES, *ENVIRONMENTS]
MODES = list(AutoresetMode)
NAVIGATION = "metarl.envs.navigation.point_navigation:PointNavigation"


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("task_id", IDS)
def test_every_id_is_stepped_past_ends_in_every_autoreset_mode(task_id, mode):
    envs = gymnasium.make_vec(task_id, num_envs=2, autoreset_mode=mode.value)
    assert envs.autoreset_mode is envs.metadata["autoreset_mode"] is mode
    envs.reset(seed=0)
    envs.action_space.seed(0)
    ends = np.zeros(2, int)
    for _ in range(450):
        obs, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert np.isfinite(obs).all()
        assert np.isfinite(reward).all()
        ended = terminated | truncated
        ends += ended
        if mode is AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended})
        if (ends >= 2).all():
            break
    assert (ends >= 2).all()
    envs.close()


def test_a_lane_that_starts_again_starts_as_if_nothing_was_stepped_after_its_end():
    envs = TaskVectorEnv(2, NAVIGATION, autoreset_mode="NextStep")
    envs.reset(options={"task": np.array([[0.1, 0.0], [0.5, 0.5]])})
    envs.step(np.float32([[0.1, 0.0], [0.0, 0.0]]))  # lane 0 is at its goal
    obs, reward, terminated, truncated, _ = envs.step(np.float32([[0.1, 0.1], [0.1, 0.0]]))
    np.testing.assert_allclose(obs, [[0, 0], [0.1, 0]])
    assert (reward[0], terminated[0], truncated[0]) == (0, False, False)


@pytest.mark.parametrize("task_id", IDS)
@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
def test_an_unknown_option_is_a_type_error_in_pythons_words(make, task_id):
    with pytest.raises(TypeError, match="unexpected keyword argument 'frameskip'"):
        make(task_id, frameskip=4)
    with pytest.raises(UnknownOptionError, match=r"no option 'arm'\. Did you mean 'arms'"):
        gymnasium.make("metarl/BernoulliBandit-v0", arm=4)


def steps_of(env, actions):
    """Everything but the info."""
    rows = []
    for action in actions:
        obs, *rest, _ = env.step(action)
        rows.append((np.asarray(obs).tolist(), *rest))
        if any(rest[1:]):
            rows.append(np.asarray(env.reset()[0]).tolist())
    return rows


def pickled(env):
    return pickle.loads(pickle.dumps(env))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize("task_id", IDS)
def test_a_copy_steps_as_the_original(task_id, copied):
    env = gymnasium.make(task_id)
    env.reset(seed=3)
    env.action_space.seed(3)
    actions = [env.action_space.sample() for _ in range(30)]
    steps_of(env, actions[:3])
    other = copied(env)
    assert np.array_equal(other.unwrapped.task, env.unwrapped.task)
    assert steps_of(other, actions[3:]) == steps_of(env, actions[3:])


@pytest.mark.parametrize("task_id", ENVIRONMENTS)
def test_a_copy_of_an_environment_without_a_task_draws_one(task_id):
    env = gymnasium.make(task_id)
    assert pickled(env).unwrapped.task is None
    assert np.array_equal(pickled(env).reset(seed=1)[0], env.reset(seed=1)[0])


@pytest.mark.parametrize("task_id", IDS)
def test_every_id_has_a_time_limit_that_wrappers_find(task_id):
    env = gymnasium.make(task_id)
    assert env.spec.max_episode_steps == metarl.make_family(task_id).episode_steps
    obs, _ = TimeAwareObservation(env).reset(seed=0)
    assert np.isfinite(np.asarray(obs)).all()


def test_the_time_limit_follows_the_options():
    assert TaskEnv(NAVIGATION).spec is None
    env = gymnasium.make("metarl/PointNavigation-v0", steps=37)
    assert env.spec.max_episode_steps == 37
    shorter = gymnasium.make("metarl/PointNavigation-v0", max_episode_steps=5)
    assert shorter.spec.max_episode_steps == 5
    assert gymnasium.make(env.spec).spec.max_episode_steps == 37


def tasks_of(env, episodes, **first):
    """The tasks of consecutive episodes."""
    env.reset(**first)
    tasks = [np.asarray(env.unwrapped.task).tolist()]
    for _ in range(episodes - 1):
        env.reset()
        tasks.append(np.asarray(env.unwrapped.task).tolist())
    return tasks


def runs_of(tasks):
    """The lengths of the runs of equal tasks."""
    return [len(list(group)) for _, group in itertools.groupby(tasks)]


# Few-shot tasks are many; the other families may draw equal ones one after the other.
CONTINUOUS = ["metarl/PointNavigation-v0", "metarl/BernoulliBandit-v0", "metarl/Sinusoid-v0"]


@pytest.mark.parametrize("task_id", [*CONTINUOUS, "metarl/HalfCheetahVel-v0"])
def test_new_tasks_come_with_every_episode_or_trial_or_never(task_id):
    if task_id not in IDS:
        pytest.skip("needs MuJoCo")
    trial = metarl.make_family(task_id).trial_episodes
    for new_task, runs in (
        ({}, [1] * (2 * trial)),
        ({"new_task": "episode"}, [1] * (2 * trial)),
        ({"new_task": "trial"}, [trial, trial]),
        ({"new_task": "never"}, [2 * trial]),
    ):
        env = gymnasium.make(task_id, **new_task)
        assert runs_of(tasks_of(env, 2 * trial, seed=4)) == runs, new_task


@pytest.mark.parametrize("new_task", ["episode", "trial", "never"])
@pytest.mark.parametrize("task_id", IDS)
def test_a_given_task_stays_and_equal_seeds_draw_equal_tasks(task_id, new_task):
    env = gymnasium.make(task_id, new_task=new_task)
    drawn = tasks_of(env, 6, seed=7)
    assert drawn == tasks_of(gymnasium.make(task_id, new_task=new_task), 6, seed=7)
    if new_task != "never":
        assert tasks_of(env, 6, seed=7) == drawn
    given = env.unwrapped.sample_task(np.random.default_rng(1), "test")
    expected = [np.asarray(given).tolist()] * 5
    assert tasks_of(env, 5, options={"task": given}) == expected
    assert tasks_of(env, 5, seed=3) == expected


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_lanes_draw_their_tasks_independently(mode):
    """Lane 0 has the tasks that it has alone with the same ends, whatever other lanes do."""
    drawn = {}
    for others in (0.0, 1.0):
        envs = TaskVectorEnv(3, NAVIGATION, autoreset_mode=mode, max_episode_steps=4)
        envs.reset(seed=2)
        rows = []
        for step in range(20):
            actions = np.zeros((3, 2), np.float32)
            actions[1:] = 0.1 * others * np.sign(envs.task[1:])
            ended = np.logical_or(*envs.step(actions)[2:4])
            if mode is AutoresetMode.DISABLED:
                mask = ended.copy()
                mask[2] |= bool(others) and step % 3 == 0
                if mask.any():
                    envs.reset(options={"reset_mask": mask})
            rows.append(envs.task[0].tolist())
        drawn[others] = rows
    assert drawn[0.0] == drawn[1.0]
    assert len(runs_of(drawn[0.0])) >= 4


@pytest.mark.parametrize("task_id", IDS)
def test_tasks_are_even_over_both_kinds_of_ids(task_id):
    env = gymnasium.make(task_id).unwrapped
    assert env.task is None
    env.sample_task(np.random.default_rng(0))  # the split has a default
    env.reset(seed=0)
    assert env.task in env.task_space if isinstance(env.task, int) else env.task is not None
    info = env.step(env.action_space.sample())[-1]
    assert all(np.asarray(info[key]).dtype == info[key].dtype for key in info if "success" in key)


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
@pytest.mark.parametrize("task_id", IDS)
def test_a_wrong_choice_of_new_tasks_is_refused(make, task_id):
    with pytest.raises(ConfigError, match=r"new_task='daily' must be one of episode, trial, never"):
        make(task_id, new_task="daily")


def test_seeds_start_trials_anew():
    lanes, tasks = np.array([True, False]), NewTasks("trial", 3, 2)
    every = np.ones(2, bool)
    assert tasks.start(every).all()
    assert not tasks.start(every).any()
    tasks.reseed(lanes)
    assert tasks.start(every).tolist() == [True, False]
    tasks.give(lanes)
    tasks.reseed(every)
    assert tasks.start(every).tolist() == [False, True]


@pytest.mark.parametrize("task_id", [name for name in METARL_IDS if name not in IDS])
def test_a_missing_package_is_what_loops_over_ids_catch(task_id):
    with pytest.raises(DependencyNotInstalled, match="is not installed") as caught:
        gymnasium.make(task_id)
    assert isinstance(caught.value, (ImportError, ConfigError))


def test_the_error_of_a_missing_package_is_of_every_kind_that_is_caught():
    for kind in (ConfigError, DependencyNotInstalled, ImportError, ValueError):
        assert issubclass(MissingPackageError, kind)
    assert str(MissingPackageError("no such package")) == "no such package"


@pytest.mark.parametrize("task_id", FAMILIES)
def test_gymnasiums_observation_wrappers_take_every_vector_environment(task_id):
    envs = gymnasium.wrappers.vector.NormalizeObservation(gymnasium.make_vec(task_id, num_envs=3))
    envs.reset(seed=0)
    assert np.isfinite(envs.step(envs.action_space.sample())[0]).all()


def test_a_family_cannot_have_an_option_of_the_environment():
    assert "new_task" in metarl.registry.RESERVED
    assert not hasattr(TaskEnv(NAVIGATION).family, "new_task")


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize(
    "task_id", [name for name in FAMILIES if metarl.make_family(name).can_render]
)
def test_the_first_lane_for_stable_baselines_can_be_filmed(task_id, trial):
    plain = metarl.to_sb3_vec_env(task_id, 3, trial=trial)
    envs = metarl.to_sb3_vec_env(task_id, 3, trial=trial, render_mode="rgb_array")
    assert (plain.render_mode, envs.render_mode) == (None, "rgb_array")
    assert np.array_equal(plain.reset(), envs.reset())
    first = envs.render()
    assert (first.dtype, first.shape[2]) == (np.uint8, 3)
    envs.action_space.seed(0)
    for _ in range(25):
        actions = np.stack([envs.action_space.sample() for _ in range(3)])
        for one, other in zip(plain.step(actions)[:3], envs.step(actions)[:3], strict=True):
            assert np.array_equal(one, other)
    assert envs.render().shape == first.shape


def test_filming_without_a_render_mode_is_refused():
    with pytest.raises(ConfigError, match="render_mode='rgb_array'"):
        metarl.to_sb3_vec_env(IDS[0], 2).get_images()
    with pytest.raises(ConfigError, match="must be 'rgb_array'"):
        metarl.to_sb3_vec_env(IDS[0], 2, render_mode="human")


@pytest.mark.parametrize("task_id", IDS)
def test_gymnasiums_environments_match(task_id):
    check_environments_match(
        gymnasium.make(task_id), gymnasium.make(task_id), num_steps=60, seed=5, skip_render=True
    )
