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


class KnownSpaces(NamedTuple):
    """What is asked again and again."""

    observation_shape: tuple[int, ...]
    task_space: spaces.Box | spaces.Discrete
    task_dtype: torch.dtype  # int64 where tasks are whole numbers, else float32
    lowest_task: Tensor
    highest_task: Tensor


def known_spaces(family: HasSpaces, device: torch.device | str) -> KnownSpaces:
    """Those of a family; the last are kept, as the options of equal families decide their spaces.

    Args:
        family: any.
        device: of the bounds of tasks.
    """
    try:
        hash(family)
    except TypeError:  # an option that is a list, for example
        return _made(family, device)
    return _kept(family, device)


@lru_cache(maxsize=32)
def _kept(family: HasSpaces, device: torch.device | str) -> KnownSpaces:
    return _made(family, device)


def _made(family: HasSpaces, device: torch.device | str) -> KnownSpaces:
    space = family.task_space
    dtype = torch.int64 if np.issubdtype(space.dtype, np.integer) else torch.float32
    if isinstance(space, spaces.Discrete):
        bounds = np.asarray(int(space.start)), np.asarray(int(space.start) + int(space.n) - 1)
    else:
        bounds = space.low, space.high
    low, high = (torch.as_tensor(bound, dtype=dtype, device=device) for bound in bounds)
    return KnownSpaces(family.observation_space.shape, space, dtype, low, high)
