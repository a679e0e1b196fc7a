"""Additional checks of task families, which call the batched functions directly.

Axes: `L` lanes, `A` action, `D` observation.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.bridges.task_env import TaskVectorEnv
from metarl.checks.check import ViolationError, check
from metarl.checks.env_rollouts import global_generators
from metarl.checks.env_under_test import EnvUnderTest
from metarl.noise import LaneNoise, lane_keys
from metarl.tasks.batched_env import State, select_lanes
from metarl.tasks.family import Split, TaskFamily

LANES, STEPS = 6, 12


@check(
    "reset, observe, step and success return one row per lane, with the documented dtypes.",
    why="The rollout engine and the learners are written for these axes and dtypes.",
    fix="observe: [L, D] float32; step: the next state, reward [L] float32, terminated [L] bool; "
    "success: [L] bool; every tensor of a state: [L, ...].",
)
def shapes_and_dtypes_are_correct(env_under_test: EnvUnderTest) -> str | None:
    """Calls each function once."""
    family, tasks, noise = _family(env_under_test), _lanes(env_under_test), _noise(0)
    lanes, actions = len(tasks), _actions(env_under_test)[0]
    state = family.reset(tasks, noise)
    next_state, reward, terminated = family.step(tasks, state, actions, noise)
    results = [
        ("observe", family.observe(tasks, state), family.observation_space.shape, torch.float32),
        ("the reward of step", reward, (), torch.float32),
        ("terminated of step", terminated, (), torch.bool),
    ]
    if family.defines_success:
        results.append(("success", family.success(tasks, next_state), (), torch.bool))
    for name, value, shape, dtype in results:
        if value.shape != (lanes, *shape) or value.dtype != dtype:
            raise ViolationError(
                f"{name} returned {list(value.shape)} {value.dtype} for {lanes} lanes instead of "
                f"{[lanes, *shape]} {dtype}."
            )
    for name, whole in (("reset", state), ("step", next_state)):
        for part in _tensors(whole):
            if part.ndim == 0 or len(part) != lanes:
                raise ViolationError(
                    f"A state tensor of {name} is {list(part.shape)}; its first axis must be the "
                    f"{lanes} lanes."
                )
    return None


@check(
    "Equal arguments give equal results, and arguments and drawn numbers are not modified.",
    why="The engine keeps earlier states and tasks. A function that modifies them changes stored "
    "experience, and one with hidden state makes rollouts depend on history.",
    fix="Create new tensors (state + x instead of state.add_(x)), draw from the noise that is "
    "passed in, and keep nothing in attributes.",
    needs=[shapes_and_dtypes_are_correct],
)
def functions_are_pure(env_under_test: EnvUnderTest) -> str | None:
    """Calls every function twice at each step of a rollout, with equal random numbers."""
    family, tasks = _family(env_under_test), _lanes(env_under_test)

    def sample(split: Split, generator: Generator) -> Tensor:
        return family.sample_tasks(9, generator, split)

    for split in ("train", "test"):
        _call_twice("sample_tasks", sample, split, random=lambda: Generator().manual_seed(0))
    noise, reset_noise = _noise(0), _noise(1)
    state = _call_twice("reset", family.reset, tasks, random=partial(reset_noise.at, 0))
    for step, actions in enumerate(_actions(env_under_test)):
        _call_twice("observe", family.observe, tasks, state)
        if family.defines_success:
            _call_twice("success", family.success, tasks, state)
        state, _, terminated = _call_twice(
            "step", family.step, tasks, state, actions, random=partial(noise.at, step)
        )
        state = _reset_ended(family, tasks, state, terminated, step, reset_noise)
    return None


def _call_twice(
    name: str,
    function: Callable[..., Any],
    *arguments: Any,
    random: Callable[[], Any] | None = None,
) -> Any:
    """The result of a function, which must be equal in both calls.

    `random` returns the last argument, a noise or generator at the same position in both calls.
    """
    before = [_clone(argument) for argument in arguments]
    with global_generators(0):  # another check tests whether these are used
        first = function(*arguments, *([random()] if random else []))
    kept = _clone(first)
    if not all(_equal(one, two) for one, two in zip(before, arguments, strict=True)):
        raise ViolationError(f"{name} modified a tensor that was passed to it.")
    with global_generators(0):
        second = function(*arguments, *([random()] if random else []))
    if not _equal(kept, second):
        raise ViolationError(
            f"{name} returned another result when called again with equal arguments. It has hidden "
            "state, or modified numbers that it had drawn."
        )
    return first


@check(
    "A lane does not depend on what happens in other lanes.",
    why="A trial must not depend on which other trials share its batch.",
    fix="Compute along features, never across the lanes (no mean, sort or indexing over the "
    "first axis). Draw for all lanes, whatever their tasks, states and actions, and let no lane "
    "use the numbers of another.",
    needs=[shapes_and_dtypes_are_correct],
)
def lanes_do_not_mix(env_under_test: EnvUnderTest) -> str | None:
    """Changes the task, actions and noise of the first lane and compares the other lanes."""
    family, tasks, actions = (
        _family(env_under_test),
        _lanes(env_under_test),
        _actions(env_under_test),
    )
    first_lane = torch.arange(LANES) == 0
    other_tasks = select_lanes(first_lane, tasks.roll(-1, 0), tasks)
    other_actions = [select_lanes(first_lane, one.roll(-1, 0), one) for one in actions]
    other_keys = torch.where(first_lane, lane_keys(1, LANES), lane_keys(0, LANES))
    one = _observed_steps(family, tasks, actions, lane_keys(0, LANES))
    two = _observed_steps(family, other_tasks, other_actions, other_keys)
    for step, outputs in enumerate(zip(one, two, strict=True)):
        for name, a, b in zip(("observation", "reward", "terminated"), *outputs, strict=True):
            if not _equal(a[1:], b[1:]):
                raise ViolationError(
                    f"Another task, action and noise in the first lane changed the {name} of other "
                    f"lanes in step {step}."
                )
    return None


def _observed_steps(
    family: TaskFamily, tasks: Tensor, actions: list[Tensor], keys: Tensor
) -> list[tuple[Tensor, ...]]:
    """Observation before, reward and terminated of each step."""
    noise, reset_noise = LaneNoise(keys), LaneNoise(keys).child(0)
    state = family.reset(tasks, reset_noise.at(0))
    steps: list[tuple[Tensor, ...]] = []
    for step, action in enumerate(actions):
        obs = family.observe(tasks, state)
        with global_generators(step):
            state, reward, terminated = family.step(tasks, state, action, noise.at(step))
        steps.append((obs, reward, terminated))
        state = _reset_ended(family, tasks, state, terminated, step, reset_noise)
    return steps


@check(
    "An observation does not share memory with the state or the task.",
    why="Experience is stored. A view keeps changing with the state, and later reveals what "
    "followed it.",
    fix="Return state.clone(), or something computed from it.",
    needs=[shapes_and_dtypes_are_correct],
)
def observe_returns_new_tensors(env_under_test: EnvUnderTest) -> str | None:
    """Compares memory addresses."""
    family, tasks = _family(env_under_test), _lanes(env_under_test)
    state = family.reset(tasks, _noise(0))
    memory = family.observe(tasks, state).untyped_storage().data_ptr()
    for name, value in (("state", state), ("task", tasks)):
        if any(part.untyped_storage().data_ptr() == memory for part in _tensors(value)):
            raise ViolationError(f"The observation shares memory with the {name}.")
    return None


@check(
    "The vector environment gives equal transitions, however it is reset after an episode.",
    why="Libraries differ in the mode of autoreset that they ask gymnasium.make_vec for.",
    fix="Let step accept every state that reset returns, also where the episode is started again "
    "at once, and keep nothing in attributes.",
    needs=[shapes_and_dtypes_are_correct],
)
def autoreset_modes_agree(env_under_test: EnvUnderTest) -> str | None:
    """Steps the same lanes past several ends in every mode.

    SAME_STEP and DISABLED give equal transitions. NEXT_STEP inserts a step, after which the noise
    differs: there the first episodes are equal.
    """
    same, disabled, later = (
        _vector_steps(env_under_test, mode)
        for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP)
    )
    ended = np.zeros(LANES, bool)
    for step, (one, two, other) in enumerate(zip(same, disabled, later, strict=True)):
        pairs = [(one, two, ~np.zeros(LANES, bool), "DISABLED"), (one, other, ~ended, "NEXT_STEP")]
        for a, b, lanes, mode in pairs:
            if not np.array_equal(a[lanes], b[lanes], equal_nan=True):
                raise ViolationError(
                    f"In step {step} of the vector environment, reward or end of an episode differ "
                    f"between the autoreset modes SAME_STEP and {mode}."
                )
        ended |= one[:, 1:].any(1)
    return None


def _vector_steps(env_under_test: EnvUnderTest, mode: AutoresetMode) -> list[NDArray[np.float64]]:
    """Reward, terminated and truncated [L, 3] of each step."""
    family = _family(env_under_test)
    options: dict[str, Any] = dataclasses.asdict(family)  # type: ignore[call-overload]
    envs = TaskVectorEnv(LANES, type(family), autoreset_mode=mode, **options)
    rows = []
    with global_generators(0):  # another check tests whether these are used
        envs.reset(seed=env_under_test.seed, options={"task": _lanes(env_under_test)})
        for action in _actions(env_under_test) * 3:
            _, reward, terminated, truncated, _ = envs.step(action.numpy())
            rows.append(np.stack((reward, terminated, truncated), 1))
            if mode is AutoresetMode.DISABLED and (terminated | truncated).any():
                envs.reset(options={"reset_mask": terminated | truncated})
    return rows


def _family(env_under_test: EnvUnderTest) -> TaskFamily:
    assert isinstance(env_under_test.family, TaskFamily)
    return env_under_test.family


def _reset_ended(
    family: TaskFamily,
    tasks: Tensor,
    state: State,
    terminated: Tensor,
    step: int,
    noise: LaneNoise,
) -> State:
    """The state after a reset of terminated lanes, and of all lanes at the time limit."""
    truncated = (step + 1) % family.episode_steps == 0
    return select_lanes(terminated | truncated, family.reset(tasks, noise.at(step + 1)), state)


def _lanes(env_under_test: EnvUnderTest) -> Tensor:
    """Tasks [L, ...], the first two of them different if there are two."""
    tasks = env_under_test.task_tensor
    return tasks[torch.arange(LANES) % len(tasks)]


def _actions(env_under_test: EnvUnderTest) -> list[Tensor]:
    """Random actions [L] or [L, A] for each step, some at the bounds."""
    space = env_under_test.family.action_space
    space.seed(env_under_test.seed)
    steps = []
    for step in range(STEPS):
        actions = np.stack([space.sample() for _ in range(LANES)])
        if step % 3 == 1 and isinstance(space, spaces.Box) and space.is_bounded():
            actions = np.where(actions > (space.low + space.high) / 2, space.high, space.low)
        steps.append(torch.as_tensor(actions))
    return steps


def _noise(seed: int) -> LaneNoise:
    return LaneNoise(lane_keys(seed, LANES))


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in a tensor, a tuple of them, or something without any."""
    if isinstance(value, Tensor):
        return [value]
    return [part for one in value for part in _tensors(one)] if isinstance(value, tuple) else []


def _clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return [_clone(part) for part in value] if isinstance(value, tuple) else value


def _equal(one: Any, two: Any) -> bool:
    """Whether all tensors are equal; NaN equals NaN."""
    if isinstance(one, Tensor):
        both = (one, two)
        if one.is_floating_point():
            both = (one.nan_to_num(nan=-1.2345e30), two.nan_to_num(nan=-1.2345e30))
        return torch.equal(*both)
    if isinstance(one, tuple | list):
        return all(_equal(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two)


BATCHED_CHECKS = (
    shapes_and_dtypes_are_correct,
    functions_are_pure,
    lanes_do_not_mix,
    observe_returns_new_tensors,
    autoreset_modes_agree,
)
