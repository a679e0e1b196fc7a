"""Lanes of environments that step together: tasks and actions in, transitions out.

Axes: `L` lanes, then features.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from metarl.errors import TaskContractError
from metarl.tasks import State, TaskFamily


class Transition(NamedTuple):
    """What one step of every lane brought, before any reset."""

    obs: Tensor  # [L, D]  float  seen after acting
    reward: Tensor  # [L]  float
    terminated: Tensor  # [L]  bool
    truncated: Tensor  # [L]  bool
    success: Tensor  # [L]  bool


class World(Protocol):
    """What the engine steps; it knows no more about environments than this."""

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Opens a new episode in the lanes marked in `lanes` [L] bool (None: all).

        Returns the observation [L, D] of every lane.
        """

    def step(self, action: Tensor) -> Transition:
        """One step in every lane; a lane whose episode has ended must be reset first."""


class BatchedWorld:
    """A world over a pure task family: one tensor operation moves all lanes."""

    def __init__(self, family: TaskFamily, tasks: Tensor, generator: Generator) -> None:
        """Makes one lane for each of `tasks` [L, ...], on the tasks' device."""
        self._family = family
        self._generator = generator
        self.tasks = tasks
        self._elapsed = torch.zeros(len(tasks), dtype=torch.int64, device=tasks.device)
        self._never = torch.zeros(len(tasks), dtype=torch.bool, device=tasks.device)
        self._state: State = None
        self._obs_shape = family.observation_space.shape  # spaces are costly to make

    @property
    def family(self) -> TaskFamily:
        """Whose rules these are."""
        return self._family

    @property
    def state(self) -> State:
        """That of every lane; None before the first reset."""
        return self._state

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Opens a new episode in the marked lanes; observations of all lanes."""
        fresh = self._family.reset(self.tasks, self._generator)
        if lanes is None:
            self._state = fresh
            self._elapsed = torch.zeros_like(self._elapsed)
        else:
            self._state = select_lanes(lanes, fresh, self._state)
            self._elapsed = self._elapsed.masked_fill(lanes, 0)
        return self._observe()

    def step(self, action: Tensor) -> Transition:
        """One step in every lane."""
        self._state, reward, terminated = self._family.step(
            self.tasks, self._state, action, self._generator
        )
        self._require("reward", reward, (), torch.float32)
        self._require("terminated", terminated, (), torch.bool)
        self._elapsed = self._elapsed + 1
        truncated = (self._elapsed >= self._family.episode_steps) & ~terminated
        success = (
            self._family.success(self.tasks, self._state)
            if self._family.defines_success
            else self._never
        )
        return Transition(self._observe(), reward, terminated, truncated, success)

    def _observe(self) -> Tensor:
        obs = self._family.observe(self.tasks, self._state)
        self._require("observation", obs, self._obs_shape, torch.float32)
        return obs

    def _require(
        self, name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        expected = (len(self.tasks), *shape)
        if value.shape != expected or value.dtype != dtype:
            raise TaskContractError(
                f"{type(self._family).__name__} gave a {name} of shape {list(value.shape)} and "
                f"{value.dtype}; for {len(self.tasks)} lanes it must be {list(expected)} and "
                f"{dtype}."
            )


def select_lanes(lanes: Tensor, chosen: State, other: State) -> State:
    """`chosen` where `lanes` [L] is True, else `other`; both tensors, or named tuples of them."""
    if isinstance(chosen, Tensor):
        mask = lanes.view(-1, *[1] * (chosen.ndim - 1))
        return torch.where(mask, chosen, other)
    parts = [select_lanes(lanes, one, two) for one, two in zip(chosen, other, strict=True)]
    return type(chosen)(*parts)
