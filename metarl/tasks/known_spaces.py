"""What the spaces of families say, made once.

Gymnasium takes longer to make a Box than some lanes to take a step.
"""

from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor


class HasSpaces(Protocol):
    """A family, as far as it is needed here."""

    def __hash__(self) -> int: ...

    @property
    def observation_space(self) -> spaces.Box:
        """Observations of one lane."""

    @property
    def task_space(self) -> spaces.Box | spaces.Discrete:
        """All tasks."""


class TaskBounds(NamedTuple):
    """The space of tasks, in tensors."""

    space: spaces.Box | spaces.Discrete
    dtype: torch.dtype  # int64 where tasks are whole numbers, else float32
    lowest: Tensor
    highest: Tensor


def task_bounds(family: HasSpaces, device: torch.device | str) -> TaskBounds:
    """Those of a family on a device; see `observation_shape`."""
    return (_kept_bounds if _is_hashable(family) else _bounds)(family, device)


def observation_shape(family: HasSpaces) -> tuple[int, ...]:
    """Of one lane. The last are kept: the options of equal families decide their spaces."""
    return (_kept_shape if _is_hashable(family) else _shape)(family)


def _is_hashable(family: HasSpaces) -> bool:
    try:
        hash(family)
    except TypeError:  # an option that is a list, for example
        return False
    return True


def _shape(family: HasSpaces) -> tuple[int, ...]:
    return family.observation_space.shape


def _bounds(family: HasSpaces, device: torch.device | str) -> TaskBounds:
    space = family.task_space
    dtype = torch.int64 if np.issubdtype(space.dtype, np.integer) else torch.float32
    if isinstance(space, spaces.Discrete):
        bounds = np.asarray(int(space.start)), np.asarray(int(space.start) + int(space.n) - 1)
    else:
        bounds = space.low, space.high
    low, high = (torch.as_tensor(bound, dtype=dtype, device=device) for bound in bounds)
    return TaskBounds(space, dtype, low, high)


_kept_shape, _kept_bounds = lru_cache(maxsize=32)(_shape), lru_cache(maxsize=32)(_bounds)
