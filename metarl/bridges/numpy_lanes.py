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
from metarl.tasks.batched_env import Transition, select_lanes
from metarl.tasks.family import Split, TaskFamily, as_tasks
from metarl.tasks.rendering import RenderedEnv


class NumpyLanes:
    """A batched env with NumPy actions, its tasks and its seeds."""

    def __init__(self, family: TaskFamily, count: int, *, rendered: bool = False) -> None:
        self._family, self._count, self._rendered = family, count, rendered
        self._seeded: SeededEnv | None = None
        self._env: SeededEnv | RenderedEnv | None = None  # `_seeded` or a wrapper of it

    @property
    def tasks(self) -> Tensor:
        """Parameters [L, ...] of the current tasks."""
        return self._require_env().tasks

    def reset(
        self,
        tasks: Any,
        np_random: np.random.Generator,
        reseed: bool,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Starts an episode in the marked lanes, in `tasks` if given; observations [L, D]."""
        given = None if tasks is None else self._checked(tasks)
        if self._seeded is None:
            self._open(given, np_random)
        else:
            if reseed:
                _, seed = _two_words(np_random)
                self._seeded.seed(seed, mask)
            if given is not None:
                old = self._seeded.tasks
                self._seeded.tasks = given if mask is None else select_lanes(mask, given, old)
        if isinstance(self._env, RenderedEnv) and (reseed or given is not None):
            self._env.forget()
        return self._require_env().reset(mask)

    def _open(self, tasks: Tensor | None, np_random: np.random.Generator) -> None:
        """Makes the env, in tasks drawn from the train split if none are given."""
        task_seed, seed = _two_words(np_random)
        if tasks is None:
            stream = Generator().manual_seed(task_seed)
            tasks = self._family.sample_tasks(self._count, stream, "train")
        self._seeded = SeededEnv(self._family, tasks, seed)
        self._env = RenderedEnv(self._seeded) if self._rendered else self._seeded

    def frame(self) -> NDArray[np.uint8] | None:
        """Current frame [H, W, 3] of lane 0; None unless rendered."""
        env = self._require_env()
        return env.frame() if isinstance(env, RenderedEnv) else None

    def restart(self, mask: Tensor) -> Tensor:
        """Starts an episode in the marked lanes, tasks unchanged; observations [L, D]."""
        return self._require_env().reset(mask)

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
