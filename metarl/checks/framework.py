"""The environment under test, repeatable rollouts in it, and the `Check` type.

The environment is stepped through the Gymnasium interface. All checks are repeatable: equal seeds
give equal findings, and the global generators of Python, NumPy and torch are restored afterwards.

Axes: `N` tasks, `D` observation.
"""

import copy
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from textwrap import shorten
from typing import Any, Literal, NamedTuple, TypeAlias

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.bridges.gym_family import EnvFamily
from metarl.bridges.gym_pool import flat_observation
from metarl.bridges.task_env import TaskEnv
from metarl.errors import ConfigError, TaskContractError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import Split, TaskDistribution, TaskFamily, draw_tasks

MAX_TASKS = 4
"""tasks in which rollouts are collected"""
MIN_ROLLOUT_STEPS, MAX_ROLLOUT_STEPS = 24, 100
"""of a built-in action plan; shorter episodes follow each other"""
MAX_SEARCH_STEPS = 20_000
"""steps spent in the search for an effect of the task"""

Verdict: TypeAlias = Literal["passed", "noted", "failed", "skipped"]
"""`noted`: passed, with a remark; `skipped`: a check that this one needs has not passed"""
ActionFunction: TypeAlias = Callable[[np.random.Generator, spaces.Space[Any]], Iterable[Any]]
"""(rng, action_space) -> the actions of one rollout"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    """of the check"""
    requirement: str
    """what the check requires, as a sentence"""
    verdict: Verdict
    """whether the requirement is met"""
    details: str = ""
    """what was observed, or why the check was skipped; empty if it simply passed"""
    why: str = ""
    """of a failed check: why the requirement matters where adaptation is measured"""
    fix: str = ""
    """of a failed check: what to do"""


class ViolationError(Exception):
    """Raised by a check whose requirement is not met; the message describes what was observed."""

    def __init__(self, details: str, fix: str | None = None) -> None:
        """`fix` replaces the fix that the check suggests by default."""
        super().__init__(details)
        self.fix = fix


class ActionFunctionError(ConfigError):
    """The user's `actions` function failed or returned what is not in the action space."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Check:
    """One requirement and the function that tests it."""

    name: str
    requirement: str
    why: str
    fix: str
    function: Callable[["EnvUnderTest"], str | None]
    """returns a note or None, or raises `ViolationError`"""
    needs: tuple["Check", ...]
    """checks that must pass before this one can run"""

    def run(self, env_under_test: "EnvUnderTest", earlier: Mapping["Check", Finding]) -> Finding:
        """The finding of this check, given those of earlier checks.

        Raises:
            ActionFunctionError: the user's `actions` function is invalid.
        """
        for check, finding in earlier.items():
            if check in self.needs and finding.verdict in ("failed", "skipped"):
                return self._finding("skipped", f"first fix '{check.name}'")
        try:
            with global_generators(0):
                note = self.function(env_under_test)
        except ViolationError as violation:
            return self._finding("failed", str(violation), self.why, violation.fix or self.fix)
        except ActionFunctionError:
            raise
        except Exception as error:  # a user's environment may raise anything
            return self._finding("failed", f"raised {error_line(error)}", self.why, self.fix)
        return self._finding("noted" if note else "passed", note or "")

    def _finding(self, verdict: Verdict, details: str, why: str = "", fix: str = "") -> Finding:
        return Finding(
            name=self.name,
            requirement=self.requirement,
            verdict=verdict,
            details=details,
            why=why,
            fix=fix,
        )


def check(
    requirement: str, *, why: str, fix: str, needs: Sequence[Check] = ()
) -> Callable[[Callable[["EnvUnderTest"], str | None]], Check]:
    """Decorator that turns a function into a `Check`, named after the function."""

    def decorate(function: Callable[["EnvUnderTest"], str | None]) -> Check:
        return Check(
            name=function.__name__.replace("_", " "),
            requirement=requirement,
            why=why,
            fix=fix,
            function=function,
            needs=tuple(needs),
        )

    return decorate


class EnvOutput(NamedTuple):
    """What `reset` or `step` returned, without the info."""

    obs: Any
    reward: Any = 0.0
    terminated: Any = False
    truncated: Any = False

    @property
    def ended(self) -> bool:
        """Whether the episode ended with this step."""
        return bool(self.terminated or self.truncated)


class StepRecord(NamedTuple):
    """A flattened copy of an `EnvOutput`."""

    obs: NDArray[np.float64]  # [D]
    reward: NDArray[np.float64]  # [1] if it is a number
    ended: tuple[bool, bool]  # terminated, truncated

    def __str__(self) -> str:
        return f"observation {_short(self.obs)}, reward {_short(self.reward)}, ended {self.ended}"


Rollout: TypeAlias = list[StepRecord]
"""one record per reset and per step"""


class EnvUnderTest:
    """The environment under test: its tasks, action plans and rollouts."""

    def __init__(
        self,
        family: TaskDistribution,
        *,
        workers: int,
        seed: int,
        actions: ActionFunction | None = None,
    ) -> None:
        """Creates no environment yet.

        Args:
            family: an `EnvFamily` or a `TaskFamily`.
            workers: worker processes to test; 0 tests none.
            seed: of the tasks and of all other random draws.
            actions: the user's action plans, in addition to the built-in ones.
        """
        self.family, self.workers, self.seed = family, workers, seed
        self._actions = actions

    def make_env(self) -> gymnasium.Env[Any, Any]:
        """A new environment with the family's options."""
        if isinstance(self.family, EnvFamily):
            return self.family.make_env()
        assert isinstance(self.family, TaskFamily)
        return TaskEnv(type(self.family), **asdict(self.family))  # type: ignore[call-overload]

    def sample_tasks(self, num_tasks: int, split: Split) -> torch.Tensor:
        """Tasks [N, ...] of a split; each split has its own random stream."""
        return draw_tasks(self.family, num_tasks, Seeds(self.seed).torch(split), split)

    @cached_property
    def task_tensor(self) -> torch.Tensor:
        """Up to `MAX_TASKS` different tasks [N, ...], from both splits."""
        sampled = [self.sample_tasks(32, split) for split in ("train", "test")]
        alternating = torch.stack(sampled, 1).flatten(0, 1)
        different = {tuple(row.reshape(-1).tolist()): row for row in alternating}
        return torch.stack(list(different.values())[:MAX_TASKS])

    @cached_property
    def tasks(self) -> list[Any]:
        """The tasks of `task_tensor` in the form that `reset` takes."""
        if isinstance(self.family, EnvFamily):
            return self.family.env_tasks(self.task_tensor)
        return list(self.task_tensor.numpy())

    @cached_property
    def time_limit(self) -> int | None:
        """The declared time limit; None if there is none."""
        try:
            return self.family.episode_steps
        except TaskContractError:
            return None

    @cached_property
    def rollout_steps(self) -> int:
        """Steps of a built-in action plan: one or more episodes, within the bounds above."""
        return min(max(self.time_limit or MAX_ROLLOUT_STEPS, MIN_ROLLOUT_STEPS), MAX_ROLLOUT_STEPS)

    def action_plan(self, number: int) -> list[Any]:
        """A built-in plan: each random action lasts one step, five steps, or the whole rollout.

        Held actions reach states that a random walk does not reach.
        """
        space = copy.deepcopy(self.make_env().action_space)
        space.seed(self.seed + number)
        held_steps = (1, self.rollout_steps, 5)[number % 3]
        plan: list[Any] = []
        while len(plan) < self.rollout_steps:
            plan += [space.sample()] * held_steps
        return plan[: self.rollout_steps]

    def action_plans(self, number: int) -> list[list[Any]]:
        """The built-in plan and, if there is an `actions` function, the user's."""
        return [self.action_plan(number), *self.user_plans(number)]

    def user_plans(self, number: int) -> list[list[Any]]:
        """The user's plan; empty without an `actions` function.

        Raises:
            ActionFunctionError: the user's `actions` function is invalid.
        """
        if self._actions is None:
            return []
        space = copy.deepcopy(self.make_env().action_space)
        max_steps = max(self.time_limit or MAX_ROLLOUT_STEPS, MIN_ROLLOUT_STEPS)
        rng = np.random.default_rng((self.seed, number))
        try:
            plan = list(islice(self._actions(rng, space), max_steps))
        except Exception as error:
            raise ActionFunctionError(
                f"actions(rng, action_space) raised {error_line(error)}"
            ) from error
        if isinstance(space, spaces.Box):
            plan = [np.asarray(action, space.dtype) for action in plan]
        for action in plan:
            if not space.contains(action):
                raise ActionFunctionError(
                    f"actions(rng, action_space) returned the action {action!r}, which is not in "
                    f"{space}; return or yield the actions of one rollout."
                )
        return [plan]

    def roll_out(
        self,
        actions: Iterable[Any],
        *,
        task: Any = None,
        seed: int | None = None,
        env: gymnasium.Env[Any, Any] | None = None,
    ) -> Rollout:
        """A rollout in `env`, or in a new environment."""
        used = env or self.make_env()
        with global_generators(0):
            rollout = roll_out(used, actions, task=task, seed=seed)
        if env is None:
            used.close()
        return rollout

    @cached_property
    def is_stochastic(self) -> bool:
        """Whether different seeds give different rollouts."""
        actions = self.action_plan(0)
        rollouts = [self.roll_out(actions, task=self.tasks[0], seed=seed) for seed in range(8)]
        return any(first_difference(rollouts[0], rollout) for rollout in rollouts[1:])

    @cached_property
    def revealing_actions(self) -> list[Any] | None:
        """An action plan whose rollout depends on the task; None if none was found."""
        searched, number = 0, 0
        while searched < MAX_SEARCH_STEPS:
            for actions in self.action_plans(number):
                if self._reveals_task(actions, seed=number):
                    return actions
                searched += len(self.tasks) * len(actions)
            number += 1
        return next((a for a in self._ceiling_plans() if self._reveals_task(a, seed=0)), None)

    @cached_property
    def task_plans(self) -> list[list[Any]]:
        """Action plans for checks of the task: one that reveals the task, and the user's."""
        return [self.revealing_actions or self.action_plan(0), *self.user_plans(0)]

    def _reveals_task(self, actions: Sequence[Any], seed: int) -> bool:
        first = self.roll_out(actions, task=self.tasks[0], seed=seed)
        return any(
            first_difference(first, self.roll_out(actions, task=task, seed=seed))
            for task in self.tasks[1:]
        )

    def _ceiling_plans(self) -> Iterator[list[Any]]:
        """The actions of the family's ceilings, if any, in the first task."""
        for reference in self.family.references(1).values():
            if reference.role == "ceiling":
                tasks = self.task_tensor[:1]
                policy = reference.build(tasks)
                collected = collect(self.family, tasks, policy, episodes=1, seeds=Seeds(0))
                yield list(collected.action[:, 0, 0].numpy())


def step_through(
    env: gymnasium.Env[Any, Any],
    actions: Iterable[Any],
    *,
    task: Any = None,
    seed: int | None = None,
) -> Iterator[EnvOutput]:
    """Resets the environment, in `task` if given, and yields the output of every reset and step.

    After each episode end the environment is reset without a seed or a task.
    """
    options = {} if task is None else {"task": copy.deepcopy(task)}
    obs, _ = env.reset(seed=seed, options=options)
    yield EnvOutput(obs)
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(copy.deepcopy(action))
        yield EnvOutput(obs, reward, terminated, truncated)
        if terminated or truncated:
            obs, _ = env.reset()
            yield EnvOutput(obs)


def roll_out(
    env: gymnasium.Env[Any, Any],
    actions: Iterable[Any],
    *,
    task: Any = None,
    seed: int | None = None,
) -> Rollout:
    """The records of `step_through`."""
    return [record(env, output) for output in step_through(env, actions, task=task, seed=seed)]


def record(env: gymnasium.Env[Any, Any], output: EnvOutput) -> StepRecord:
    """A copy of the output with all numbers flattened."""
    reward = np.array(output.reward, dtype=np.float64).reshape(-1)
    ended = bool(output.terminated), bool(output.truncated)
    return StepRecord(flat_obs(env, output.obs), reward, ended)


def flat_obs(env: gymnasium.Env[Any, Any], obs: Any) -> NDArray[np.float64]:
    """A flattened copy [D] of an observation."""
    return flat_observation(env.observation_space, obs, np.float64)


def first_difference(one: Rollout, two: Rollout) -> str | None:
    """Describes the first difference; None if all numbers of both rollouts are equal."""
    for index, (a, b) in enumerate(zip(one, two, strict=False)):
        same = a.ended == b.ended and _equal(a.obs, b.obs) and _equal(a.reward, b.reward)
        if not same:
            return f"record {index} (0 is the first reset) was {a} in one and {b} in the other"
    return None if len(one) == len(two) else f"{len(one)} and {len(two)} records"


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seeds the global generators, and restores their states afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def error_line(error: BaseException) -> str:
    """An error as one line of text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def task_text(task: Any) -> str:
    """A task as Python source, shortened."""
    if isinstance(task, dict):
        return "{" + ", ".join(f"{name!r}: {task_text(part)}" for name, part in task.items()) + "}"
    return shorten(repr(task.tolist() if isinstance(task, np.ndarray | np.generic) else task), 100)


def _equal(one: NDArray[Any], two: NDArray[Any]) -> bool:
    return np.array_equal(one, two, equal_nan=True)


def _short(values: NDArray[np.float64]) -> str:
    numbers = [f"{value:.6g}" for value in values[:6]]
    return f"[{', '.join(numbers)}{', ...' if len(values) > 6 else ''}]"
