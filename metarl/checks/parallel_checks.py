"""What is promised of lives side by side: an environment goes in, promises kept or not come out.

Axes: `S` steps, `L` lanes, `D` observation.
"""

import copy
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from metarl.bridges.gym_family import EnvFamily
from metarl.checks.framework import (
    BrokenPromiseError,
    Life,
    Subject,
    difference,
    global_generators,
    moment,
    promise,
    told,
)
from metarl.checks.task_checks import OPENS, OWN_LUCK, PLAIN, SEEDS
from metarl.tasks.batched_env import BatchedEnv

WORLD_LANES, WORLD_STEPS = 3, 30


@promise(
    "Environments side by side do not touch each other, and have luck of their own.",
    why="Many lanes are lived at once. Where they share something, a trial depends on who lives "
    "beside it; where they share their luck, many lanes teach no more than one.",
    mend="Keep all state in attributes of self that __init__ and reset() set, none in the class "
    "or the module; let the seed decide what is random.",
    needs=[OPENS, SEEDS, OWN_LUCK, PLAIN],
)
def lanes_are_separate(subject: Subject) -> str | None:
    """Steps an environment alone, and beside another that lives in another task."""
    actions = subject.actions(0)
    with global_generators(0):
        beside = _life_beside_another(subject, actions)
    alone = subject.live(actions, task=subject.tasks[0], seed=0)
    if found := difference(alone, beside):
        raise BrokenPromiseError(
            f"A life was another while a second environment was lived in beside it: {found}."
        )
    if subject.is_random:
        world = _world(subject, subject.rows[:1].repeat(8, *[1] * (subject.rows.ndim - 1)), None)
        lanes = _transitions(subject, world, lanes=8, same=True).transpose(0, 1)
        if all(torch.equal(lanes[0], lane) for lane in lanes[1:]):
            raise BrokenPromiseError(
                "Eight lanes in one task lived exactly the same life under the same actions, "
                "although other seeds are other lives."
            )
    return None


def _life_beside_another(subject: Subject, actions: list[Any]) -> Life:
    env, other = subject.make(), subject.make()
    obs, _ = env.reset(seed=0, options={"task": copy.deepcopy(subject.tasks[0])})
    other.reset(seed=1, options={"task": copy.deepcopy(subject.tasks[-1])})
    lived = [moment(env, obs, 0.0, False, False)]
    for action, others in zip(actions, subject.actions(3), strict=True):
        *_, terminated, truncated, _ = other.step(copy.deepcopy(others))
        if terminated or truncated:
            other.reset()
        obs, reward, terminated, truncated, _ = env.step(copy.deepcopy(action))
        lived.append(moment(env, obs, reward, terminated, truncated))
        if terminated or truncated:
            obs, _ = env.reset()
            lived.append(moment(env, obs, 0.0, False, False))
    return lived


@promise(
    "Worker processes live exactly what this process lives.",
    why="How many workers step the lanes is a matter of speed and must not be one of results.",
    mend="Put the environment into a module that can be imported from where you start, register "
    "it with entry_point='your_module:Class', give its constructor plain values, and use nothing "
    "that another part of the program has set beforehand.",
    needs=[OPENS, SEEDS, OWN_LUCK, PLAIN],
)
def workers_agree(subject: Subject) -> str | None:
    """Opens the same world with and without processes, which are started afresh (spawn)."""
    family = subject.family
    if not isinstance(family, EnvFamily):
        return "tensors are moved in one process"
    if not subject.workers:
        return "not examined: workers=0"
    tasks = subject.rows[torch.arange(WORLD_LANES) % len(subject.rows)]
    here = _transitions(subject, _world(subject, tasks, None), WORLD_LANES)
    try:
        there = _transitions(subject, _world(subject, tasks, subject.workers), WORLD_LANES)
    except Exception as error:
        raise BrokenPromiseError(
            "In this process it works, but in a fresh one it cannot be made or stepped: "
            f"{told(error)}"
        ) from error
    finally:
        family.close()
    if not torch.equal(here, there):
        moved = (here != there).flatten(1).any(1).nonzero()
        raise BrokenPromiseError(
            f"With workers={subject.workers} the transitions are others from step {int(moved[0])} "
            "on, under equal seeds, tasks and actions."
        )
    return None


def _world(subject: Subject, tasks: Tensor, workers: int | None) -> BatchedEnv:
    return subject.family.open_env(tasks, Generator().manual_seed(subject.seed), workers)


def _transitions(subject: Subject, world: BatchedEnv, lanes: int, *, same: bool = False) -> Tensor:
    """Openings and transitions [S, L, D + 4] under random actions, the same in all lanes or not."""
    space = copy.deepcopy(subject.family.action_space)
    space.seed(subject.seed)
    obs, told_so_far = world.reset(), []
    for _ in range(WORLD_STEPS):
        actions = np.stack([space.sample() for _ in range(lanes)])
        last = world.step(torch.as_tensor(actions[:1].repeat(lanes, 0) if same else actions))
        ended = last.terminated | last.truncated
        told_so_far.append(
            torch.cat([obs, last.obs, torch.stack([last.reward, *last[2:]], 1).float()], 1)
        )
        obs = world.reset(ended) if bool(ended.any()) else last.obs
    return torch.stack(told_so_far).nan_to_num(nan=-1.2345e30)


LANE_PROMISES = (
    lanes_are_separate,
    workers_agree,
)
