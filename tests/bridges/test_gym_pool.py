"""Lanes of Gymnasium environments, in this process and in workers."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled

from metarl.bridges.env_block import (
    AFTER_RESET,
    AFTER_STEP,
    EnvBlock,
    Lane,
    LaneSpaces,
    flat_observation,
    flat_space,
    plain_action_space,
)
from metarl.bridges.gym_pool import LanePool
from metarl.errors import ConfigError


class StepCounter(gymnasium.Env):
    """Episodes of `task` steps; rewards and observations encode task, episode, step, and seed."""

    observation_space = spaces.Dict(
        {
            "clock": spaces.Box(0, 100, (2, 1), np.float64),
            "pair": spaces.Tuple((spaces.Discrete(3, start=5), spaces.Discrete(2))),
        }
    )
    action_space = spaces.Discrete(4, start=2)

    def __init__(self, info=True):
        self.task, self.episode, self.info, self.took = None, 0, info, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if "task" in (options or {}):
            self.task, self.episode = options["task"], 0
        self.episode += 1
        self.elapsed, self.noise = 0, int(self.np_random.integers(1000))
        return self._obs(), {}

    def _obs(self):
        return {
            "clock": np.array([[self.elapsed], [self.episode]], float),
            "pair": (5 + self.elapsed % 3, self.task % 2),
        }

    def step(self, action):
        if action == 5:
            raise ArithmeticError(f"task {self.task} broke")
        self.took.append(action)
        self.elapsed += 1
        info = {"is_success": self.elapsed == 2} if self.info else {}
        return self._obs(), self.noise + self.elapsed / 8, self.elapsed == self.task, False, info


SPACES = LaneSpaces(
    flat_space(StepCounter.observation_space), plain_action_space(StepCounter.action_space)
)


class Continuous(gymnasium.Env):
    observation_space = spaces.Discrete(3)
    action_space = spaces.Box(np.array([[-1.0, 0.0]]), np.array([[1.0, 0.5]]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        self.took = action
        return 2, np.float32(1), True, True, {"success": np.bool_(True)}


def test_observations_are_flattened_as_gymnasium_does():
    lane = Lane(StepCounter())
    lane.next_task = 3
    obs, info = lane.reset(seed=0)
    assert (obs.dtype, info) == (np.float32, {})
    # clock: elapsed, episode; one-hot: elapsed % 3 of 3, task % 2 of 2
    assert obs.tolist() == [0, 1, 1, 0, 0, 0, 1]
    assert obs in lane.observation_space
    obs, *_ = lane.step(0)
    assert obs.tolist() == [1, 1, 0, 1, 0, 0, 1]


def test_discrete_observations_are_one_hot():
    lane = Lane(Continuous())
    assert lane.reset()[0].tolist() == [1, 0, 0]


def test_the_flattened_observation_is_a_copy_of_the_wanted_type():
    space, obs = spaces.Box(-1, 1, (2, 2)), np.float32([[0.1, 0.2], [0.3, 0.4]])
    flat = flat_observation(space, obs)
    assert (flat.shape, flat.dtype) == ((4,), np.float32)
    assert not np.shares_memory(flat, obs)
    assert flat_observation(space, obs, np.float64).dtype == np.float64


def test_discrete_actions_start_at_zero_whatever_the_start_of_their_space():
    lane = Lane(StepCounter())
    assert lane.action_space == spaces.Discrete(4)
    lane.next_task = 9
    lane.reset(seed=0)
    for action in range(3):
        lane.step(np.int64(action))
    assert lane.unwrapped.took == [2, 3, 4]


def test_box_actions_are_clipped_and_reshaped_and_nan_is_kept():
    lane = Lane(Continuous())
    assert lane.action_space == spaces.Box(np.float32([-1, 0]), np.float32([1, 0.5]))
    lane.reset()
    lane.step(np.float32([-7, 7]))
    assert lane.unwrapped.took.tolist() == [[-1, 0.5]]
    assert lane.unwrapped.took.dtype == np.float64
    lane.step(np.float32([np.nan, np.inf]))
    assert np.isnan(lane.unwrapped.took[0, 0])
    assert lane.unwrapped.took[0, 1] == 0.5


def test_an_episode_is_terminated_or_truncated_and_types_are_built_in():
    lane = Lane(Continuous())
    lane.reset()
    _, reward, terminated, truncated, info = lane.step(np.zeros(2))
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"success": True})
    assert [type(value) for value in (reward, terminated, truncated)] == [float, bool, bool]


def test_spaces_without_a_fixed_size_and_other_action_spaces_are_refused():
    with pytest.raises(ConfigError, match=r"Observations in Sequence.* have no fixed size.*wrap"):
        flat_space(spaces.Sequence(spaces.Discrete(2)))
    with pytest.raises(ConfigError, match=r"must be Discrete or a Box of floats; got MultiDiscr"):
        plain_action_space(spaces.MultiDiscrete([2, 3]))
    with pytest.raises(ConfigError, match=r"a Box of floats; got Box"):
        plain_action_space(spaces.Box(0, 9, (2,), np.int64))


def test_float64_bounds_become_infinite_without_a_warning():
    space = flat_space(spaces.Box(-1e300, np.finfo(np.float64).max, (2, 2), np.float64))
    assert space == spaces.Box(-np.inf, np.inf, (4,), np.float32)


def rollout(pool, tasks, seeds, steps, action=0):
    """The arrays of a reset and `steps` steps, as lists."""
    rows = [_lists(pool.reset(tasks, seeds))]
    actions = np.full(len(tasks), action)
    for _ in range(steps):
        rows.append(_lists(pool.step(actions)))
    return rows


def _lists(arrays):
    return {name: np.array(value).tolist() for name, value in arrays.items()}


@pytest.fixture
def pool():
    pool = LanePool(StepCounter, SPACES, 3, workers=0)
    yield pool
    pool.close()


def test_each_lane_has_its_task_seed_and_episode_length(pool):
    _, *steps = rollout(pool, [1, 3, 2], [7, 8, 7], 6)
    ended = [step["terminated"] for step in steps]
    assert ended == [[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 1, 1]]
    noise = [np.random.default_rng(seed).integers(1000, size=6) for seed in (7, 8, 7)]
    rewards = [step["reward"] for step in steps]
    # Episodes take 1, 3 and 2 steps. The task and the random stream continue over episodes.
    assert [row[0] for row in rewards] == [noise[0][t] + 1 / 8 for t in range(6)]
    assert [row[1] for row in rewards] == [noise[1][t // 3] + (t % 3 + 1) / 8 for t in range(6)]
    assert [row[2] for row in rewards] == [noise[2][t // 2] + (t % 2 + 1) / 8 for t in range(6)]


def test_the_terminal_and_the_next_initial_observation_are_both_returned(pool):
    first, *steps = rollout(pool, [1, 3, 2], [0, 0, 0], 3)
    assert first["obs"] == first["initial_obs"]
    clocks = [[obs[:2] for obs in step["obs"]] for step in steps]
    initial = [[obs[:2] for obs in step["initial_obs"]] for step in steps]
    assert clocks == [[[1, 1], [1, 1], [1, 1]], [[1, 2], [2, 1], [2, 1]], [[1, 3], [3, 1], [1, 2]]]
    assert initial == [
        [[0, 2], [1, 1], [1, 1]],
        [[0, 3], [2, 1], [0, 2]],
        [[0, 4], [0, 2], [1, 2]],
    ]


def test_success_is_returned_for_ended_and_for_running_lanes(pool):
    _, *steps = rollout(pool, [2, 3, 1], [0, 0, 0], 4)
    assert [step["success"] for step in steps] == [[0, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_success_is_false_if_the_info_has_no_key_for_it():
    pool = LanePool(lambda: StepCounter(info=False), SPACES, 2, workers=0)
    _, *steps = rollout(pool, [1, 2], [0, 0], 2)
    assert [step["success"] for step in steps] == [[0, 0], [0, 0]]
    pool.close()


def test_an_exception_in_an_environment_is_raised_and_closes_the_pool(pool):
    pool.reset([1, 2, 3], [0, 0, 0])
    with pytest.raises(ArithmeticError, match="task 1 broke") as raised:
        pool.step(np.array([3, 0, 0]))
    assert pool.closed
    assert "metarl check TASK" in raised.value.__notes__[0]


def test_values_are_split_over_blocks_and_spare_lanes_repeat_the_last():
    pool = LanePool(StepCounter, SPACES, 5, workers=0)
    pool._blocks, pool._block_lanes = 3, 2
    assert pool._split([1, 2, 3, 4, 5]) == [[1, 2], [3, 4], [5, 5]]
    merged = pool._merged({"reward": np.arange(6).reshape(3, 2)})
    assert merged["reward"].tolist() == [0, 1, 2, 3, 4]


def test_a_block_makes_its_environments_at_the_first_reset():
    # AsyncVectorEnv makes a block in the main process to read its spaces, and never steps it.
    made = []
    block = EnvBlock(lambda: made.append(1) or StepCounter(), 0, 2, SPACES)
    assert made == []
    block.close()
    block.reset(options={"tasks": [[1, 1]], "seeds": [[0, 0]]})
    assert made == [1, 1]


@pytest.mark.filterwarnings(
    "ignore:.*(Worker-|Raising the last exception|Traceback|Calling `close`)"
)
def test_workers_give_the_transitions_and_failures_of_this_process():
    tasks, seeds = [1, 3, 2], [7, 8, 9]
    local = LanePool(StepCounter, SPACES, 3, workers=0)
    remote = LanePool(StepCounter, SPACES, 3, workers=2)  # two lanes each: one of them is spare
    try:
        assert remote._blocks * remote._block_lanes == 4
        for _ in range(2):  # workers are kept for the next trial
            assert rollout(remote, tasks, seeds, 5) == rollout(local, tasks, seeds, 5)
        with pytest.raises(ArithmeticError, match="task 3 broke"):
            remote.step(np.array([0, 3, 0]))
        assert remote.closed
    finally:
        remote.close()
        local.close()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionResetError(104, "reset"), "a new process cannot import the code that makes"),
        (EOFError(), "ended during their start"),
        (TypeError("cannot pickle '_thread.lock' object"), "cannot be sent to worker processes: c"),
    ],
)
def test_workers_that_cannot_start_raise_an_error_with_a_remedy(monkeypatch, error, words):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("metarl.bridges.workers.AsyncVectorEnv", fail)
    with pytest.raises(
        ConfigError, match=words + r"[\s\S]*entry_point='your_module:Class'[\s\S]*__main__"
    ):
        LanePool(StepCounter, SPACES, 2, workers=2)


class GreyFrames(StepCounter):
    """Renders the elapsed steps as a shade of grey."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"
    missing = False

    def reset(self, **options):
        self.shade = 0
        return super().reset(**options)

    def step(self, action):
        self.shade += 1
        return super().step(action)

    def render(self):
        if self.missing:
            raise DependencyNotInstalled("pygame is not installed")
        return np.full((2, 2, 3), self.shade, np.uint8)


def test_the_frame_of_lane_0_is_kept_when_its_episode_ends():
    pool = LanePool(GreyFrames, SPACES, 2, workers=0)
    pool.reset([2, 9], [0, 0])
    assert pool.frame(AFTER_RESET).max() == 0
    shades = []
    for _ in range(3):  # its episodes have two steps
        arrays = pool.step(np.array([0, 0]))
        shades.append((bool(arrays["terminated"][0]), int(pool.frame(AFTER_STEP).max())))
    assert shades == [(False, 1), (True, 2), (False, 1)]
    assert pool.frame(AFTER_RESET).max() == 0


def test_rendering_without_a_dependency_names_it():
    env = GreyFrames()
    env.missing = True
    with pytest.raises(ConfigError, match="cannot be rendered here: pygame is not installed"):
        Lane(env, keep_frames=True).reset(options={"task": 1})
    Lane(env).reset(options={"task": 1})  # renders nothing
