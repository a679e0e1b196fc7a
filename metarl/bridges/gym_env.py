"""Ordinary environments as a world: actions go in, transitions come out, as tensors.

Axes: `L` lanes, then features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.bridges.gym_pool import OPENING, STEP, LanePool
from metarl.errors import TaskContractError
from metarl.tasks.batched_env import Transition


class EnvWorld:
    """A world over a pool of environments."""

    def __init__(self, pool: LanePool, tasks: Sequence[Any], generator: Generator) -> None:
        """Lives in `tasks` [L]; every trial draws its seeds from `generator`."""
        self._pool, self._tasks, self._generator = pool, tasks, generator
        self._opening = self._ended = torch.empty(0)
        self._moment = OPENING
        self._pool.tenant = self._key = object()

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Opens a trial, or shows the episodes that were opened where others ended.

        Raises:
            ValueError: a lane is marked whose episode has not ended.
            RuntimeError: the environments live in another world by now.
        """
        self._require_ours()
        self._moment = OPENING
        if lanes is None:
            told = self._pool.reset(self._tasks, integers(self._generator, len(self._tasks)))
            self._opening = self._tensor(told["opening"], torch.float32)
            return self._opening
        if bool((lanes & ~self._ended).any()):
            raise ValueError("Only a lane whose episode has ended can be opened anew.")
        return self._opening

    def step(self, action: Tensor) -> Transition:
        """One step in every lane; raises as `reset` does."""
        self._require_ours()
        told = self._pool.step(action.cpu().numpy())
        self._moment = STEP
        last = Transition(
            obs=self._tensor(told["obs"], torch.float32),
            reward=self._tensor(told["reward"], torch.float32),
            terminated=self._tensor(told["terminated"], torch.bool),
            truncated=self._tensor(told["truncated"], torch.bool),
            success=self._tensor(told["success"], torch.bool),
        )
        self._opening = self._tensor(told["opening"], torch.float32)
        self._ended = last.terminated | last.truncated
        return last

    def frame(self) -> NDArray[np.uint8]:
        """Picture [H, W, 3] of lane 0 as it is now.

        Raises:
            TaskContractError: the environment drew something else.
        """
        picture = self._pool.picture(self._moment)
        shape, dtype = np.shape(picture), getattr(picture, "dtype", type(picture).__name__)
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
            raise TaskContractError(
                f"render() of the environment gave {dtype} of shape {list(shape)}; where "
                "render_mode is 'rgb_array' a picture is uint8 of shape [height, width, 3]."
            )
        drawn: NDArray[np.uint8] = picture
        return drawn

    def _require_ours(self) -> None:
        if self._pool.closed or self._pool.tenant is not self._key:
            raise RuntimeError(
                "The environments of this world were closed, or moved into the world that the "
                "same family opened after it; worlds side by side need a family object each."
            )

    def _tensor(self, value: Any, dtype: torch.dtype) -> Tensor:
        return torch.tensor(value, dtype=dtype, device=self._generator.device)


def integers(generator: Generator, count: int) -> list[int]:
    """Seeds, drawn from `generator`."""
    drawn = torch.randint(2**31, (count,), generator=generator, device=generator.device)
    return [int(number) for number in drawn.tolist()]
