"""Checks of the task distribution: tasks are set, persist, matter, are hidden, and are new at test.

Axes: `N` tasks, `S` steps, `D` observation, `F` numbers of a task.
"""

from itertools import islice
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.bridges.gym_family import EnvFamily
from metarl.checks.check import ViolationError, check
from metarl.checks.env_rollouts import first_difference, flat_obs, step_through
from metarl.checks.env_under_test import EnvUnderTest, task_text
from metarl.checks.episode_checks import seeds_determine_rollouts
from metarl.checks.interface_checks import (
    SAMPLED_TASKS,
    reset_and_step_work,
    tasks_lie_in_the_task_space,
)

MIN_SHARED_TASKS = 2
"""test tasks found among the training tasks; fewer may be a coincidence, even in float32"""
MIN_DIFFERENT_VALUES = 3
"""of a task number, among the tasks; with fewer, an equal observation may be a coincidence"""
MAX_SHOWN_STEPS = 4
"""steps over which an observation must equal the task to count as showing it"""


@check(
    "reset() sets the given task immediately, whatever happened before.",
    why="Lanes are reused for other tasks: state left over from an earlier task makes the later "
    "task differ from its label.",
    fix="Let reset() compute everything that depends on the task from the task alone, before it "
    "draws the initial state.",
    needs=[reset_and_step_work, seeds_determine_rollouts],
)
def reset_sets_the_task(env_under_test: EnvUnderTest) -> str | None:
    """Compares a new environment with one used in other tasks before, under equal seeds."""
    tasks = env_under_test.tasks
    for actions in env_under_test.task_plans:
        for seed, task in enumerate(tasks):
            env = env_under_test.make_env()
            for earlier in (task, tasks[seed - 1]):
                env_under_test.roll_out(actions, env=env, task=earlier, seed=100)
            used = env_under_test.roll_out(actions, env=env, task=task, seed=seed)
            new = env_under_test.roll_out(actions, task=task, seed=seed)
            if found := first_difference(new, used):
                raise ViolationError(
                    f"The rollout in task {task_text(task)} differs between a new environment and "
                    f"one used in other tasks before: {found}."
                )
    return None


@check(
    "The task persists over resets, seeded ones included, until another is given.",
    why="A trial is several episodes in one task. If each episode has its own task, there is "
    "nothing to adapt to, and an adaptation curve shows noise.",
    fix="Keep the task in an attribute that reset() changes only if the options hold a 'task'; "
    "sample a task only if there is none yet, and draw no random number to set one.",
    needs=[reset_and_step_work, seeds_determine_rollouts],
)
def the_task_persists(env_under_test: EnvUnderTest) -> str | None:
    """Compares later rollouts with those of an environment that is given the task again."""
    for actions in env_under_test.task_plans:
        for seed, task in enumerate(env_under_test.tasks):
            env = env_under_test.make_env()
            env_under_test.roll_out(actions, env=env, task=task, seed=100)
            env.reset()
            later = env_under_test.roll_out(actions, env=env, seed=seed)
            expected = env_under_test.roll_out(actions, task=task, seed=seed)
            if found := first_difference(expected, later):
                raise ViolationError(
                    f"After reset(seed={seed}) without a task, the rollout was no longer that of "
                    f"task {task_text(task)}: {found}."
                )
            with_task, without_task = env_under_test.make_env(), env_under_test.make_env()
            for one in (with_task, without_task):
                env_under_test.roll_out(actions, env=one, task=task, seed=seed)
            expected = env_under_test.roll_out(actions, env=with_task, task=task)
            later = env_under_test.roll_out(actions, env=without_task)
            if found := first_difference(expected, later):
                raise ViolationError(
                    "reset() gave another rollout than "
                    f"reset(options={{'task': {task_text(task)}}}) with the same task: {found}."
                )
    return None


@check(
    "The task makes a difference to rewards or observations.",
    why="If all tasks are the same, an agent that adapts is no better than one that does not, and "
    "the results do not show the reason.",
    fix="Use the task that reset() was given: set the numbers that determine rewards and dynamics, "
    "and what depends on these (an inertia after a new mass). If only rare states depend on the "
    "task, pass `actions` that reach them to metarl.testing.check_task.",
    needs=[reset_and_step_work, seeds_determine_rollouts],
)
def the_task_matters(env_under_test: EnvUnderTest) -> str | None:
    """Searches for two tasks whose rollouts differ under equal seeds and actions.

    The action plans are tried first, then the actions of the family's ceilings. An effect that
    none of these reaches counts as missing.
    """
    tasks = env_under_test.tasks
    if len(tasks) == 1:
        raise ViolationError(
            f"Every sampled task was {task_text(tasks[0])}.", "Let sample_task draw many tasks."
        )
    if env_under_test.revealing_actions is None:
        raise ViolationError(
            f"Rollouts in {len(tasks)} tasks were equal in every number under equal seeds and "
            "actions, random and held; the first two tasks are "
            f"{task_text(tasks[0])} and {task_text(tasks[1])}."
        )
    return None


@check(
    "The observation does not show the task, or task_is_observable is declared.",
    why="If the observation shows the task, there is nothing to find out: agents that do not adapt "
    "score as well as those that do.",
    fix="Leave the task out of the observation, and draw the initial state independently of it; or "
    "declare task_is_observable = True, if that is what you want to measure.",
    needs=[reset_and_step_work, seeds_determine_rollouts],
)
def the_task_is_hidden(env_under_test: EnvUnderTest) -> str | None:
    """Compares initial observations of different tasks, and observed numbers with the task.

    A component of later observations that always equals a number of the task is found too. Not
    found: the task in other units, with noise, or in parts, after the first step; there,
    observations may legitimately differ between tasks.
    """
    if env_under_test.family.task_is_observable:
        return "declared as observable"
    tasks = env_under_test.tasks
    for seed in range(3):
        initial = [env_under_test.roll_out([], task=task, seed=seed)[0].obs for task in tasks]
        for task, obs in zip(tasks[1:], initial[1:], strict=True):
            if not np.array_equal(initial[0], obs, equal_nan=True):
                raise ViolationError(
                    f"Under equal seeds the initial observation is {task_text(initial[0])} in task "
                    f"{task_text(tasks[0])} and {task_text(obs)} in task {task_text(task)}."
                )
    task_rows = env_under_test.task_tensor
    task_numbers = task_rows.reshape(len(task_rows), -1).numpy().astype(np.float64)
    for component, number in _shown_numbers(_later_observations(env_under_test), task_numbers):
        raise ViolationError(
            f"After the first step, component {component} of the flattened observation equals "
            f"number {number} of the task, in every task."
        )
    return None


def _later_observations(env_under_test: EnvUnderTest) -> NDArray[np.float64]:
    """Observations [N, S, D] after the first steps, cut to the shortest first episode."""
    actions, episodes = env_under_test.action_plan(0)[:MAX_SHOWN_STEPS], []
    for task in env_under_test.tasks:
        env, observations = env_under_test.make_env(), []
        for output in islice(step_through(env, actions, task=task, seed=0), 1, None):
            observations.append(flat_obs(env, output.obs))
            if output.ended:
                break
        episodes.append(observations)
    steps = min(map(len, episodes))
    return np.array([observations[:steps] for observations in episodes])


def _shown_numbers(obs: NDArray[np.float64], tasks: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (d, f) such that component d of [N, S, D] always is number f of the tasks [N, F]."""
    if obs.shape[1] < 2:  # a single step does not show that the component is constant
        return []
    equal = np.isclose(obs[:, :, :, None], tasks[:, None, None, :], rtol=1e-5, atol=1e-8)
    num_values = [len(np.unique(column)) for column in tasks.T]
    pairs = np.argwhere(equal.all((0, 1)))
    return [(int(d), int(f)) for d, f in pairs if num_values[f] >= MIN_DIFFERENT_VALUES]


@check(
    "Test tasks do not occur in training, or splits_share_tasks is declared.",
    why="In tasks it was trained on, an agent need not adapt but only recognise them: the "
    "result measures memory, not adaptation to something new.",
    fix="Give the environment a method sample_task(np_random, split) that draws other tasks for "
    "the split 'test' than for 'train'; or declare splits_share_tasks = True, if there are few "
    "tasks by design.",
    needs=[tasks_lie_in_the_task_space],
)
def splits_are_disjoint(env_under_test: EnvUnderTest) -> str | None:
    """Samples tasks of both splits and looks for equal ones; takes no steps."""
    family = env_under_test.family
    if family.splits_share_tasks:
        return "declared as shared by both splits"
    train, test = (
        [tuple(row.reshape(-1).tolist()) for row in env_under_test.sample_tasks(SAMPLED_TASKS, s)]
        for s in ("train", "test")
    )
    known = set(train)
    shared = [task for task in test if task in known]
    if len(shared) < MIN_SHARED_TASKS:
        return None
    example: Any = shared[0] if len(shared[0]) > 1 else shared[0][0]
    reason = ""
    if isinstance(family.task_space, spaces.Discrete) and not _has_sample_task(env_under_test):
        reason = " There is no sample_task, so both splits sample the whole task_space."
    raise ViolationError(
        f"Of {SAMPLED_TASKS} test tasks, {len(shared)} were also among {SAMPLED_TASKS} training "
        f"tasks, for example {example}.{reason}"
    )


def _has_sample_task(env_under_test: EnvUnderTest) -> bool:
    if not isinstance(env_under_test.family, EnvFamily):
        return True
    env = env_under_test.make_env()
    has = env.has_wrapper_attr("sample_task")
    return has and env.get_wrapper_attr("sample_task") is not None


TASK_CHECKS = (
    reset_sets_the_task,
    the_task_persists,
    the_task_matters,
    the_task_is_hidden,
    splits_are_disjoint,
)
