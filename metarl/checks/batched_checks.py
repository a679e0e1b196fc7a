"""What families written in tensors promise besides: their batched functions, looked at directly.

Axes: `L` lanes, `A` action, `D` observation.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.checks.framework import BrokenPromiseError, Subject, global_generators, promise
from metarl.tasks.batched_env import State, select_lanes
from metarl.tasks.family import TaskFamily

LANES, STEPS = 6, 12

SHAPES = "batched types"


@promise(
    "reset, observe, step and success give one row per lane, of the promised types.",
    why="Everything that lives and learns is written for these axes and types.",
    mend="observe: [L, D] float32; step: the next state, reward [L] float32, terminated [L] bool; "
    "success: [L] bool; every tensor of a state: [L, ...].",
)
def batched_types(subject: Subject) -> str | None:
    """Calls each of them."""
    family, tasks, generator = _family(subject), _lanes(subject), _seeded(0)
    lanes, actions = len(tasks), _actions(subject)[0]
    state = family.reset(tasks, generator)
    after, reward, terminated = family.step(tasks, state, actions, generator)
    results = [
        ("observe", family.observe(tasks, state), family.observation_space.shape, torch.float32),
        ("the reward of step", reward, (), torch.float32),
        ("terminated of step", terminated, (), torch.bool),
    ]
    if family.defines_success:
        results.append(("success", family.success(tasks, after), (), torch.bool))
    for name, value, shape, dtype in results:
        if value.shape != (lanes, *shape) or value.dtype != dtype:
            raise BrokenPromiseError(
                f"{name} gave {list(value.shape)} {value.dtype} for {lanes} lanes instead of "
                f"{[lanes, *shape]} {dtype}."
            )
    for name, whole in (("reset", state), ("step", after)):
        for part in _parts(whole):
            if part.ndim == 0 or len(part) != lanes:
                raise BrokenPromiseError(
                    f"A state tensor of {name} is {list(part.shape)}; its first axis must be the "
                    f"{lanes} lanes."
                )
    return None


@promise(
    "Equal arguments give equal results, and arguments stay as they are.",
    why="The engine keeps earlier states and tasks. A function that changes them changes what was "
    "lived before, and one with a memory of its own makes lives depend on history.",
    mend="Make new tensors (state + x instead of state.add_(x)), draw from the generator that is "
    "handed in, and keep nothing in attributes.",
    needs=[SHAPES],
)
def functions_are_pure(subject: Subject) -> str | None:
    """Calls every function twice along a life, with equal generators."""
    family, tasks = _family(subject), _lanes(subject)
    for split in ("train", "test"):
        _twice("sample_tasks", lambda s, g: family.sample_tasks(9, g, s), 0, split)
    state = _twice("reset", family.reset, 0, tasks)
    for step, action in enumerate(_actions(subject)):
        _twice("observe", lambda t, s, _: family.observe(t, s), step, tasks, state)
        if family.defines_success:
            _twice("success", lambda t, s, _: family.success(t, s), step, tasks, state)
        state, _, terminated = _twice("step", family.step, step, tasks, state, action)
        state = _reopened(family, tasks, state, terminated, step, _seeded(step))
    return None


def _twice(name: str, function: Callable[..., Any], seed: int, *arguments: Any) -> Any:
    """The result of a function, which two calls must agree on."""
    before = [_clone(argument) for argument in arguments]
    with global_generators(seed):  # whether these are used is another promise
        first = function(*arguments, _seeded(seed))
    kept = _clone(first)
    if not all(_equal(one, two) for one, two in zip(before, arguments, strict=True)):
        raise BrokenPromiseError(f"{name} changed a tensor that it was given.")
    with global_generators(seed):
        second = function(*arguments, _seeded(seed))
    if not _equal(kept, second):
        raise BrokenPromiseError(
            f"{name} gave another result when it was called again with equal arguments."
        )
    return first


@promise(
    "A lane does not depend on what happens in other lanes.",
    why="A trial must not depend on which other trials share its batch.",
    mend="Compute along features, never across the lanes (no mean, sort or indexing over the "
    "first axis).",
    needs=[SHAPES],
)
def lanes_do_not_mix(subject: Subject) -> str | None:
    """Changes the task and the action of the first lane and looks at the others.

    If that changes how many random numbers are drawn, the others' luck changes by right; it is
    noted, because policies are compared more sharply under equal luck.
    """
    family, tasks, actions = _family(subject), _lanes(subject), _actions(subject)
    other_tasks, other_actions = tasks.clone(), [action.clone() for action in actions]
    other_tasks[0] = tasks[1]
    for action in other_actions:
        action[0] = action[1]
    runs = [_seeded(5), _seeded(5)]
    one, two = (family.reset(t, run) for t, run in zip((tasks, other_tasks), runs, strict=True))
    for step in range(STEPS):
        with global_generators(step):
            one, *first = family.step(tasks, one, actions[step], runs[0])
        with global_generators(step):
            two, *second = family.step(other_tasks, two, other_actions[step], runs[1])
        if not torch.equal(runs[0].get_state(), runs[1].get_state()):
            return "how many random numbers are drawn depends on tasks or actions"
        seen = (
            [family.observe(tasks, one), *first],
            [family.observe(other_tasks, two), *second],
        )
        for name, a, b in zip(("observation", "reward", "terminated"), *seen, strict=True):
            if not _equal(a[1:], b[1:]):
                raise BrokenPromiseError(
                    f"Another task and action in the first lane changed the {name} of other lanes "
                    f"in step {step}, though equally many random numbers were drawn."
                )
        one = _reopened(family, tasks, one, first[-1], step, runs[0])
        two = _reopened(family, other_tasks, two, second[-1], step, runs[1])
    return None


@promise(
    "An observation lies in memory of its own, not in that of the state or the task.",
    why="Experience is kept. A view goes on changing with the state, and shows later what came "
    "after it.",
    mend="Return state.clone(), or something computed from it.",
    needs=[SHAPES],
)
def observe_gives_fresh_tensors(subject: Subject) -> str | None:
    """Compares memory."""
    family, tasks = _family(subject), _lanes(subject)
    state = family.reset(tasks, _seeded(0))
    memory = family.observe(tasks, state).untyped_storage().data_ptr()
    for name, value in (("state", state), ("task", tasks)):
        if any(part.untyped_storage().data_ptr() == memory for part in _parts(value)):
            raise BrokenPromiseError(f"The observation lies in the memory of the {name}.")
    return None


def _family(subject: Subject) -> TaskFamily:
    assert isinstance(subject.family, TaskFamily)
    return subject.family


def _reopened(
    family: TaskFamily,
    tasks: Tensor,
    state: State,
    terminated: Tensor,
    step: int,
    generator: Generator,
) -> State:
    """The state with new episodes where one has ended, as it does in all lanes at the limit."""
    truncated = (step + 1) % family.episode_steps == 0
    return select_lanes(terminated | truncated, family.reset(tasks, generator), state)


def _lanes(subject: Subject) -> Tensor:
    """Tasks [L, ...], the first two of them different where there are two."""
    return subject.rows[torch.arange(LANES) % len(subject.rows)]


def _actions(subject: Subject) -> list[Tensor]:
    """Random actions [L] or [L, A] for each step, bounds among them."""
    space = subject.family.action_space
    space.seed(subject.seed)
    steps = []
    for step in range(STEPS):
        drawn = np.stack([space.sample() for _ in range(LANES)])
        if step % 3 == 1 and isinstance(space, spaces.Box) and space.is_bounded():
            drawn = np.where(drawn > (space.low + space.high) / 2, space.high, space.low)
        steps.append(torch.as_tensor(drawn))
    return steps


def _seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _parts(value: Any) -> list[Tensor]:
    """All tensors in a tensor, a tuple of them, or something without any."""
    if isinstance(value, Tensor):
        return [value]
    return [part for one in value for part in _parts(one)] if isinstance(value, tuple) else []


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


FAMILY_PROMISES = (
    batched_types,
    functions_are_pure,
    lanes_do_not_mix,
    observe_gives_fresh_tensors,
)
