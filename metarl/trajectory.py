"""Containers of experience: what policies are shown, and what learners and evaluators read.

Axes: `T` steps, `N` tasks, `B` rollouts of each task, `L` = N x B lanes, then features (`D`
observation, `A` action). Flags sit on transitions: `terminated[t]` and `truncated[t]` end the
episode at transition t, `first[t]` marks obs[t] as the first of an episode. The end of a trial is
a third thing: the last `valid` step.
"""

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Tensor

from metarl.errors import ShapeError


@dataclass(frozen=True, kw_only=True)
class Percept:
    """What every policy is shown before it acts, in every lane; `Trajectory.percepts` has many."""

    obs: Tensor  # [L, D]  float
    previous_action: Tensor  # [L] int64 or [L, A] float; zeros where first_of_trial
    previous_reward: Tensor  # [L]  float, also when it was the last of an episode
    previous_terminated: Tensor  # [L]  bool
    previous_truncated: Tensor  # [L]  bool
    first_of_episode: Tensor  # [L]  bool
    first_of_trial: Tensor  # [L]  bool


def blank_action(space: Space[Any]) -> Tensor:
    """What stands for the previous action at the start of a trial: zeros, [] int64 or [A] float."""
    dtype = torch.int64 if isinstance(space, spaces.Discrete) else torch.float32
    return torch.zeros(space.shape or (), dtype=dtype)


def first_percept(obs: Tensor, blank: Tensor) -> Percept:
    """First percept of a trial, from observations [..., D] and a blank action [A] or []."""
    lead = obs.shape[:-1]
    yes = torch.ones(lead, dtype=torch.bool, device=obs.device)
    no = torch.zeros_like(yes)
    return Percept(
        obs=obs,
        previous_action=obs.new_zeros((*lead, *blank.shape), dtype=blank.dtype),
        previous_reward=torch.zeros(lead, device=obs.device),
        previous_terminated=no,
        previous_truncated=no,
        first_of_episode=yes,
        first_of_trial=yes,
    )


def next_percept(
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    first: Tensor,
) -> Percept:
    """Percept within a trial: the observation after any reset, and what the last action led to.

    Args:
        obs: [..., D], the first of an episode where `first` [...].
        action: the last one, [...] or [..., A].
        reward: for it, [...], like the flags.
        terminated: whether it ended the episode.
        truncated: likewise.
        first: whether an episode starts here.
    """
    return Percept(
        obs=obs,
        previous_action=action,
        previous_reward=reward,
        previous_terminated=terminated,
        previous_truncated=truncated,
        first_of_episode=first,
        first_of_trial=torch.zeros_like(first),
    )


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Experience of N tasks in B rollouts each, time-major, never mutated after construction.

    A lane that has finished its episodes is idle: `valid` is False, rewards and flags are zero.
    """

    obs: Tensor  # [T, N, B, D]  float  before acting
    action: Tensor  # [T, N, B]  int64  (continuous: [T, N, B, A] float)
    log_prob: Tensor  # [T, N, B]  float  of `action` under the policy that took it
    reward: Tensor  # [T, N, B]  float
    next_obs: Tensor | None = None  # [T, N, B, D]  float  after acting, before any reset
    """kept only where `collect` is asked for it"""
    value: Tensor | None = None  # [T, N, B]  float  the policy's estimate of the return to come
    """kept only where the policy gives it at every step"""
    terminated: Tensor  # [T, N, B]  bool
    truncated: Tensor  # [T, N, B]  bool
    first: Tensor  # [T, N, B]  bool  obs[t] is the first of an episode
    success: Tensor  # [T, N, B]  bool  the task counts as solved at this transition
    valid: Tensor  # [T, N, B]  bool  the lane was active

    def __post_init__(self) -> None:
        lead = self.reward.shape
        if len(lead) != 3:
            raise ShapeError(f"Trajectory.reward must be [T, N, B]; got {list(lead)}.")
        for name, value in self.columns.items():
            if value.shape[:3] != lead:
                raise ShapeError(
                    f"Trajectory.{name} has shape {list(value.shape)}, but its first three "
                    f"axes must be [T, N, B] = {list(lead)}, as in Trajectory.reward."
                )

    @property
    def columns(self) -> dict[str, Tensor]:
        """What is kept, by name, each [T, N, B, ...]."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def steps(self) -> int:
        """Environment steps: valid transitions over all lanes."""
        return int(self.valid.sum())

    @property
    def trial_end(self) -> Tensor:
        """[T, N, B] bool, the lane's last transition."""
        valid_next = torch.zeros_like(self.valid)
        valid_next[:-1] = self.valid[1:]
        return self.valid & ~valid_next

    @property
    def episode(self) -> Tensor:
        """[T, N, B] int64, episodes that the lane had finished before transition t."""
        return self.first.long().cumsum(0) - 1

    def percepts(self) -> Percept:
        """What the policy was shown at every step; lanes have the axes [T, N, B] here."""
        first_of_trial = torch.zeros_like(self.first)
        first_of_trial[0] = True
        return Percept(
            obs=self.obs,
            previous_action=_shifted(self.action),
            previous_reward=_shifted(self.reward),
            previous_terminated=_shifted(self.terminated),
            previous_truncated=_shifted(self.truncated),
            first_of_episode=self.first,
            first_of_trial=first_of_trial,
        )

    def episode_returns(self, episodes: int) -> Tensor:
        """Sum of rewards of each of the first `episodes` episodes, [E, N, B]."""
        return self._per_episode(self.reward, episodes)

    def episode_lengths(self, episodes: int) -> Tensor:
        """Environment steps of each episode, [E, N, B] int64."""
        return self._per_episode(self.valid.long(), episodes)

    def episode_success(self, episodes: int) -> Tensor:
        """Whether the task counted as solved at any step of each episode, [E, N, B] bool."""
        return self._per_episode(self.success.long(), episodes) > 0

    def _per_episode(self, value: Tensor, episodes: int) -> Tensor:
        total = value.new_zeros(episodes, *value.shape[1:])
        return total.scatter_add(0, self.episode, value * self.valid)


def episode_start(first: Tensor) -> Tensor:
    """The step at which the episode of each step began, [T, ...] int64.

    Args:
        first: [T, ...] bool, first step of an episode.
    """
    time = torch.arange(len(first), device=first.device).view(-1, *(1,) * (first.ndim - 1))
    return torch.where(first, time, 0).cummax(0).values


def _shifted(value: Tensor) -> Tensor:
    """`value` one step later: [t] holds what was at t - 1, zeros at t = 0."""
    shifted = torch.zeros_like(value)
    shifted[1:] = value[:-1]
    return shifted
