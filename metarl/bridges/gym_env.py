"""A pool of Gymnasium environments as a batched env with tensors.

Axes: `L` lanes, then features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.bridges.env_block import AFTER_RESET, AFTER_STEP
from metarl.bridges.gym_pool import LanePool
from metarl.noise import LaneNoise
from metarl.tasks.batched_env import Transition
from metarl.tasks.rendering import checked_frame


class GymBatchedEnv:
    """A batched env over a pool of environments."""

    def __init__(self, pool: LanePool, tasks: Sequence[Any], noise: LaneNoise) -> None:
        """Steps the lanes in `tasks` [L]; each draws the seed of a trial from its `noise`."""
        self._pool, self._tasks, self._noise = pool, tasks, noise
        self._trials = 0
        self._initial_obs = self._ended = torch.empty(0)
        self._latest = AFTER_RESET
        self._pool.owner = self._key = object()

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Starts a trial; with `lanes`, returns the initial observations after ended episodes.

        Raises:
            ValueError: a lane is marked whose episode has not ended.
            RuntimeError: the environments are closed, or used by a later batched env.
        """
        self._require_owner()
        self._latest = AFTER_RESET
        if lanes is None:
            seeds = self._noise.at(self._trials).integers(2**31).tolist()
            self._trials += 1
            arrays = self._pool.reset(self._tasks, seeds)
            self._initial_obs = self._tensor(arrays["initial_obs"], torch.float32)
            return self._initial_obs
        if bool((lanes & ~self._ended).any()):
            raise ValueError("Only a lane whose episode has ended can be reset.")
        return self._initial_obs

    def step(self, action: Tensor) -> Transition:
        """One step in every lane; raises the errors of `reset`."""
        self._require_owner()
        arrays = self._pool.step(action.cpu().numpy())
        self._latest = AFTER_STEP
        last = Transition(
            next_obs=self._tensor(arrays["obs"], torch.float32),
            reward=self._tensor(arrays["reward"], torch.float32),
            terminated=self._tensor(arrays["terminated"], torch.bool),
            truncated=self._tensor(arrays["truncated"], torch.bool),
            success=self._tensor(arrays["success"], torch.bool),
        )
        self._initial_obs = self._tensor(arrays["initial_obs"], torch.float32)
        self._ended = last.terminated | last.truncated
        return last

    def frame(self) -> NDArray[np.uint8]:
        """Current frame [H, W, 3] of lane 0.

        Raises:
            TaskContractError: the environment rendered another type or shape.
        """
        return checked_frame(self._pool.frame(self._latest), "render() of the environment")

    def _require_owner(self) -> None:
        if self._pool.closed or self._pool.owner is not self._key:
            raise RuntimeError(
                "The environments of this batched env were closed, or are used by a batched env "
                "that the same family opened later. Batched envs that are stepped at the same time "
                "need a family object each."
            )

    def _tensor(self, value: Any, dtype: torch.dtype) -> Tensor:
        return torch.tensor(value, dtype=dtype, device=self._noise.device)
