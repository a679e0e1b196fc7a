"""Small environments, each of which fails one check and passes the others.

`Lever` and `ValidFamily` pass all checks. Each broken one differs from them only in the lines that
violate a requirement.
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
    """Bandit: the arm `task` pays 1, plus noise; the last four arms are test tasks."""

    observation_space = spaces.Box(0, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(ARMS)
    task_space = spaces.Discrete(ARMS)
    episode_steps = 5
    """the declared limit"""
    limit = 5
    """the actual limit"""

    def __init__(self):
        self.task = None
        self.memory = np.zeros(2, np.float32)  # steps, noise of the episode

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

    def reward(self, action):
        return float(action == self.task) + 0.1 * self.np_random.uniform()

    def step(self, action):
        self.memory[0] += 1
        truncated = bool(self.memory[0] >= self.limit)
        return self.observe(), self.reward(action), False, truncated, {}


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


class ClosesWhatIsNotThere(Lever):
    viewer = None

    def close(self):
        self.viewer.close()


class CarriesOverState(Lever):
    """Rewards depend on how often the task has changed."""

    task_changes = 0

    def reset(self, *, seed=None, options=None):
        if self.task is not None and "task" in (options or {}):
            self.task_changes += int(options["task"]) != self.task
        return super().reset(seed=seed, options=options)

    def reward(self, action):
        return super().reward(action) - 0.01 * self.task_changes


class DrawsAgain(Lever):
    """Every reset draws a new task."""

    def reset(self, *, seed=None, options=None):
        self.task = None
        return super().reset(seed=seed, options=options)


class DrawsAgainWithoutSeed(Lever):
    """Only a reset without a seed, as between the episodes of a trial, draws a new task."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed, options=options)
        self.kept = self.task if "task" in (options or {}) else getattr(self, "kept", self.task)
        again = seed is None and "task" not in (options or {})
        self.task = int(self.np_random.integers(8)) if again else self.kept
        return obs, info


class IgnoresTask(Lever):
    """Accepts the task and does not use it."""

    def reward(self, action):
        return float(action == 3) + 0.1 * self.np_random.uniform()


class ShowsTask(Lever):
    """The distribution of the initial observation depends on the task."""

    def observe(self):
        return self.memory + np.float32([0, 0.001 * self.task])


class ShowsTaskLater(Lever):
    """From the first step on, the observation contains the task."""

    def observe(self):
        return np.float32([self.memory[0], self.task if self.memory[0] else self.memory[1]])


class _Shows(Lever):
    """What `shown` returns follows the two usual numbers of an observation."""

    first_step, last_step = 1, 99
    """steps of the episode at which it is shown; 0 is the reset"""
    shape = (1,)
    episodes = 0

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(-100, np.inf, (2 + self.shape[0],), np.float32)

    def reset(self, *, seed=None, options=None):
        self.episodes = 0 if seed is not None else self.episodes + 1
        return super().reset(seed=seed, options=options)

    def visible(self):
        return self.first_step <= self.memory[0] <= self.last_step

    def shown(self):
        return np.full(self.shape, self.task)

    def observe(self):
        parts = self.shown() if self.visible() else np.zeros(self.shape)
        return np.concatenate([self.memory, parts]).astype(np.float32)


class ShowsTaskInOtherUnits(_Shows):
    def shown(self):
        return [20 - 2.5 * self.task]


class ShowsTaskOneHot(_Shows):
    shape = (ARMS,)

    def shown(self):
        return np.eye(ARMS)[self.task]


class ShowsTaskInBits(_Shows):
    shape = (4,)

    def shown(self):
        return [self.task >> bit & 1 for bit in range(4)]


class ShowsPartOfTheTask(_Shows):
    """Whether the arm is even: one bit of several."""

    def shown(self):
        return [self.task % 2]


class ShowsSquareOfTheTask(_Shows):
    def shown(self):
        return [(self.task - 5) ** 2]


class ShowsTaskFromTheThirdStep(_Shows):
    first_step = 3


class ShowsTaskOnce(_Shows):
    first_step = last_step = 2


class ShowsTaskAtTheEnd(_Shows):
    """In the last observation of an episode, which is never acted on but is learnt from."""

    first_step = 5


class ShowsTaskBeside(_Shows):
    """The component holds other numbers, the same in all tasks, when it does not show it."""

    def observe(self):
        obs = super().observe()
        obs[2] = obs[2] if self.memory[0] in (1, 4) else self.memory[0] * 7
        return obs


class ShowsTaskInTheSecondEpisode(_Shows):
    first_step = 0

    def visible(self):
        return self.episodes > 0


class AnswersActions(_Shows):
    """Valid: what follows the first pull tells whether it was the arm of the task."""

    pulled = -1

    def step(self, action):
        self.pulled = int(action)
        return super().step(action)

    def shown(self):
        return [self.pulled == self.task]


class DrawsNearTheTask(_Shows):
    """Valid here: a number that is drawn for every step, with the task as its mean."""

    def shown(self):
        return [self.task + self.np_random.normal()]


class AddsUp(_Shows):
    """Valid: a position that the action moves, by an amount that depends on the task."""

    position = 0.0

    def reset(self, *, seed=None, options=None):
        self.position = 0.0
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.position += 0.1 * self.task * action + 0.01 * self.task
        return super().step(action)

    def shown(self):
        return [self.position]


class LongShowsNothing(Lever):
    """Its episodes are longer than the checks look."""

    episode_steps = limit = 9000


class ObservationView(Lever):
    """Each observation is a slice of the state: another object with the same memory."""

    def observe(self):
        return self.memory[:]


class ReadsStateFromObservation(Lever):
    """Reads its state from the observation that it returned, and never writes into it."""

    def observe(self):
        return self.memory

    def reset(self, *, seed=None, options=None):
        self.memory = self.memory.copy()
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.memory = self.memory.copy()
        return super().step(action)


class UnseededNoise(Lever):
    """Later in the episode, noise comes from an unseeded generator."""

    def reward(self, action):
        noise = np.random.default_rng().uniform() if self.memory[0] > 2 else 0.0
        return super().reward(action) + noise


class GlobalNumpy(Lever):
    """Later in the episode, noise comes from a global generator."""

    def reward(self, action):
        noise = np.random.rand() if self.memory[0] > 2 else 0.0  # noqa: NPY002
        return super().reward(action) + noise


class GlobalPython(Lever):
    def reward(self, action):
        noise = random.random() if self.memory[0] > 2 else 0.0
        return super().reward(action) + noise


class GlobalTorch(Lever):
    def reward(self, action):
        noise = float(torch.rand(())) if self.memory[0] > 2 else 0.0
        return super().reward(action) + noise


class SharedClassState(Lever):
    """All instances share one array, an attribute of the class."""

    memory = np.zeros(2, np.float32)

    def __init__(self):
        self.task = None


class ExceedsLimit(Lever):
    """Its episodes are longer than the declared limit."""

    limit = 6


class WithoutLimit(Lever):
    episode_steps = None


class OutsideObservationSpace(Lever):
    """In some tasks, observations exceed the bounds of the space."""

    observation_space = spaces.Box(0, 5, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return self.observe(), {}

    def observe(self):
        stretch = 6 if self.task > 3 and self.memory[0] > 3 else 1
        return self.memory * np.float32([stretch, 1])


class WithoutSampleTask(Lever):
    """Without sample_task, both splits sample the whole task_space."""

    sample_task = None

    def reset(self, *, seed=None, options=None):
        drawn = {"task": self.task if self.task is not None else 0}
        return super().reset(seed=seed, options={**drawn, **(options or {})})


class OverlappingSplits(Lever):
    def sample_task(self, np_random, split):
        return np_random.integers(8) if split == "train" else np_random.integers(7, ARMS)


class NaNReward(Lever):
    def reward(self, action):
        return np.nan if action == 7 and self.memory[0] > 2 else super().reward(action)


class InfiniteObservation(Lever):
    def observe(self):
        return self.memory + np.float32([np.inf if self.memory[0] == 5 else 0, 0])


class RewardVector(Lever):
    def reward(self, action):
        reward = super().reward(action)
        return np.array([reward]) if self.memory[0] > 3 else reward


class IntegerFlags(Lever):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, int(truncated) if self.memory[0] > 3 else truncated, info


class CombinationLock(Lever):
    """The task has an effect only after the arms 3, 1, 4, 1 were pulled in this order."""

    combination = (3, 1, 4, 1)

    def reset(self, *, seed=None, options=None):
        self.pulled = []
        return super().reset(seed=seed, options=options)

    @property
    def is_open(self):
        return tuple(self.pulled[:4]) == self.combination

    def step(self, action):
        self.pulled.append(int(action))
        return super().step(action)

    def reward(self, action):
        return float(self.task if self.is_open else 0) + 0.1 * self.np_random.uniform()


class RareUnseededNoise(CombinationLock):
    def reward(self, action):
        noise = np.random.default_rng().uniform() if self.is_open else 0.0
        return super().reward(action) + noise


class RareGlobalNoise(CombinationLock):
    def reward(self, action):
        noise = random.random() if self.is_open else 0.0
        return super().reward(action) + noise


class RareView(CombinationLock):
    def observe(self):
        return self.memory[:] if self.is_open else self.memory.copy()


class RareNegativeObservation(CombinationLock):
    """Leaves the observation_space in a state before the episode's end."""

    def observe(self):
        return self.memory * np.float32([-1 if self.is_open and self.memory[0] == 4 else 1, 1])


class RareNaNReward(CombinationLock):
    def reward(self, action):
        return np.nan if self.is_open else super().reward(action)


class RareSharedState(CombinationLock):
    """All instances share the number of opened locks, an attribute of the class."""

    opened: ClassVar[list[int]] = []

    def reset(self, *, seed=None, options=None):
        self.opened.clear()
        return super().reset(seed=seed, options=options)

    def reward(self, action):
        self.opened.extend([1] * self.is_open)
        return super().reward(action) + len(self.opened)


class RareCarriedOverState(CombinationLock):
    """An open lock stays in the rewards of all later tasks."""

    def __init__(self):
        super().__init__()
        self.opened_in = set()

    def reward(self, action):
        if self.is_open:
            self.opened_in.add(self.task)
        return super().reward(action) + len(self.opened_in - {self.task})


class RareTaskChange(CombinationLock):
    """An open lock changes the task."""

    def reward(self, action):
        reward = super().reward(action)
        if self.is_open and self.memory[0] == 4:
            self.task = 7 - self.task
        return reward


@dataclass(frozen=True, kw_only=True)
class ValidFamily(TaskFamily):
    """`Lever` as a task family; the state is [L, 2]: steps and noise of the episode."""

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

    def reset(self, task, noise):
        return torch.stack([torch.zeros(len(task)), noise.uniform()], 1)

    def observe(self, task, state):
        return state.clone()

    def step(self, task, state, action, noise):
        reward = (action == task) + 0.1 * noise.uniform()
        return state + torch.tensor([1.0, 0.0]), reward, torch.zeros(len(task), dtype=torch.bool)


class ModifiesState(ValidFamily):
    """Halves the noise of the episode in place."""

    def step(self, task, state, action, noise):
        after, reward, terminated = super().step(task, state.clone(), action, noise)
        state[:, 1] *= 0.5
        after[:, 1] = state[:, 1]
        return after, reward, terminated


class CountsCalls(ValidFamily):
    """Rewards depend on how often step was called."""

    calls: ClassVar[list[int]] = []

    def step(self, task, state, action, noise):
        after, reward, terminated = super().step(task, state, action, noise)
        self.calls.append(1)
        return after, reward + 1e-3 * len(self.calls), terminated


class CountsResets(ValidFamily):
    """Rewards depend on how often reset was called."""

    calls: ClassVar[list[int]] = []

    def reset(self, task, noise):
        self.calls.append(1)
        return super().reset(task, noise)

    def step(self, task, state, action, noise):
        after, reward, terminated = super().step(task, state, action, noise)
        return after, reward + 1e-3 * len(self.calls), terminated


class MixesLanes(ValidFamily):
    """The mean reward of all lanes is subtracted."""

    def step(self, task, state, action, noise):
        after, reward, terminated = super().step(task, state, action, noise)
        return after, reward - 0.1 * reward.mean(), terminated


class SharesNoise(ValidFamily):
    """All lanes use the noise of the first lane."""

    def step(self, task, state, action, noise):
        after, reward, terminated = super().step(task, state, action, noise)
        return after, reward + noise.uniform()[0], terminated


class ConditionalDraw(ValidFamily):
    """The actions of all lanes decide whether there is another draw, which shifts the later one."""

    def step(self, task, state, action, noise):
        if int(action.sum()) % 2:
            noise.uniform()
        return super().step(task, state, action, noise)


class ModifiesNoise(ValidFamily):
    """Scales the drawn numbers in place."""

    def step(self, task, state, action, noise):
        after, reward, terminated = super().step(task, state, action, noise)
        return after, reward + noise.uniform().mul_(0.1), terminated


class TerminatesEarly(ValidFamily):
    """Declares episodes of fixed length, which half of the rewards end."""

    fixed_length: ClassVar[bool] = True

    def step(self, task, state, action, noise):
        after, reward, _ = super().step(task, state, action, noise)
        return after, reward, reward > 0.05


class FamilyObservationView(ValidFamily):
    def observe(self, task, state):
        return state


class DoubleReward(ValidFamily):
    def step(self, task, state, action, noise):
        after, reward, terminated = super().step(task, state, action, noise)
        return after, reward.double(), terminated


class FamilyGlobalNoise(ValidFamily):
    """Later in the episode, noise comes from torch's global generator."""

    def step(self, task, state, action, noise):
        after, reward, terminated = super().step(task, state, action, noise)
        return after, reward + torch.rand(len(task)) * (after[:, 0] > 2), terminated


class FamilyIgnoresTask(ValidFamily):
    def step(self, task, state, action, noise):
        return super().step(torch.zeros_like(task), state, action, noise)


class FamilyShowsTask(ValidFamily):
    def observe(self, task, state):
        return state + torch.stack([torch.zeros(len(task)), task.float()], 1)


class _FamilyShows(ValidFamily):
    """What `shown` returns is in the observation from the first step on."""

    @property
    def observation_space(self):
        return spaces.Box(-100, np.inf, (3,), np.float32)

    def shown(self, task, state):
        return task.float()

    def observe(self, task, state):
        shown = self.shown(task, state) * (state[:, 0] > 0)
        return torch.cat((state, shown[:, None].float()), 1)


class FamilyShowsTaskLater(_FamilyShows):
    pass


class FamilyShowsTaskInOtherUnits(_FamilyShows):
    def shown(self, task, state):
        return 3.5 - task / 7


class FamilyShowsPartOfTheTask(_FamilyShows):
    def shown(self, task, state):
        return (task > 5).float()


class FamilyShowsTaskOnce(_FamilyShows):
    def shown(self, task, state):
        return task * (state[:, 0] == 3)


class FamilyOverlappingSplits(ValidFamily):
    def sample_tasks(self, num_tasks: int, generator, split="train") -> Tensor:
        return super().sample_tasks(num_tasks, generator)
