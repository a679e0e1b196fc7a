"""What is promised about a life: an environment goes in, promises kept and broken come out."""

import copy
import random
import re
import warnings
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from metarl.checks.framework import (
    BrokenPromiseError,
    Life,
    Subject,
    difference,
    global_generators,
    live,
    moment,
    promise,
    shown,
    told,
)
from metarl.checks.task_checks import OPENS, SEEDS
from metarl.errors import MetaRLError

MOST_LIMIT = 10_000
"""steps that an end is waited for"""


@promise(
    "Gymnasium's own checker has no complaints.",
    why="Tools that know Gymnasium, this one included, rely on its interface.",
    mend="See the words of the checker, gymnasium.utils.env_checker.check_env.",
    needs=[OPENS],
)
def gymnasium(subject: Subject) -> str | None:
    """Runs it on the bare environment. Its warnings are notes; rendering is not looked at."""
    env = subject.make().unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env.reset(seed=subject.seed)
        try:
            check_env(env, skip_render_check=True)
        except Exception as error:
            raise BrokenPromiseError(f"It says: {told(error)}") from error
    said = [re.sub(r"\x1b\[\d*m|WARN: ", "", str(one.message)).strip() for one in caught]
    return " / ".join(dict.fromkeys(said))


@promise(
    "Equal seeds, tasks and actions are equal lives.",
    why="Agents are compared in the same tasks under the same luck, and runs are repeated; "
    "neither works where the seed does not decide.",
    mend="Call super().reset(seed=seed) first in reset(), draw only from self.np_random, and let "
    "reset() set everything anew that an episode changes.",
    needs=[OPENS],
)
def seeds_decide(subject: Subject) -> str | None:
    """Compares lives in the same environment and in fresh ones.

    The global generators start equal each time: whether they are used is another promise. If no
    seed makes a difference, nothing random was seen, or the seed is not used.
    """
    actions = subject.actions(0)
    for seed, task in enumerate(subject.tasks[:3]):
        env = subject.make()
        first = subject.live(actions, env=env, task=task, seed=seed)
        repeated = subject.live(actions, env=env, task=task, seed=seed)
        fresh = subject.live(actions, task=task, seed=seed)
        for where, life in (("the same environment", repeated), ("a fresh one", fresh)):
            if found := difference(first, life):
                raise BrokenPromiseError(
                    f"reset(seed={seed}) in task {shown(task)} and the same actions were another "
                    f"life in {where}: {found}."
                )
    one, two = (_two_tasks(subject, actions) for _ in range(2))
    if found := difference(one, two):
        raise BrokenPromiseError(
            "A life in one task, and then, after a reset without a seed, in another, cannot be "
            f"repeated: {found}.",
            "Hand the random numbers on when the task changes: only the seed of an earlier reset "
            "decides, not the clock.",
        )
    return None if subject.is_random else "no seed made a difference: nothing random was seen"


def _two_tasks(subject: Subject, actions: list[Any]) -> Life:
    env = subject.make()
    first = subject.live(actions, env=env, task=subject.tasks[0], seed=0)
    return first + subject.live(actions, env=env, task=subject.tasks[-1])


@promise(
    "Random numbers come from the environment's own generator, never from global ones.",
    why="Global generators are shared with everybody in the process: a life then depends on what "
    "else runs there, and workers may all be equal.",
    mend="Use self.np_random instead of np.random and random, and the generator that is handed in "
    "instead of torch's global one.",
    needs=[OPENS, SEEDS],
)
def no_global_randomness(subject: Subject) -> str | None:
    """Looks at the states of the generators of Python, NumPy and torch, and at lives."""
    actions, lives = subject.actions(0), []
    for seed in (1, 2):
        with global_generators(seed):
            before = _global_states()
            subject.drawn(8, "train")
            env = subject.make()
            lives.append(live(env, actions, task=subject.tasks[0], seed=0))
            for name, state in _global_states().items():
                if state != before[name]:
                    raise BrokenPromiseError(f"It drew from, or seeded, the global {name}.")
    if found := difference(*lives):
        raise BrokenPromiseError(f"Lives under equal seeds depend on global generators: {found}.")
    return None


def _global_states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "random": random.getstate(),
        "np.random": (name, np.asarray(keys).tolist(), *rest),
        "torch generator": torch.get_rng_state().tolist(),
    }


@promise(
    "They never change later, and changing them changes nothing.",
    why="Experience is kept and learnt from later. An observation that goes on changing shows "
    "what came after it.",
    mend="Return self.state.copy() (or np.array(..., dtype=np.float32)) instead of self.state or "
    "a slice of it.",
    needs=[OPENS, SEEDS],
)
def observations_are_copies(subject: Subject) -> str | None:
    """Keeps observations to the end, and writes into others."""
    actions, task = subject.actions(0), subject.tasks[0]
    env, kept = subject.make(), []
    obs, _ = env.reset(seed=0, options={"task": copy.deepcopy(task)})
    for action in actions:
        kept.append((obs, copy.deepcopy(obs)))
        obs, _, terminated, truncated, _ = env.step(copy.deepcopy(action))
        if terminated or truncated:
            kept.append((obs, copy.deepcopy(obs)))
            obs, _ = env.reset()
    for step, (now, then) in enumerate(kept):
        one, two = (moment(env, value, 0.0, False, False).obs for value in (then, now))
        if not np.array_equal(one, two, equal_nan=True):
            raise BrokenPromiseError(
                f"Observation {step} of a life was {one.tolist()} when it was returned, and at "
                f"the end of the life it had become {two.tolist()}."
            )
    with global_generators(0):
        scribbled = _scribbling_life(subject, actions)
    if found := difference(subject.live(actions, task=task, seed=0), scribbled):
        raise BrokenPromiseError(f"Writing into a returned observation changed the life: {found}.")
    return None


def _scribbling_life(subject: Subject, actions: list[Any]) -> Life:
    """A life in which whatever is returned is overwritten at once."""
    env = subject.make()
    obs, _ = env.reset(seed=0, options={"task": copy.deepcopy(subject.tasks[0])})
    lived = [moment(env, obs, 0.0, False, False)]
    for action in actions:
        _overwrite(obs)
        obs, reward, terminated, truncated, _ = env.step(copy.deepcopy(action))
        lived.append(moment(env, obs, reward, terminated, truncated))
        if terminated or truncated:
            _overwrite(obs)
            obs, _ = env.reset()
            lived.append(moment(env, obs, 0.0, False, False))
    return lived


def _overwrite(obs: Any) -> None:
    """Changes every number of every array in it."""
    if isinstance(obs, np.ndarray) and obs.flags.writeable:
        obs[...] = obs == 0
    elif isinstance(obs, dict):
        for part in obs.values():
            _overwrite(part)
    elif isinstance(obs, tuple | list):
        for part in obs:
            _overwrite(part)


@promise(
    "Observations lie in one observation_space, in every task.",
    why="All tasks are lived side by side and read by one network.",
    mend="Let the spaces follow from constructor arguments alone, wide enough for every task, and "
    "return observations of their shape and dtype.",
    needs=[OPENS],
)
def spaces_are_the_same(subject: Subject) -> str | None:
    """Looks at the spaces after resets into each task, and at a life in each."""
    first = subject.make()
    for number, task in enumerate(subject.tasks):
        env = subject.make()
        obs, _ = env.reset(seed=number, options={"task": copy.deepcopy(task)})
        for name in ("observation_space", "action_space"):
            one, two = getattr(first, name), getattr(env, name)
            if one != two:
                raise BrokenPromiseError(f"The {name} is {one}, but {two} in task {shown(task)}.")
        for action in subject.actions(number):
            if not env.observation_space.contains(obs):
                raise BrokenPromiseError(
                    f"In task {shown(task)} the observation {obs!r} of "
                    f"{getattr(obs, 'dtype', type(obs).__name__)} does not lie in "
                    f"{env.observation_space}."
                )
            obs, _, terminated, truncated, _ = env.step(copy.deepcopy(action))
            if terminated or truncated:
                obs, _ = env.reset()
    return None


@promise(
    "An episode ends within its time limit, whatever the actions, and another can be opened.",
    why="A trial is a number of episodes, and memory for it is set aside beforehand.",
    mend="gymnasium.register(..., max_episode_steps=...), or an attribute episode_steps and "
    "truncated = True when it is reached.",
    needs=[OPENS],
)
def episodes_end(subject: Subject) -> str | None:
    """Waits for the end of two episodes each, under random actions and under held ones."""
    try:
        limit = subject.family.episode_steps
    except MetaRLError as error:
        raise BrokenPromiseError(str(error)) from error
    if limit > MOST_LIMIT:
        return f"the limit of {limit} steps was not waited for"
    for number, task in enumerate(subject.tasks[:2]):
        env, actions = subject.make(), subject.actions(number)
        env.reset(seed=number, options={"task": copy.deepcopy(task)})
        for _ in range(2):
            for step in range(limit):
                _, _, terminated, truncated, _ = env.step(
                    copy.deepcopy(actions[step % len(actions)])
                )
                if terminated or truncated:
                    break
            else:
                raise BrokenPromiseError(
                    f"In task {shown(task)} an episode was still running after {limit} steps, "
                    "which are declared as the time limit."
                )
            env.reset()
    return None


@promise(
    "Observations and rewards are finite; a reward is one number, and an end True or False.",
    why="One NaN is in every parameter after the next update.",
    mend="Return float(reward) and bool(terminated), and keep the state within bounds where it "
    "could overflow.",
    needs=[OPENS],
)
def numbers_are_plain(subject: Subject) -> str | None:
    """Lives in every task, with random actions, held ones, and those at the bounds."""
    plans = [subject.actions(0), subject.actions(1), *_plans_at_bounds(subject)]
    for task in subject.tasks:
        for actions in plans:
            env = subject.make()
            obs, _ = env.reset(seed=0, options={"task": copy.deepcopy(task)})
            _require_plain(env, task, obs, 0.0, False, False)
            for action in actions:
                last = env.step(copy.deepcopy(action))[:4]
                _require_plain(env, task, *last)
                if last[2] or last[3]:
                    env.reset()
    return None


def _plans_at_bounds(subject: Subject) -> list[list[Any]]:
    space = subject.make().action_space
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        return []
    return [[bound] * subject.life_steps for bound in (space.low, space.high)]


def _require_plain(
    env: Any, task: Any, obs: Any, reward: Any, terminated: Any, truncated: Any
) -> None:
    with np.errstate(over="ignore"):  # what is infinite in float32 is found below
        flat = moment(env, obs, 0.0, False, False).obs.astype(np.float32)
    if not np.isfinite(flat).all():
        raise BrokenPromiseError(f"In task {shown(task)} the observation {obs!r} was not finite.")
    if np.ndim(reward) or not np.issubdtype(np.asarray(reward).dtype, np.number):
        raise BrokenPromiseError(f"In task {shown(task)} the reward {reward!r} was not one number.")
    if not np.isfinite(float(reward)):
        raise BrokenPromiseError(f"In task {shown(task)} the reward was {reward!r}.")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            raise BrokenPromiseError(
                f"In task {shown(task)} {name} was {flag!r}, not True or False."
            )


LIFE_PROMISES = (
    gymnasium,
    seeds_decide,
    no_global_randomness,
)
SAFETY_PROMISES = (
    observations_are_copies,
    spaces_are_the_same,
    episodes_end,
    numbers_are_plain,
)
