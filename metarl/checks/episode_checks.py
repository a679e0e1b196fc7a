"""Checks of single environments: seeding, observations, spaces, episode ends and step outputs."""

import copy
import random
import re
import warnings
from itertools import cycle, islice
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from metarl.checks.check import ViolationError, check
from metarl.checks.env_rollouts import (
    EnvOutput,
    Rollout,
    first_difference,
    flat_obs,
    global_generators,
    record,
    roll_out,
    step_through,
)
from metarl.checks.env_under_test import EnvUnderTest, error_line, task_text
from metarl.checks.interface_checks import reset_and_step_work
from metarl.errors import MetaRLError

MAX_TIME_LIMIT = 10_000
"""steps; episodes with a longer limit are not run to their end"""


@check(
    "Gymnasium's own checker reports no errors.",
    why="Tools that use Gymnasium environments, metarl included, rely on its interface.",
    fix="See the message of the checker, gymnasium.utils.env_checker.check_env.",
    needs=[reset_and_step_work],
)
def the_gymnasium_checker_passes(env_under_test: EnvUnderTest) -> str | None:
    """Checks the unwrapped environment, without rendering; warnings become a note."""
    env = env_under_test.make_env().unwrapped
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env.reset(seed=env_under_test.seed)
        try:
            check_env(env, skip_render_check=True)
        except Exception as error:
            raise ViolationError(f"check_env raised {error_line(error)}") from error
    messages = [re.sub(r"\x1b\[\d*m|WARN: ", "", str(one.message)).strip() for one in caught]
    return " / ".join(dict.fromkeys(messages))


@check(
    "Equal seeds, tasks and actions give equal rollouts.",
    why="Agents are compared in the same tasks under the same noise, and runs are repeated; "
    "neither works if the seed does not determine the rollout.",
    fix="Call super().reset(seed=seed) first in reset(), draw only from self.np_random, and let "
    "reset() reset everything that an episode changes.",
    needs=[reset_and_step_work],
)
def seeds_determine_rollouts(env_under_test: EnvUnderTest) -> str | None:
    """Compares rollouts in the same environment and in new ones.

    The global generators start in equal states; another check tests whether they are used. If no
    seed makes a difference, the environment is deterministic or ignores the seed.
    """
    for actions in env_under_test.action_plans(0):
        for seed, task in enumerate(env_under_test.tasks[:3]):
            env = env_under_test.make_env()
            first = env_under_test.roll_out(actions, env=env, task=task, seed=seed)
            repeated = env_under_test.roll_out(actions, env=env, task=task, seed=seed)
            new = env_under_test.roll_out(actions, task=task, seed=seed)
            for where, rollout in (("the same environment", repeated), ("a new one", new)):
                if found := first_difference(first, rollout):
                    raise ViolationError(
                        f"reset(seed={seed}) in task {task_text(task)} and the same actions gave "
                        f"another rollout in {where}: {found}."
                    )
        one, two = (_roll_out_in_two_tasks(env_under_test, actions) for _ in range(2))
        if found := first_difference(one, two):
            raise ViolationError(
                "A rollout in one task, followed by a reset without a seed into another task and a "
                f"second rollout, cannot be repeated: {found}.",
                "Keep the random generator when the task changes: without a new seed, random "
                "numbers must follow from the last seed, not from the clock.",
            )
    return None if env_under_test.is_stochastic else "no seed made a difference"


def _roll_out_in_two_tasks(env_under_test: EnvUnderTest, actions: list[Any]) -> Rollout:
    env, tasks = env_under_test.make_env(), env_under_test.tasks
    first = env_under_test.roll_out(actions, env=env, task=tasks[0], seed=0)
    return first + env_under_test.roll_out(actions, env=env, task=tasks[-1])


@check(
    "Random numbers come from the environment's own generator, never from global ones.",
    why="All code in the process shares the global generators: rollouts then depend on other code, "
    "and all workers may draw equal numbers.",
    fix="Use self.np_random instead of np.random and random; in a task family, draw from the noise "
    "(in sample_tasks, the generator) that is passed in.",
    needs=[reset_and_step_work, seeds_determine_rollouts],
)
def global_generators_are_not_used(env_under_test: EnvUnderTest) -> str | None:
    """Compares the states of the global generators, and rollouts under different ones."""
    for actions in env_under_test.action_plans(0):
        rollouts = []
        for seed in (1, 2):
            with global_generators(seed):
                before = _global_states()
                env_under_test.sample_tasks(8, "train")
                env = env_under_test.make_env()
                rollouts.append(roll_out(env, actions, task=env_under_test.tasks[0], seed=0))
                for name, state in _global_states().items():
                    if state != before[name]:
                        raise ViolationError(f"The global {name} was drawn from or seeded.")
        if found := first_difference(*rollouts):
            raise ViolationError(f"Rollouts with equal seeds depend on global generators: {found}.")
    return None


def _global_states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "random": random.getstate(),
        "np.random": (name, np.asarray(keys).tolist(), *rest),
        "torch generator": torch.get_rng_state().tolist(),
    }


@check(
    "A returned observation never changes, and writing into it has no effect.",
    why="Experience is stored and learned from later. An observation that keeps changing reveals "
    "what followed it.",
    fix="Return self.state.copy() (or np.array(..., dtype=np.float32)) instead of self.state or "
    "a slice of it.",
    needs=[reset_and_step_work, seeds_determine_rollouts],
)
def observations_are_copies(env_under_test: EnvUnderTest) -> str | None:
    """Keeps observations until the end of one rollout, and overwrites those of another."""
    task = env_under_test.tasks[0]
    for actions in env_under_test.action_plans(0):
        env = env_under_test.make_env()
        outputs = step_through(env, actions, task=task, seed=0)
        kept = [(output.obs, copy.deepcopy(output.obs)) for output in outputs]
        for index, (now, then) in enumerate(kept):
            returned, later = flat_obs(env, then), flat_obs(env, now)
            if not np.array_equal(returned, later, equal_nan=True):
                raise ViolationError(
                    f"Observation {index} of a rollout was {returned.tolist()} when it was "
                    f"returned, and {later.tolist()} at the end of the rollout."
                )
        with global_generators(0):
            overwritten = _roll_out_overwriting_observations(env_under_test, actions)
        expected = env_under_test.roll_out(actions, task=task, seed=0)
        if found := first_difference(expected, overwritten):
            raise ViolationError(
                f"Writing into a returned observation changed the rollout: {found}."
            )
    return None


def _roll_out_overwriting_observations(env_under_test: EnvUnderTest, actions: list[Any]) -> Rollout:
    env, rollout = env_under_test.make_env(), []
    for output in step_through(env, actions, task=env_under_test.tasks[0], seed=0):
        rollout.append(record(env, output))
        _overwrite(output.obs)
    return rollout


def _overwrite(obs: Any) -> None:
    """Changes every number of every array in `obs`."""
    if isinstance(obs, np.ndarray) and obs.flags.writeable:
        obs[...] = obs == 0
    elif isinstance(obs, dict):
        for part in obs.values():
            _overwrite(part)
    elif isinstance(obs, tuple | list):
        for part in obs:
            _overwrite(part)


@check(
    "Observations of all tasks lie in the same observation_space.",
    why="All tasks are stepped in one batch and read by one network.",
    fix="Let the spaces depend on constructor arguments only, wide enough for every task, and "
    "return observations of their shape and dtype.",
    needs=[reset_and_step_work],
)
def spaces_are_the_same_in_all_tasks(env_under_test: EnvUnderTest) -> str | None:
    """Compares the spaces after a reset into each task, and checks a rollout in each.

    Observations at the end of an episode are not checked.
    """
    first = env_under_test.make_env()
    for number, task in enumerate(env_under_test.tasks):
        for actions in env_under_test.action_plans(number):
            env = env_under_test.make_env()
            for index, output in enumerate(step_through(env, actions, task=task, seed=number)):
                if index == 0:
                    _require_equal_spaces(first, env, task)
                if not output.ended and not env.observation_space.contains(output.obs):
                    raise ViolationError(
                        f"In task {task_text(task)} the observation {output.obs!r} of "
                        f"{getattr(output.obs, 'dtype', type(output.obs).__name__)} is not in "
                        f"{env.observation_space}."
                    )
    return None


def _require_equal_spaces(
    one: gymnasium.Env[Any, Any], two: gymnasium.Env[Any, Any], task: Any
) -> None:
    for name in ("observation_space", "action_space"):
        a, b = getattr(one, name), getattr(two, name)
        if a != b:
            raise ViolationError(f"The {name} is {a}, but {b} in task {task_text(task)}.")


@check(
    "Every episode ends within its time limit, whatever the actions, and another can start.",
    why="A trial is a fixed number of episodes, and its memory is allocated in advance.",
    fix="gymnasium.register(..., max_episode_steps=...), or an attribute episode_steps and "
    "truncated = True when it is reached.",
    needs=[reset_and_step_work],
)
def episodes_end(env_under_test: EnvUnderTest) -> str | None:
    """Runs two episodes with random actions and two with held actions."""
    try:
        limit = env_under_test.family.episode_steps
    except MetaRLError as error:
        raise ViolationError(str(error)) from error
    if limit > MAX_TIME_LIMIT:
        return f"not tested: the limit of {limit} steps is too long"
    fixed = env_under_test.family.fixed_length
    for number, task in enumerate(env_under_test.tasks[:2]):
        env, actions = env_under_test.make_env(), env_under_test.action_plan(number)
        for reset_task, seed in ((task, number), (None, None)):
            outputs = step_through(env, islice(cycle(actions), limit), task=reset_task, seed=seed)
            steps = next((step for step, output in enumerate(outputs) if output.ended), None)
            if steps is None:
                raise ViolationError(
                    f"In task {task_text(task)} an episode had not ended after {limit} steps, "
                    "the declared time limit."
                )
            if fixed and steps < limit:
                raise ViolationError(
                    f"fixed_length is declared, but in task {task_text(task)} an episode ended "
                    f"after {steps} of {limit} steps.",
                    "Set fixed_length = False, or never terminate before the time limit.",
                )
        env.reset()
    return None


@check(
    "Observations and rewards are finite; a reward is one number; end flags are True or False.",
    why="One NaN makes every parameter NaN in the next update.",
    fix="Return float(reward) and bool(terminated), and bound the state where it could overflow.",
    needs=[reset_and_step_work],
)
def step_outputs_are_valid(env_under_test: EnvUnderTest) -> str | None:
    """Collects rollouts in every task, with random, held and extreme actions."""
    plans = [env_under_test.action_plan(0), env_under_test.action_plan(1)]
    plans += [*_plans_at_bounds(env_under_test), *env_under_test.user_plans(0)]
    for task in env_under_test.tasks:
        for actions in plans:
            env = env_under_test.make_env()
            for output in step_through(env, actions, task=task, seed=0):
                _require_valid(env, task, output)
    return None


def _plans_at_bounds(env_under_test: EnvUnderTest) -> list[list[Any]]:
    space = env_under_test.make_env().action_space
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        return []
    return [[bound] * env_under_test.rollout_steps for bound in (space.low, space.high)]


def _require_valid(env: gymnasium.Env[Any, Any], task: Any, output: EnvOutput) -> None:
    where, reward = f"In task {task_text(task)}", output.reward
    with np.errstate(over="ignore"):  # overflow in float32 is infinite, which is found below
        obs = flat_obs(env, output.obs).astype(np.float32)
    if not np.isfinite(obs).all():
        raise ViolationError(f"{where} the observation {output.obs!r} was not finite.")
    if np.ndim(reward) or not np.issubdtype(np.asarray(reward).dtype, np.number):
        raise ViolationError(f"{where} the reward {reward!r} was not one number.")
    if not np.isfinite(float(reward)):
        raise ViolationError(f"{where} the reward was {reward!r}.")
    for name in ("terminated", "truncated"):
        flag = getattr(output, name)
        if not isinstance(flag, bool | np.bool_):
            raise ViolationError(f"{where} {name} was {flag!r}, not True or False.")


SEEDING_CHECKS = (
    the_gymnasium_checker_passes,
    seeds_determine_rollouts,
    global_generators_are_not_used,
)
EPISODE_CHECKS = (
    observations_are_copies,
    spaces_are_the_same_in_all_tasks,
    episodes_end,
    step_outputs_are_valid,
)
