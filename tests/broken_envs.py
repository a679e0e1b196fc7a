"""Small environments, each of which breaks one promise and keeps the others.

`Lever` is the healthy one: of four levers one pays, and noise comes on top. The broken ones differ
from it in the lines that break the promise.
"""

import random
from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.tasks.family import TaskFamily

ARMS = 12


class Lever(gymnasium.Env):
    """Of twelve levers one pays; the observation counts the pulls, the last four are for tests."""

    observation_space = spaces.Box(0, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(ARMS)
    task_space = spaces.Discrete(ARMS)
    episode_steps = 5
    """as declared"""
    limit = 5
    """as it is"""

    def __init__(self):
        self.task = None
        self.memory = np.zeros(2, np.float32)  # pulls, luck of the episode

    def sample_task(self, np_random, split):
        return np_random.integers(8) if split == "train" else np_random.integers(8, ARMS)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        task = (options or {}).get("task", self.task)
        self.task = int(self.sample_task(self.np_random, "train")) if task is None else int(task)
        self.memory[:] = 0, self.np_random.uniform()
        return self.observe(), {}

    def observe(self):
        return self.memory.copy()

    def pay(self, action):
        return float(action == self.task) + 0.1 * self.np_random.uniform()

    def step(self, action):
        self.memory[0] += 1
        truncated = bool(self.memory[0] >= self.limit)
        return self.observe(), self.pay(action), False, truncated, {}


class WithoutTaskSpace(Lever):
    task_space = None


class SamplesOutside(Lever):
    def sample_task(self, np_random, split):
        return super().sample_task(np_random, split) + ARMS


class ManyActions(Lever):
    action_space = spaces.MultiDiscrete([3, 4])


class NoOptions(Lever):
    def reset(self, *, seed=None):
        return super().reset(seed=seed)


class WarmingUp(Lever):
    """What it did in earlier tasks stays in its bones."""

    rust = 0

    def reset(self, *, seed=None, options=None):
        if self.task is not None and "task" in (options or {}):
            self.rust += int(options["task"]) != self.task
        return super().reset(seed=seed, options=options)

    def pay(self, action):
        return super().pay(action) - 0.01 * self.rust


class DrawsAgain(Lever):
    """A new goal on each reset: the classic."""

    def reset(self, *, seed=None, options=None):
        self.task = None
        return super().reset(seed=seed, options=options)


class DrawsAgainWithoutSeed(Lever):
    """Only a reset without a seed, as between the episodes of a trial, draws a new goal."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed, options=options)
        self.kept = self.task if "task" in (options or {}) else getattr(self, "kept", self.task)
        again = seed is None and "task" not in (options or {})
        self.task = int(self.np_random.integers(8)) if again else self.kept
        return obs, info


class Deaf(Lever):
    """The task is accepted and not used."""

    def pay(self, action):
        return float(action == 3) + 0.1 * self.np_random.uniform()


class Telling(Lever):
    """The opening observation is drawn from a distribution that depends on the task."""

    def observe(self):
        return self.memory + np.float32([0, 0.001 * self.task])


class TellingLater(Lever):
    """From the first step on the observation has the goal in it."""

    def observe(self):
        return np.float32([self.memory[0], self.task if self.memory[0] else self.memory[1]])


class View(Lever):
    """Each observation is a slice of the state: another object, the same memory."""

    def observe(self):
        return self.memory[:]


class TakesFromItsObservation(Lever):
    """Reads its state off the observation that it gave away, and never writes into it."""

    def observe(self):
        return self.memory

    def reset(self, *, seed=None, options=None):
        self.memory = self.memory.copy()
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.memory = self.memory.copy()
        return super().step(action)


class Clock(Lever):
    """Later in the episode the noise is the operating system's."""

    def pay(self, action):
        noise = np.random.default_rng().uniform() if self.memory[0] > 2 else 0.0
        return super().pay(action) + noise


class GlobalNumpy(Lever):
    """Later in the episode the noise comes from a global generator."""

    def pay(self, action):
        noise = np.random.rand() if self.memory[0] > 2 else 0.0  # noqa: NPY002
        return super().pay(action) + noise


class GlobalPython(Lever):
    def pay(self, action):
        noise = random.random() if self.memory[0] > 2 else 0.0
        return super().pay(action) + noise


class GlobalTorch(Lever):
    def pay(self, action):
        noise = float(torch.rand(())) if self.memory[0] > 2 else 0.0
        return super().pay(action) + noise


class Shared(Lever):
    """All environments have one memory: it belongs to the class."""

    memory = np.zeros(2, np.float32)

    def __init__(self):
        self.task = None


class Endless(Lever):
    """Declares a limit that it does not keep."""

    limit = 6


class WithoutLimit(Lever):
    episode_steps = None


class OtherSpaces(Lever):
    """Luck is larger in some tasks than the space allows."""

    observation_space = spaces.Box(0, 5, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return self.observe(), {}

    def observe(self):
        stretch = 6 if self.task > 3 and self.memory[0] > 3 else 1
        return self.memory * np.float32([stretch, 1])


class SharedSplits(Lever):
    """Draws its tasks from the task_space, test tasks and training tasks alike."""

    sample_task = None

    def reset(self, *, seed=None, options=None):
        drawn = {"task": self.task if self.task is not None else 0}
        return super().reset(seed=seed, options={**drawn, **(options or {})})


class Overlapping(Lever):
    def sample_task(self, np_random, split):
        return np_random.integers(8) if split == "train" else np_random.integers(7, ARMS)


class NotANumber(Lever):
    def pay(self, action):
        return np.nan if action == 7 and self.memory[0] > 2 else super().pay(action)


class Infinite(Lever):
    def observe(self):
        return self.memory + np.float32([np.inf if self.memory[0] == 5 else 0, 0])


class RewardVector(Lever):
    def pay(self, action):
        paid = super().pay(action)
        return np.array([paid]) if self.memory[0] > 3 else paid


class IntegerFlags(Lever):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, int(truncated) if self.memory[0] > 3 else truncated, info


class NotInProcesses(Lever):
    """Its levers are installed by this very program, and a fresh process knows nothing of it."""

    installed: ClassVar[list[int]] = []

    def pay(self, action):
        return super().pay(action) + len(self.installed)


class NotImportable(Lever):
    pass


@dataclass(frozen=True, kw_only=True)
class Healthy(TaskFamily):
    """A lever for each lane: of twelve one pays, and noise comes on top. The state is [L, 2]."""

    @property
    def observation_space(self):
        return spaces.Box(0, np.inf, (2,), np.float32)

    @property
    def action_space(self):
        return spaces.Discrete(ARMS)

    @property
    def task_space(self):
        return spaces.Discrete(ARMS)

    @property
    def episode_steps(self):
        return 5

    def sample_tasks(self, num_tasks, generator, split="train"):
        low, high = (0, 8) if split == "train" else (8, ARMS)
        return torch.randint(low, high, (num_tasks,), generator=generator)

    def reset(self, task, generator):
        luck = torch.rand(len(task), generator=generator)
        return torch.stack([torch.zeros(len(task)), luck], 1)

    def observe(self, task, state):
        return state.clone()

    def step(self, task, state, action, generator):
        noise = torch.rand(len(task), generator=generator)
        reward = (action == task) + 0.1 * noise
        return state + torch.tensor([1.0, 0.0]), reward, torch.zeros(len(task), dtype=torch.bool)


class InPlace(Healthy):
    """The episode's luck is used up in place."""

    def step(self, task, state, action, generator):
        after, reward, terminated = super().step(task, state.clone(), action, generator)
        state[:, 1] *= 0.5
        after[:, 1] = state[:, 1]
        return after, reward, terminated


class Remembers(Healthy):
    """Its thirtieth call and all later ones pay more."""

    calls: ClassVar[list[int]] = []

    def step(self, task, state, action, generator):
        after, reward, terminated = super().step(task, state, action, generator)
        self.calls.append(1)
        return after, reward + 1e-3 * len(self.calls), terminated


class Mixing(Healthy):
    """What other lanes are paid lowers the reward."""

    def step(self, task, state, action, generator):
        after, reward, terminated = super().step(task, state, action, generator)
        return after, reward - 0.1 * reward.mean(), terminated


class TensorView(Healthy):
    def observe(self, task, state):
        return state


class DoubleReward(Healthy):
    def step(self, task, state, action, generator):
        after, reward, terminated = super().step(task, state, action, generator)
        return after, reward.double(), terminated


class GlobalGenerator(Healthy):
    """Later in the episode the noise is torch's global one."""

    def step(self, task, state, action, generator):
        after, reward, terminated = super().step(task, state, action, generator)
        return after, reward + torch.rand(len(task)) * (after[:, 0] > 2), terminated


class DeafFamily(Healthy):
    def step(self, task, state, action, generator):
        return super().step(torch.zeros_like(task), state, action, generator)


class OpenFamily(Healthy):
    def observe(self, task, state):
        return state + torch.stack([torch.zeros(len(task)), task.float()], 1)


class OneSplit(Healthy):
    def sample_tasks(self, num_tasks: int, generator, split="train") -> Tensor:
        return super().sample_tasks(num_tasks, generator)
