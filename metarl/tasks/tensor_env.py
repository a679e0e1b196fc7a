"""A batched environment over a pure task family: one tensor operation steps all lanes.

Axes: `L` lanes, then features.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from metarl.errors import TaskContractError
from metarl.noise import LaneNoise
from metarl.tasks.batched_env import State, Transition, select_lanes

if TYPE_CHECKING:
    from metarl.tasks.family import TaskFamily


class TensorEnv:
    """Holds the state of every lane and counts steps; the family holds the rules."""

    def __init__(self, family: "TaskFamily", tasks: Tensor, noise: LaneNoise) -> None:
        """Makes one lane for each of `tasks` [L, ...], on the tasks' device.

        Args:
            family: the rules.
            tasks: parameters of the task of each lane.
            noise: of the L lanes; steps draw from it, resets from a child of it.
        """
        self._family = family
        self._noise, self._reset_noise = noise, noise.child(0)
        self.tasks = tasks
        self._time = 0
        self._elapsed: int | Tensor = 0  # steps of the episode, a number where all lanes agree
        self._never = torch.zeros(len(tasks), dtype=torch.bool, device=tasks.device)
        self._state: State = None
        # Properties that are costly to compute at every step.
        self._lane_shape = tasks.shape[:1]
        self._obs_shape = (*self._lane_shape, *family.observation_space.shape)
        self._episode_steps = family.episode_steps

    @property
    def family(self) -> "TaskFamily":
        """The rules."""
        return self._family

    @property
    def state(self) -> State:
        """Of every lane; None before the first reset."""
        return self._state

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Starts a new episode in the marked lanes; observations of all lanes."""
        fresh = self._family.reset(self.tasks, self._reset_noise.at(self._time))
        if lanes is None:
            self._state = fresh
            self._elapsed = 0
        else:
            self._state = select_lanes(lanes, fresh, self._state)
            if not isinstance(self._elapsed, Tensor):
                self._elapsed = torch.full_like(lanes, self._elapsed, dtype=torch.int64)
            self._elapsed = self._elapsed.masked_fill(lanes, 0)
        return self._observe()

    def step(self, action: Tensor) -> Transition:
        """One step in every lane."""
        self._state, reward, terminated = self._family.step(
            self.tasks, self._state, action, self._noise.at(self._time)
        )
        self._time += 1
        self._require("reward", reward, self._lane_shape, torch.float32)
        self._require("terminated", terminated, self._lane_shape, torch.bool)
        self._elapsed = self._elapsed + 1
        at_limit = self._elapsed >= self._episode_steps
        if isinstance(at_limit, Tensor):
            truncated = at_limit & ~terminated
        else:
            truncated = ~terminated if at_limit else self._never
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
        self, name: str, value: Tensor, expected: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        if value.shape != expected or value.dtype != dtype:
            raise TaskContractError(
                f"{type(self._family).__name__} gave a {name} of shape {list(value.shape)} and "
                f"{value.dtype}; for {len(self.tasks)} lanes it must be {list(expected)} and "
                f"{dtype}."
            )
