"""Lanes of a task family with NumPy actions: what the Gymnasium environments of families step.

Axes: `L` lanes, then features.
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.bridges.seeded_env import SeededEnv
from metarl.errors import TaskError
from metarl.new_tasks import NewTask, NewTasks
from metarl.seeding import Seeds
from metarl.tasks.batched_env import Transition, select_lanes
from metarl.tasks.family import Split, TaskFamily, as_tasks
from metarl.tasks.rendering import RenderedEnv


class NumpyLanes:
    """A batched env with NumPy actions, its tasks and its seeds."""

    def __init__(
        self,
        family: TaskFamily,
        count: int,
        *,
        new_task: NewTask = "never",
        rendered: bool = False,
    ) -> None:
        self._family, self._count, self._rendered = family, count, rendered
        self._new_tasks = NewTasks(new_task, family.trial_episodes, count)
        self._task_seeds = np.zeros(count, np.uint64)
        self._drawn = np.zeros(count, np.uint64)  # tasks that each lane has drawn from its seed
        self._seeded: SeededEnv | None = None
        self._env: SeededEnv | RenderedEnv | None = None  # `_seeded` or a wrapper of it

    @property
    def tasks(self) -> Tensor | None:
        """Parameters [L, ...] of the current tasks; None before the first reset."""
        return None if self._env is None else self._env.tasks

    def reset(
        self,
        tasks: Any,
        np_random: np.random.Generator,
        reseed: bool,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Starts an episode in the marked lanes, in `tasks` if given; observations [L, D]."""
        given = None if tasks is None else self._checked(tasks)
        marked = torch.ones(self._count, dtype=torch.bool) if mask is None else mask
        if reseed or self._seeded is None:
            self._seed(np_random, marked, given)
        if given is not None:
            self._new_tasks.give(to_numpy(marked))
            self._set_tasks(given, marked)
        elif isinstance(self._env, RenderedEnv) and reseed:
            self._env.forget()
        return self.restart(marked)

    def _seed(self, np_random: np.random.Generator, marked: Tensor, given: Tensor | None) -> None:
        """Seeds the marked lanes; makes the env at the first call, in the given tasks if any."""
        task_seed, seed = _two_words(np_random)
        lanes = to_numpy(marked)
        self._task_seeds[lanes], self._drawn[lanes] = task_seed, 0
        if self._seeded is not None:
            self._new_tasks.reseed(lanes)
            self._seeded.seed(seed, marked)
            return
        if given is None:  # replaced before the first episode
            given = self._family.sample_tasks(self._count, Seeds(task_seed).torch("tasks"), "train")
        self._seeded = SeededEnv(self._family, given, seed)
        self._env = RenderedEnv(self._seeded) if self._rendered else self._seeded

    def _drawn_tasks(self, due: NDArray[np.bool_]) -> Tensor:
        """The next tasks of the train split in the marked lanes.

        The task of a lane follows from its seed, its position and the number of tasks it has drawn.
        """
        tasks = self._require_env().tasks
        addresses = np.stack((self._task_seeds, self._drawn), 1)
        for seed, number in np.unique(addresses[due], axis=0).tolist():
            lanes = due & (addresses == np.array((seed, number), np.uint64)).all(1)
            stream = Seeds(seed).torch("tasks", number)
            drawn = self._family.sample_tasks(self._count, stream, "train")
            tasks = select_lanes(torch.from_numpy(lanes), drawn, tasks)
        self._drawn[due] += np.uint64(1)
        return tasks

    def _set_tasks(self, tasks: Tensor, lanes: Tensor) -> None:
        assert self._seeded is not None
        self._seeded.tasks = select_lanes(lanes, tasks, self._seeded.tasks)
        if isinstance(self._env, RenderedEnv) and bool(lanes[0]):
            self._env.forget()

    def frame(self) -> NDArray[np.uint8] | None:
        """Current frame [H, W, 3] of lane 0; None unless rendered."""
        env = self._require_env()
        return env.frame() if isinstance(env, RenderedEnv) else None

    def restart(self, marked: Tensor) -> Tensor:
        """Starts an episode in the marked lanes, in new tasks where due; observations [L, D]."""
        due = torch.from_numpy(self._new_tasks.start(to_numpy(marked)))
        if bool(due.any()):
            self._set_tasks(self._drawn_tasks(to_numpy(due)), due)
        return self._require_env().reset(None if bool(marked.all()) else marked)

    def rewind(self, mask: Tensor) -> None:
        """Puts the marked lanes, whose episodes have ended, into a state that can be stepped."""
        self._require_env().reset(mask)

    def step(self, action: NDArray[Any]) -> Transition:
        """One step with actions [L] or [L, A], after checking them."""
        space = self._family.action_space
        shape = (self._count, *(space.shape or ()))
        dtype = torch.int64 if isinstance(space, spaces.Discrete) else torch.float32
        if action.shape != shape:
            raise InvalidAction(
                f"Actions must have shape {list(shape)}, {space} for each of {self._count} "
                f"lane(s); got {list(action.shape)}."
            )
        if isinstance(space, spaces.Discrete):
            inside = (action >= space.start) & (action < space.start + space.n)
            if not (inside.all() and np.issubdtype(action.dtype, np.integer)):
                raise InvalidAction(f"Actions must be integers in {space}; got {action}.")
        return self._require_env().step(torch.tensor(action, dtype=dtype))

    def _checked(self, tasks: Any) -> Tensor:
        """`tasks` [L, ...] as a new tensor, after checking them."""
        given = as_tasks(self._family, tasks).clone()
        if len(given) != self._count:
            raise TaskError(
                f"options['task'] must hold one task for each of the {self._count} lanes; got "
                f"{len(given)}. To use one task in every lane, repeat it."
            )
        return given

    def _require_env(self) -> SeededEnv | RenderedEnv:
        if self._env is None:
            raise ResetNeeded("There is no task yet; call reset() first.")
        return self._env


def _two_words(np_random: np.random.Generator) -> tuple[int, int]:
    """64 random bits for tasks and for noise. Drawing tasks does not shift the noise."""
    tasks, noise = np_random.integers(2**64, size=2, dtype=np.uint64).tolist()
    return tasks, noise


def sampled_tasks(
    family: TaskFamily, count: int, np_random: np.random.Generator, split: Split
) -> NDArray[Any]:
    """Tasks [count, ...] of a split, all randomness from `np_random`."""
    stream = Generator().manual_seed(int(np_random.integers(2**63)))
    return to_numpy(family.sample_tasks(count, stream, split))


def to_numpy(value: Tensor) -> NDArray[Any]:
    """A NumPy view of a tensor on the CPU."""
    array: NDArray[Any] = value.numpy()
    return array
