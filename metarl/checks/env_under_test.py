"""The environment under test: its tasks, action plans and rollouts.

Axes: `N` tasks.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import islice
from textwrap import shorten
from typing import Any, TypeAlias

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from metarl.bridges.env_block import close_env
from metarl.bridges.gym_family import EnvFamily
from metarl.bridges.task_env import TaskEnv
from metarl.checks.env_rollouts import Rollout, first_difference, global_generators, roll_out
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

ActionFunction: TypeAlias = Callable[[np.random.Generator, spaces.Space[Any]], Iterable[Any]]
"""(rng, action_space) -> the actions of one rollout"""


class ActionFunctionError(ConfigError):
    """The user's `actions` function failed or returned what is not in the action space."""


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
        return self.different_tasks(MAX_TASKS)

    def different_tasks(self, most: int) -> torch.Tensor:
        """Up to `most` different tasks [N, ...], from both splits."""
        sampled = [self.sample_tasks(32, split) for split in ("train", "test")]
        alternating = torch.stack(sampled, 1).flatten(0, 1)
        different = {tuple(row.reshape(-1).tolist()): row for row in alternating}
        return torch.stack(list(different.values())[:most])

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
            close_env(used)  # another check is about close()
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


def error_line(error: BaseException) -> str:
    """An error as one line of text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def task_text(task: Any) -> str:
    """A task as Python source, shortened."""
    if isinstance(task, dict):
        return "{" + ", ".join(f"{name!r}: {task_text(part)}" for name, part in task.items()) + "}"
    return shorten(repr(task.tolist() if isinstance(task, np.ndarray | np.generic) else task), 100)
