"""Task families as Gymnasium environments: checkers, autoreset, tasks, seeds, types, errors."""

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import metarl
from metarl.bridges.task_env import TaskEnv, TaskVectorEnv
from metarl.errors import ConfigError, ShapeError, TaskError
from metarl.tasks.tensor_env import TensorEnv
from tests.broken_envs import ValidFamily
from tests.known_ids import ENVIRONMENTS, FAMILIES
from tests.simple_families import Countdown

IDS = [*FAMILIES, *ENVIRONMENTS]
BANDIT = "metarl.envs.bandits.multi_armed:BernoulliBandit"
GOAL_BANDIT = "metarl.envs.bandits.multi_armed:GoalBandit"
NAVIGATION = "metarl.envs.navigation.point_navigation:PointNavigation"
MODES = list(AutoresetMode)


@pytest.mark.parametrize("task_id", IDS)
# Positions are not bounded.
@pytest.mark.filterwarnings("ignore:.*Box observation space m...mum value is -?infinity")
# Where actions are predictions, the action space is the range of labels.
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
def test_every_family_passes_gymnasiums_checker(task_id):
    # Rendering in MuJoCo needs a display or an off-screen driver.
    check_env(gymnasium.make(task_id).unwrapped, skip_render_check=task_id in ENVIRONMENTS)


@pytest.mark.parametrize("task_id", IDS)
# Moves are at most 0.1, as published; SB3 recommends actions in [-1, 1].
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box action")
def test_every_family_passes_stable_baselines_checker(task_id):
    env = gymnasium.make(task_id).unwrapped
    check_env_for_sb3(env, skip_render_check=task_id in ENVIRONMENTS)


@pytest.mark.parametrize(
    "task_id", [name for name in FAMILIES if metarl.make_family(name).can_render]
)
@pytest.mark.filterwarnings("ignore:.*Box observation space m...mum value is -?infinity")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
def test_families_that_render_pass_the_checker_with_rendering(task_id):
    env = gymnasium.make(task_id, render_mode="rgb_array")
    assert env.metadata["render_modes"] == ["rgb_array"]
    check_env(env.unwrapped)
    env.reset(seed=0)
    initial = env.render()
    assert (initial.dtype, initial.shape[2]) == (np.uint8, 3)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    assert (env.render() != initial).any()


def test_frames_show_all_steps_since_the_last_seeded_reset_or_given_task():
    env = TaskEnv(BANDIT, render_mode="rgb_array")
    frames = []
    for reset in (
        {"seed": 3, "options": {"task": [0.1, 0.2, 0.3, 0.4, 0.5]}},
        {},
        {"options": {"task": [0.1, 0.2, 0.3, 0.4, 0.5]}},
        {},
        {"seed": 3},
    ):
        env.reset(**reset)
        frames.append(env.render())
        env.step(1)
    new, one_pull, again, *_, reseeded = frames
    assert (new != one_pull).any()
    assert (new == again).all()
    assert (new == reseeded).all()


def test_without_a_render_mode_nothing_is_rendered_or_recorded():
    env = gymnasium.make("metarl/BernoulliBandit-v0").unwrapped
    env.reset(seed=0)
    assert env.render() is None
    assert isinstance(env._lanes._env, TensorEnv)
    with pytest.raises(ResetNeeded, match=r"call reset\(\) first"):
        TaskEnv(BANDIT, render_mode="rgb_array").render()


def test_render_modes_are_refused_where_the_family_does_not_support_them():
    with pytest.raises(ConfigError, match="Countdown does not render"):
        TaskEnv(Countdown, render_mode="rgb_array")
    assert TaskEnv(Countdown).metadata["render_modes"] == []
    assert TaskEnv.metadata["render_modes"] == ["rgb_array"]
    with pytest.raises(ConfigError, match="render_mode='human' must be 'rgb_array'"):
        TaskEnv(BANDIT, render_mode="human")


def rollout(env, seed, actions):
    """Everything that a seeded reset and steps with `actions` return; resets ended episodes."""
    rows = [env.reset(seed=seed)[0].tolist()]
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        rows.append((obs.tolist(), reward, terminated, truncated, info))
        if terminated or truncated:
            rows.append(env.reset()[0].tolist())
    return rows


def test_transitions_are_equal_for_equal_seeds_only():
    actions = [0, 1, 2, 3, 4] * 20
    new = [rollout(TaskEnv(BANDIT), seed, actions) for seed in (1, 1, 2)]
    assert new[0] == new[1] != new[2]


def test_a_seeded_reset_repeats_the_transitions_in_the_same_environment():
    # The first reset draws a task and the later one does not, which must not shift the noise.
    env, actions = TaskEnv(BANDIT), [0, 1, 2, 3, 4] * 20
    first, again, other = (rollout(env, seed, actions) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("mode", MODES)
def test_every_reset_draws_fresh_noise(mode):
    envs = TaskVectorEnv(2, ValidFamily, autoreset_mode=mode)  # observations hold the noise
    env = TaskEnv(ValidFamily)
    noise, alone = [], []
    for options in ({"seed": 0}, {}, {}):
        noise += envs.reset(**options)[0][:, 1].tolist()
        alone.append(env.reset(**options)[0][1])
    for _ in range(12):
        obs, _, _, truncated, _ = envs.step(np.zeros(2, dtype=int))
        if mode is AutoresetMode.DISABLED and truncated.any():
            obs, _ = envs.reset(options={"reset_mask": truncated})
        noise += obs[obs[:, 0] == 0, 1].tolist()
        if env.step(0)[3]:
            alone.append(env.reset()[0][1])
    noise += envs.reset()[0][:, 1].tolist()
    alone.append(env.reset()[0][1])
    assert len(noise) == len(set(noise)) == 2 * (3 + 2 + 1)
    assert len(alone) == len(set(alone)) == 3 + 2 + 1


def test_resets_of_some_lanes_draw_fresh_noise_and_leave_the_others_unchanged():
    envs = TaskVectorEnv(3, ValidFamily, autoreset_mode="Disabled")
    before, _ = envs.reset(seed=0)
    first, _ = envs.reset(options={"reset_mask": np.array([True, True, False])})
    second, _ = envs.reset(options={"reset_mask": np.array([True, False, False])})
    assert len({before[0, 1], first[0, 1], second[0, 1]}) == 3
    assert before[1, 1] != first[1, 1] == second[1, 1]
    assert before[2, 1] == first[2, 1] == second[2, 1]


def test_a_lane_depends_on_no_other_lane():
    few, many = (TaskVectorEnv(n, ValidFamily, autoreset_mode="Disabled") for n in (2, 5))
    few.reset(seed=1, options={"task": [3, 4]})
    many.reset(seed=1, options={"task": [3, 4, 5, 6, 7]})
    for step in range(20):
        one = few.step(np.full(2, step % 8))
        other = many.step(np.array([step % 8, step % 8, 0, 1, 2]))
        for part, whole in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(part, whole[:2])
        others = np.array([False, False, True, False, step % 3 == 0])  # reset more often
        many.reset(options={"reset_mask": others | other[3]})
        many.reset(options={"reset_mask": others})
        few.reset(options={"reset_mask": one[3]})


def test_a_seeded_reset_of_some_lanes_repeats_their_transitions():
    envs = TaskVectorEnv(3, ValidFamily, autoreset_mode="Disabled")
    envs.reset(seed=0, options={"task": [1, 2, 3]})
    mask, rows = np.array([True, False, True]), []
    for _ in range(2):
        envs.step(np.zeros(3, dtype=int))
        obs, _ = envs.reset(seed=7, options={"reset_mask": mask})
        rows.append([obs.tolist(), envs.step(np.ones(3, dtype=int))[1].tolist()])
    (obs, reward), (other_obs, other_reward) = rows
    for lane in (0, 2):
        assert (obs[lane], reward[lane]) == (other_obs[lane], other_reward[lane])
    assert reward[1] != other_reward[1]


def drawn_by(env, split):
    """A task from `sample_task`, or one for each lane."""
    return env.sample_task(np.random.default_rng(7), split)


@pytest.mark.parametrize(
    "make",
    [
        lambda family: TaskEnv(family, new_task="never"),
        lambda family: TaskVectorEnv(3, family, new_task="never"),
    ],
)
def test_the_task_persists_over_resets_until_another_is_given(make):
    env = make(BANDIT)
    env.reset(seed=0)
    drawn = env.task
    env.reset()
    env.reset(seed=1)
    assert np.array_equal(env.task, drawn)
    given = drawn_by(env, "test")
    assert not np.array_equal(given, drawn)
    assert np.array_equal(env.task, drawn)  # drawing a task does not set it
    env.reset(options={"task": given})
    env.reset(options={})
    assert np.array_equal(env.task, given)


def test_without_a_given_task_one_is_drawn_from_the_train_split():
    goals, test_goals = set(), set()
    for seed in range(40):
        env = TaskEnv(GOAL_BANDIT, arms=4, held_out_arms=2)
        env.reset(seed=seed)
        goals.add(int(env.task))
        test_goals.add(int(env.sample_task(np.random.default_rng(seed), "test")))
    assert goals == {0, 1}
    assert test_goals == {2, 3}


def test_sample_task_uses_the_given_generator_only():
    one, other = TaskEnv(BANDIT), TaskEnv(BANDIT)
    drawn = [one.sample_task(np.random.default_rng(seed)).tolist() for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]
    rng = np.random.default_rng(5)
    assert one.sample_task(rng).tolist() == drawn[0] != one.sample_task(rng).tolist()
    assert rollout(one, 1, [0, 1, 2] * 9) == rollout(other, 1, [0, 1, 2] * 9)


def test_rewards_follow_the_given_task():
    env = TaskEnv(GOAL_BANDIT, p_goal=1.0, p_other=0.0)
    for goal in (3, 0):
        paid = []
        for arm in range(5):
            env.reset(options={"task": goal})
            paid.append(env.step(arm)[1])
        assert paid == [float(arm == goal) for arm in range(5)]


def test_types_of_returned_values():
    env = TaskEnv(NAVIGATION)
    obs, info = env.reset(options={"task": torch.tensor([0.05, 0.0])})
    assert obs.dtype == np.float32
    assert info == {}
    obs, reward, terminated, truncated, info = env.step(np.array([0.05, 0.0]))
    assert obs.tolist() == pytest.approx([0.05, 0.0])
    assert [type(x) for x in (obs, reward, terminated, truncated)] == [
        np.ndarray,
        float,
        bool,
        bool,
    ]
    assert (terminated, truncated, info) == (True, False, {"success": True})


def test_infos_have_no_success_if_the_family_defines_none():
    env = TaskEnv(BANDIT)
    env.reset(seed=0)
    assert env.step(0)[-1] == {}


@pytest.mark.parametrize("mode", MODES)
def test_writing_to_arguments_or_returned_arrays_changes_nothing(mode):
    envs = TaskVectorEnv(2, NAVIGATION, autoreset_mode=mode)
    task = np.array([[0.3, 0.3], [0.2, 0.2]], dtype=np.float32)
    action = np.full((2, 2), 0.1, dtype=np.float32)
    obs, _ = envs.reset(options={"task": task})
    held = []
    for _ in range(2):
        for array in (task, obs, envs.task, *held):
            array[...] = 1
        obs, reward, terminated, truncated, infos = envs.step(action)
        held = [action_copy := action.copy(), reward, terminated, truncated, *infos.values()]
        assert np.array_equal(action_copy, action)
    np.testing.assert_allclose(envs.task, [[0.3, 0.3], [0.2, 0.2]])
    np.testing.assert_allclose(terminated, [False, True])
    np.testing.assert_allclose(reward, [-(0.02**0.5), 0.0], atol=1e-6)


@pytest.mark.parametrize("copy", [np.copy, torch.tensor])
def test_writing_to_a_given_or_returned_task_does_not_change_the_task(copy):
    env, envs = TaskEnv(NAVIGATION), TaskVectorEnv(1, NAVIGATION)
    task = np.array([0.25, 0.5], dtype=np.float32)
    one, row = copy(task), copy(task[None])
    env.reset(options={"task": one})
    envs.reset(options={"task": row})
    for array in (one, row, env.task, envs.task):
        array[...] = 0
    assert env.task.tolist() == envs.task[0].tolist() == [0.25, 0.5]


def arrays_in(value):
    """All arrays in a nested return value of a step, also in dictionaries and object arrays."""
    if isinstance(value, dict):
        value = value.values()
    elif isinstance(value, np.ndarray) and value.dtype != object:
        return [value]
    return [array for part in value if part is not None for array in arrays_in(part)]


@pytest.mark.parametrize("mode", MODES)
def test_no_two_returned_arrays_share_memory(mode):
    envs = TaskVectorEnv(3, NAVIGATION, autoreset_mode=mode)
    envs.reset(options={"task": np.array([[0.1, 0.0], [0.1, 0.0], [0.3, 0.3]])})
    arrays = arrays_in(envs.step(np.array([[0.1, 0.0]] * 3, dtype=np.float32)))
    # Observation, reward, two flags, success and its mask. SAME_STEP adds two final observations
    # and their mask, the mask of the final info, and the final success and its mask.
    assert len(arrays) == (12 if mode is AutoresetMode.SAME_STEP else 6)
    for one, two in itertools.combinations(arrays, 2):
        assert not np.shares_memory(one, two)


def sync_and_batched(tasks, mode, **options):
    """A SyncVectorEnv of `TaskEnv`s and a `TaskVectorEnv`, in the same tasks."""
    sync = SyncVectorEnv(
        [lambda: TaskEnv(NAVIGATION, **options) for _ in tasks], autoreset_mode=mode
    )
    for env, task in zip(sync.envs, tasks, strict=True):
        env.reset(options={"task": task})
    batched = TaskVectorEnv(len(tasks), NAVIGATION, autoreset_mode=mode, **options)
    batched.reset(options={"task": tasks})
    return sync, batched


def assert_same(expected, actual):
    """Asserts equal arrays, dictionaries of arrays, or object arrays, and equal types."""
    assert type(expected) is type(actual)
    if isinstance(expected, dict):
        assert expected.keys() == actual.keys()
        for key, value in expected.items():
            assert_same(value, actual[key])
    elif expected.dtype == object:
        for one, two in zip(expected, actual, strict=True):
            np.testing.assert_array_equal(one, two)
    else:
        assert expected.dtype == actual.dtype
        np.testing.assert_array_equal(expected, actual)


@pytest.mark.parametrize("mode", MODES)
def test_the_vector_environment_behaves_as_gymnasiums_sync_vector_env(mode):
    # Lanes reach their goals at different steps; one starts at its goal, one never reaches it.
    tasks = np.array([[0.1, 0.1], [0.25, -0.3], [0.0, 0.0], [-0.5, 0.5]], dtype=np.float32)
    sync, batched = sync_and_batched(tasks, mode, steps=4)
    assert_same(sync.reset()[0], batched.reset()[0])
    ends = np.zeros(4, dtype=int)
    for _ in range(15):
        action = np.clip(tasks, -0.1, 0.1)
        expected, actual = sync.step(action), batched.step(action)
        for one, two in zip(expected, actual, strict=True):
            assert_same(one, two)
        ended = actual[2] | actual[3]
        ends += ended
        if mode is AutoresetMode.DISABLED and ended.any():
            options = {"reset_mask": ended}
            assert_same(sync.reset(options=dict(options))[0], batched.reset(options=options)[0])
            assert options == {"reset_mask": ended}  # the caller's dictionary is unchanged
    assert (ends >= 2).all()


def test_next_step_uses_a_step_for_each_reset_and_same_step_does_not():
    rewards = {}
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        envs = TaskVectorEnv(2, GOAL_BANDIT, p_goal=1.0, p_other=0.0, autoreset_mode=mode)
        envs.reset(options={"task": np.array([0, 1])})
        rewards[mode] = [envs.step(np.array([0, 0]))[1].tolist() for _ in range(4)]
    assert rewards[AutoresetMode.NEXT_STEP] == [[1, 0], [0, 0], [1, 0], [0, 0]]
    assert rewards[AutoresetMode.SAME_STEP] == [[1, 0]] * 4


def test_make_vec_uses_gymnasiums_autoreset_by_default():
    envs = gymnasium.make_vec("metarl/BernoulliBandit-v0", num_envs=3, arms=2)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert envs.action_space.nvec.tolist() == [2, 2, 2]
    assert envs.observation_space.shape == (3, 1)
    other = gymnasium.make_vec(
        "metarl/BernoulliBandit-v0", num_envs=1, autoreset_mode=AutoresetMode.DISABLED
    )
    assert other.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP


def test_vector_transitions_are_equal_for_equal_seeds_only():
    rewards = []
    for seed in (1, 1, 2):
        envs = TaskVectorEnv(64, BANDIT)
        envs.reset(seed=seed)
        rewards.append([envs.step(np.zeros(64, dtype=int))[1].tolist() for _ in range(3)])
    assert rewards[0] == rewards[1] != rewards[2]


def test_max_episode_steps_shortens_episodes():
    envs = gymnasium.make_vec(
        "metarl/PointNavigation-v0",
        num_envs=2,
        max_episode_steps=3,
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    envs.reset(options={"task": np.array([[0.5, 0.5], [0.2, 0.2]])})
    flags = [envs.step(np.full((2, 2), 0.1, dtype=np.float32))[2:4] for _ in range(7)]
    assert [f[1].tolist() for f in flags] == [
        [False, False],
        [False, False],
        [True, False],  # the limit; lane 1 terminated one step before
        [False, False],
        [False, False],
        [False, False],
        [True, False],
    ]
    assert [f[0][1] for f in flags] == [False, True, False, False, True, False, False]


def test_max_episode_steps_counts_from_the_last_reset():
    envs = TaskVectorEnv(2, NAVIGATION, max_episode_steps=2, autoreset_mode="Disabled")
    envs.reset(options={"task": [[0.5, 0.5]] * 2})
    stay = np.zeros((2, 2), dtype=np.float32)
    assert envs.step(stay)[3].tolist() == [False, False]
    envs.reset(options={"reset_mask": np.array([False, True])})
    assert envs.step(stay)[3].tolist() == [True, False]
    envs.reset()
    assert envs.step(stay)[3].tolist() == [False, False]


def test_gymnasiums_record_episode_statistics_reads_the_infos():
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        TaskVectorEnv(2, NAVIGATION, autoreset_mode=AutoresetMode.SAME_STEP)
    )
    envs.reset(options={"task": np.array([[0.1, 0.0], [0.3, 0.0]])})
    lengths = []
    for _ in range(6):
        infos = envs.step(np.array([[0.1, 0.0]] * 2, dtype=np.float32))[-1]
        lengths.append((infos["episode"]["l"] * infos["_episode"]).tolist())
    assert lengths == [[1, 0], [1, 0], [1, 3], [1, 0], [1, 0], [1, 3]]


def test_a_mask_sets_the_tasks_of_marked_lanes_only():
    envs = TaskVectorEnv(3, GOAL_BANDIT, autoreset_mode="Disabled")
    envs.reset(options={"task": [0, 1, 2]})
    envs.step([0, 0, 0])
    mask = np.array([True, False, True])
    envs.reset(options={"task": [4, 4, 4], "reset_mask": mask})
    assert envs.task.tolist() == [4, 1, 4]
    with pytest.raises(ResetNeeded, match=r"lanes \[1\] have ended and autoreset is disabled"):
        envs.step([0, 0, 0])
    envs.reset(options={"reset_mask": ~mask})
    envs.step([0, 0, 0])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ([0, 1], r"one task for each of the 3 lanes; got 2"),
        ([0, 1, 5], r"Task 2 of 3 is 5, outside"),
        (1, r"got shape \[\]"),
    ],
)
def test_wrong_tasks_of_a_vector_are_refused_and_change_nothing(task, message):
    envs = TaskVectorEnv(3, GOAL_BANDIT)
    envs.reset(options={"task": [0, 1, 2]})
    with pytest.raises(TaskError, match=message):
        envs.reset(options={"task": task})
    assert envs.task.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("task", "message"),
    [([0.1, 0.2, 0.3], r"got shape \[1, 3\]"), ([0.1, 0.6], "outside the task space")],
)
def test_wrong_tasks_of_one_lane_are_refused(task, message):
    with pytest.raises(TaskError, match=message):
        TaskEnv(NAVIGATION).reset(options={"task": task})


@pytest.mark.parametrize("mask", [np.array([True]), np.array([1, 0]), "all"])
def test_wrong_masks_are_refused(mask):
    envs = TaskVectorEnv(2, BANDIT)
    envs.reset()
    with pytest.raises(ShapeError, match=r"\[num_envs\] = \[2\] bool"):
        envs.reset(options={"reset_mask": mask})


def test_stepping_needs_a_running_episode():
    env = TaskEnv(BANDIT)
    assert env.task is None
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before step"):
        env.step(0)
    env.reset()
    env.step(0)
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before step"):
        env.step(0)  # one pull was the whole episode


def test_the_first_reset_must_include_all_lanes():
    envs = TaskVectorEnv(2, BANDIT)
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before step"):
        envs.step([0, 0])
    with pytest.raises(ResetNeeded, match="must start all lanes"):
        envs.reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize(
    ("family", "action", "message"),
    [
        (BANDIT, 5, r"integers in Discrete\(5\); got \[5\]"),
        (BANDIT, -1, "integers"),
        (BANDIT, 0.5, "integers"),
        (BANDIT, [0, 1], r"shape \[1\].*got \[1, 2\]"),
        (NAVIGATION, 0.1, r"shape \[1, 2\].*got \[1\]"),
        (NAVIGATION, [0.1, 0.1, 0.1], r"got \[1, 3\]"),
    ],
)
def test_wrong_actions_are_refused(family, action, message):
    env = TaskEnv(family)
    env.reset(seed=0)
    with pytest.raises(InvalidAction, match=message):
        env.step(action)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"render_mode": "human"}, "do not render; got render_mode='human'"),
        ({"num_envs": 0}, "num_envs=0"),
        ({"max_episode_steps": 0}, "max_episode_steps=0"),
        ({"amrs": 3}, "no option 'amrs'. Did you mean 'arms'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TaskVectorEnv(**{"num_envs": 2, "family": BANDIT, **options})
