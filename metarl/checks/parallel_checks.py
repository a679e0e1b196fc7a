"""Checks of several environments at a time: independent lanes, and equal worker processes.

Axes: `S` steps, `L` lanes, `D` observation.
"""

import copy
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.bridges.gym_family import EnvFamily
from metarl.checks.check import ViolationError, check
from metarl.checks.env_rollouts import first_difference, step_through
from metarl.checks.env_under_test import EnvUnderTest, error_line
from metarl.checks.episode_checks import (
    global_generators_are_not_used,
    seeds_determine_rollouts,
    step_outputs_are_valid,
)
from metarl.checks.interface_checks import reset_and_step_work
from metarl.noise import LaneNoise, lane_keys
from metarl.tasks.batched_env import BatchedEnv

NEEDED = [
    reset_and_step_work,
    seeds_determine_rollouts,
    global_generators_are_not_used,
    step_outputs_are_valid,
]
WORKER_LANES, BATCHED_STEPS = 3, 30


@check(
    "Environments in the same process are independent, and each has its own noise.",
    why="Many lanes are stepped in one batch. If they share state, a trial depends on the other "
    "trials of the batch; if they share noise, many lanes give no more data than one.",
    fix="Keep all state in attributes of self that __init__ and reset() set, none in the class "
    "or the module; let the seed determine all randomness.",
    needs=NEEDED,
)
def lanes_are_independent(env_under_test: EnvUnderTest) -> str | None:
    """Steps an environment alone, and alternately with another one in another task."""
    task = env_under_test.tasks[0]
    for plan in env_under_test.action_plans(0):
        env, other = env_under_test.make_env(), env_under_test.make_env()
        actions = _with_steps_of_another(env_under_test, plan, other)
        alternating = env_under_test.roll_out(actions, env=env, task=task, seed=0)
        alone = env_under_test.roll_out(plan, task=task, seed=0)
        if found := first_difference(alone, alternating):
            raise ViolationError(
                "The rollout changed when a second environment was stepped at the same time: "
                f"{found}."
            )
    if env_under_test.is_stochastic:
        row = env_under_test.task_tensor[:1]
        env_of_equal_lanes = _batched_env(env_under_test, row.repeat(8, *[1] * (row.ndim - 1)))
        lanes = _transitions(env_under_test, env_of_equal_lanes, lanes=8, same_actions=True)
        if all(torch.equal(lanes[:, 0], lanes[:, lane]) for lane in range(1, 8)):
            raise ViolationError(
                "Eight lanes in one task gave exactly equal rollouts under equal actions, "
                "although different seeds give different rollouts."
            )
    return None


def _with_steps_of_another(
    env_under_test: EnvUnderTest, actions: list[Any], other: Any
) -> Iterator[Any]:
    """The actions; before each of them, `other` takes a step in another task."""
    other_actions = cycle(env_under_test.action_plan(3))
    outputs = step_through(other, other_actions, task=env_under_test.tasks[-1], seed=1)
    next(outputs)  # the reset
    for action in actions:
        next(output for output in outputs if not output.ended)
        yield action


@check(
    "Worker processes give the same transitions as this process.",
    why="The number of workers must change the speed only, not the results.",
    fix="Put the environment into a module that can be imported from the working directory, "
    "register it with entry_point='your_module:Class', pass only plain values to its constructor, "
    "and use nothing that other parts of the program must set first.",
    needs=NEEDED,
)
def workers_agree(env_under_test: EnvUnderTest) -> str | None:
    """Steps the same lanes in this process and in new (spawned) ones."""
    family, workers = env_under_test.family, env_under_test.workers
    if not isinstance(family, EnvFamily):
        return "task families are stepped in one process"
    if not workers:
        return "not tested: workers=0"
    rows = env_under_test.task_tensor
    tasks = rows[torch.arange(WORKER_LANES) % len(rows)]
    here = _transitions(env_under_test, _batched_env(env_under_test, tasks), WORKER_LANES)
    try:
        there = _transitions(
            env_under_test, _batched_env(env_under_test, tasks, workers), WORKER_LANES
        )
    except Exception as error:
        raise ViolationError(
            "The environment works in this process, but a new process cannot create or step it: "
            f"{error_line(error)}"
        ) from error
    finally:
        family.close()
    if not torch.equal(here, there):
        steps = (here != there).flatten(1).any(1).nonzero()
        raise ViolationError(
            f"With workers={workers} the transitions differ from step {int(steps[0])} on, under "
            "equal seeds, tasks and actions."
        )
    return None


def _batched_env(
    env_under_test: EnvUnderTest, tasks: Tensor, workers: int | None = None
) -> BatchedEnv:
    noise = LaneNoise(lane_keys(env_under_test.seed, len(tasks)))
    return env_under_test.family.open_env(tasks, noise, workers)


def _transitions(
    env_under_test: EnvUnderTest, env: BatchedEnv, lanes: int, *, same_actions: bool = False
) -> Tensor:
    """Transitions [S, L, 2 * D + 4] under random actions, optionally the same in all lanes."""
    space = copy.deepcopy(env_under_test.family.action_space)
    space.seed(env_under_test.seed)
    obs, transitions = env.reset(), []
    for _ in range(BATCHED_STEPS):
        actions = np.stack([space.sample() for _ in range(lanes)])
        actions = actions[:1].repeat(lanes, 0) if same_actions else actions
        last = env.step(torch.as_tensor(actions))
        ended = last.terminated | last.truncated
        numbers = torch.stack([last.reward, *last[2:]], 1).float()
        transitions.append(torch.cat([obs, last.next_obs, numbers], 1))
        obs = env.reset(ended) if bool(ended.any()) else last.next_obs
    return torch.stack(transitions).nan_to_num(nan=-1.2345e30)


LANE_CHECKS = (
    lanes_are_independent,
    workers_agree,
)
