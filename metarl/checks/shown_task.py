"""Finds what observations show of the task, whatever the agent does.

An observation may well depend on the task: through what the agent did. Here each task is rolled
out with several plans of actions and several seeds. A component of the observation shows the task
if its value differs between tasks, but not between plans and seeds. The form does not matter: the
task itself, in other units, one-hot, a part of it, shown all the time or at some steps.

Not found: what changes from step to step, such as a drift, and what noise hides.

Axes: `K` probes (a plan and a seed), `N` tasks, `S` steps, `D` observation, `F` numbers of a task.
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.bridges.env_block import close_env
from metarl.bridges.gym_family import EnvFamily
from metarl.checks.env_rollouts import flat_obs, global_generators, step_through
from metarl.checks.env_under_test import EnvUnderTest

PROBES = 6
"""plans of actions, each with a seed, in every task"""
MIN_PROBES = 3
"""that must reach a step for it to be judged"""
MAX_TASKS = 6
"""tasks that are compared"""
MAX_STEPS = 18_000
"""over all tasks and probes"""
TOLERANCE = 1e-6
"""relative and absolute; values that are nearer count as equal"""


class Probe(NamedTuple):
    """Observations after a reset in a task."""

    first: NDArray[np.float64]  # [S, D] after each step of the first episode
    second: NDArray[np.float64] | None  # [D] of the reset after it, if there was one


@dataclass(frozen=True)
class Shown:
    """A component of the observation that shows the task."""

    component: int
    """of the flattened observation"""
    when: str
    """at which steps"""
    values: NDArray[np.float64]
    """[N] in each task"""


def probe(env_under_test: EnvUnderTest) -> tuple[list[list[Probe]], NDArray[np.float64], int]:
    """The probes [K][N], the numbers [N, F] of the tasks, and the steps of a complete probe."""
    rows = env_under_test.different_tasks(MAX_TASKS)
    family = env_under_test.family
    tasks = family.env_tasks(rows) if isinstance(family, EnvFamily) else list(rows.numpy())
    whole = env_under_test.time_limit or MAX_STEPS
    steps = max(1, min(whole, MAX_STEPS // (PROBES * len(tasks))))
    env, probes = env_under_test.make_env(), []
    for number in range(PROBES):
        plan = env_under_test.action_plan(number)
        plans = [plan, *env_under_test.user_plans(number)]
        actions = list(itertools.islice(itertools.cycle(plans[number % len(plans)]), steps))
        with global_generators(0):
            probes.append([_probe(env, actions, task, seed=number) for task in tasks])
    close_env(env)
    return probes, rows.reshape(len(rows), -1).numpy().astype(np.float64), whole


def _probe(env: Any, actions: list[Any], task: Any, seed: int) -> Probe:
    first: list[NDArray[np.float64]] = []
    outputs = itertools.islice(step_through(env, actions, task=task, seed=seed), 1, None)
    for output in outputs:
        first.append(flat_obs(env, output.obs))
        if output.ended:
            return Probe(np.array(first), flat_obs(env, next(outputs).obs))
    return Probe(np.array(first), None)


def judged_steps(probes: list[list[Probe]]) -> int:
    """The last step that enough probes reached in all tasks."""
    lengths = sorted((min(len(one.first) for one in row) for row in probes), reverse=True)
    return lengths[MIN_PROBES - 1] if len(lengths) >= MIN_PROBES else 0


def shown_in_steps(probes: list[list[Probe]]) -> list[Shown]:
    """Components that show the task in the first episode.

    At each step their value either is that of the task, the same at all these steps, or does not
    depend on the task.
    """
    found: dict[int, Shown] = {}
    candidates: set[int] | None = None
    for step in range(judged_steps(probes)):
        active = [row for row in probes if min(len(one.first) for one in row) > step]
        obs = np.array([[one.first[step] for one in row] for row in active])
        differs, fixed = _compared(obs)
        if candidates is None:
            candidates = set(range(obs.shape[2]))
        for component in [one for one in candidates if differs[one]]:
            values = obs[0, :, component]
            known = found.setdefault(component, Shown(component, f"step {step + 1}", values))
            if not (fixed[component] and _close(values, known.values).all()):
                candidates.discard(component)
    return [one for one in found.values() if candidates is not None and one.component in candidates]


def shown_in_second_reset(probes: list[list[Probe]]) -> list[Shown]:
    """Components that show the task at the reset after the first episode."""
    rows = [[one.second for one in row] for row in probes]
    complete = [row for row in rows if all(one is not None for one in row)]
    if len(complete) < MIN_PROBES:
        return []
    obs = np.array(complete)
    differs, fixed = _compared(obs)
    when = "the reset after the first episode"
    return [Shown(int(d), when, obs[0, :, d]) for d in np.flatnonzero(differs & fixed)]


def _compared(obs: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of [K, N, D]: which components differ between tasks, and which do not between probes, [D]."""
    differs = ~_close(obs, obs[:, :1]).all((0, 1))
    fixed = _close(obs, obs[:1]).all((0, 1))
    return np.asarray(differs), np.asarray(fixed)


def _close(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.bool_]:
    close: NDArray[np.bool_] = np.isclose(one, two, TOLERANCE, TOLERANCE, equal_nan=True)
    return close


def relation(values: NDArray[np.float64], tasks: NDArray[np.float64]) -> str:
    """What the values [N] are of the tasks [N, F], in words."""
    for number, column in enumerate(tasks.T):
        if _close(values, column).all():
            return f"equals number {number} of the task"
        if len(np.unique(column)) > 2:  # a line passes through any two
            fit = np.polyval(np.polyfit(column, values, 1), column)
            if np.allclose(fit, values, rtol=1e-4, atol=1e-6 * np.ptp(values)):
                return f"is a linear function of number {number} of the task"
    return "depends on the task alone"
