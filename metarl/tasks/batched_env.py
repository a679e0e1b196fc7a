"""The contract of batched environments: many lanes, stepped together by the engine.

Axes: `L` lanes, then features.
"""

from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = Any
"""a tensor, or a NamedTuple of tensors; the leading axis of each is the lane"""


class Transition(NamedTuple):
    """One step of every lane, before any reset."""

    next_obs: Tensor  # [L, D]  float  after acting
    reward: Tensor  # [L]  float
    terminated: Tensor  # [L]  bool
    truncated: Tensor  # [L]  bool
    success: Tensor  # [L]  bool


class BatchedEnv(Protocol):
    """What the engine steps. It knows no more about environments than this."""

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Starts a new episode in the lanes marked in `lanes` [L] bool (None: all).

        Returns the observation [L, D] of every lane.
        """

    def step(self, action: Tensor) -> Transition:
        """One step in every lane; a lane whose episode has ended must be reset first."""


def select_lanes(lanes: Tensor, chosen: State, other: State) -> State:
    """`chosen` where `lanes` [L] is True, else `other`; both tensors, or named tuples of them."""
    if isinstance(chosen, Tensor):
        mask = lanes.view(-1, *[1] * (chosen.ndim - 1))
        return torch.where(mask, chosen, other)
    parts = [select_lanes(lanes, one, two) for one, two in zip(chosen, other, strict=True)]
    return type(chosen)(*parts)
