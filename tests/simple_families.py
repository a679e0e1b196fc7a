"""A family with known rewards and observations, and a policy that records its percepts."""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import Memory, PolicyOutput
from metarl.noise import LaneNoise
from metarl.tasks.family import TaskFamily
from metarl.trajectory import Percept


class Clock(NamedTuple):
    elapsed: Tensor  # [L] int64


@dataclass(frozen=True, kw_only=True)
class Countdown(TaskFamily):
    """Episodes of `task` steps, truncated at `limit`; the reward encodes task, step and action."""

    limit: int = 4
    break_at: int | None = None  # elapsed step whose reward is NaN in task 3
    defines_success: ClassVar[bool] = True

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(0.0, np.inf, (2,))

    @property
    def action_space(self) -> spaces.Discrete:
        return spaces.Discrete(3)

    @property
    def task_space(self) -> spaces.Discrete:
        return spaces.Discrete(10, start=1)

    @property
    def episode_steps(self) -> int:
        return self.limit

    @property
    def trial_episodes(self) -> int:
        return 2

    def sample_tasks(self, num_tasks, generator, split="train"):
        low, high = (1, 6) if split == "train" else (6, 11)
        return torch.randint(low, high, (num_tasks,), generator=generator)

    def reset(self, task: Tensor, noise: LaneNoise) -> Clock:
        return Clock(torch.zeros_like(task))

    def observe(self, task: Tensor, state: Clock) -> Tensor:
        return torch.stack((task.float(), state.elapsed.float()), -1)

    def step(self, task, state, action, noise):
        elapsed = state.elapsed + 1
        reward = 100.0 * task + 10.0 * elapsed + action
        if self.break_at is not None:
            reward = reward.masked_fill((task == 3) & (elapsed == self.break_at), torch.nan)
        return Clock(elapsed), reward, elapsed >= task

    def success(self, task: Tensor, state: Clock) -> Tensor:
        return state.elapsed >= task


@dataclass(frozen=True, kw_only=True)
class HiddenTarget(TaskFamily):
    """A Box action should hit the task, -1 or 1; the episode may end before its limit.

    reward = -|action - task| / 2: a guess earns -.5 in each step, knowledge 0.
    """

    limit: int = 2
    end_at: int | None = None  # elapsed step at which episodes of task 1 terminate

    @property
    def observation_space(self) -> spaces.Box:
        return spaces.Box(0.0, np.inf, (1,))

    @property
    def action_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    @property
    def task_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, ())

    @property
    def episode_steps(self) -> int:
        return self.limit

    @property
    def trial_episodes(self) -> int:
        return 3

    def sample_tasks(self, num_tasks, generator, split="train"):
        return 2.0 * torch.randint(2, (num_tasks,), generator=generator) - 1.0

    def reset(self, task: Tensor, noise: LaneNoise) -> Clock:
        return Clock(torch.zeros_like(task, dtype=torch.int64))

    def observe(self, task: Tensor, state: Clock) -> Tensor:
        return state.elapsed.float().unsqueeze(-1)

    def step(self, task, state, action, noise):
        elapsed = state.elapsed + 1
        reward = -(action.squeeze(-1).clamp(-1.0, 1.0) - task).abs() / 2
        ends = torch.zeros_like(elapsed, dtype=torch.bool)
        if self.end_at is not None:
            ends = (task > 0) & (elapsed == self.end_at)
        return Clock(elapsed), reward, ends


@dataclass
class Recorder:
    """Takes actions 0, 1, 2, 0, ... and records every percept; its memory counts the steps."""

    seen: list[Percept] = field(default_factory=list)
    noise: bool = False

    def initial_memory(self, lanes: int, horizon: int) -> Memory:
        return torch.zeros(lanes, dtype=torch.int64)

    def act(self, percept: Percept, memory: Memory, noise: LaneNoise) -> PolicyOutput:
        self.seen.append(percept)
        action = memory % 3
        if self.noise:
            action = noise.integers(3)
        return PolicyOutput(action, torch.zeros(memory.shape), memory + 1)
