"""Checks of the task distribution: tasks are set, persist, matter, are hidden, and are new at test.

Axes: `N` tasks.
"""

from typing import Any

import numpy as np
from gymnasium import spaces

from metarl.bridges.gym_family import EnvFamily
from metarl.checks.check import UndecidedError, ViolationError, check
from metarl.checks.env_rollouts import first_difference
from metarl.checks.env_under_test import EnvUnderTest, task_text
from metarl.checks.episode_checks import seeds_determine_rollouts
from metarl.checks.interface_checks import (
    SAMPLED_TASKS,
    reset_and_step_work,
    tasks_lie_in_the_task_space,
)
from metarl.checks.shown_task import (
    MIN_PROBES,
    PROBES,
    judged_steps,
    probe,
    relation,
    shown_in_second_reset,
    shown_in_steps,
)

MIN_SHARED_TASKS = 2
"""test tasks found among the training tasks; fewer may be a coincidence, even in float32"""


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
    """Compares initial observations of different tasks, and later ones: see `shown_task`.

    Raises:
        UndecidedError: episodes are longer than the probes.
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
    probes, task_numbers, whole = probe(env_under_test)
    for shown in (*shown_in_steps(probes), *shown_in_second_reset(probes)):
        raise ViolationError(
            f"At {shown.when}, component {shown.component} of the flattened observation "
            f"{relation(shown.values, task_numbers)}, whatever the actions and the seed."
        )
    if (seen := judged_steps(probes)) < whole:
        raise UndecidedError(
            f"The observation does not show the task in the first {seen} of {whole} steps of an "
            f"episode. No more were seen by {MIN_PROBES} of {PROBES} probes; pass `actions` that "
            "last longer to metarl.testing.check_task."
        )
    return None


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
