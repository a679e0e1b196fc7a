"""Distributions of MDPs: tasks are drawn, and worlds opened to live in them.

Axes: `L` lanes (the environments stepped together), then features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.agent import Policy
from metarl.errors import ConfigError, TaskContractError, TaskError
from metarl.tasks.batched_env import BatchedEnv, State, Transition, select_lanes

Split: TypeAlias = Literal["train", "test"]
"""`train` is all that a learner ever sees; `test` is what its adaptation is measured on"""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A policy that needs no training; it may know the prior, or even the task itself."""

    role: Literal["floor", "baseline", "ceiling"]
    """`floor`: no learning at all; `ceiling`: nobody can do better; `baseline`: in between"""
    label: str
    """how a figure's legend calls it, such as 'exact Bayes optimum'"""
    build: Callable[[Tensor], Policy]
    """makes the policy for the tasks [N, ...] that it will live in, on their device"""
    by_default: bool = True
    """whether an evaluation lives it unless others are named; False for what few will want"""


class RenderFrame(NamedTuple):
    """Where one lane was, and what took it there. Tensors are on the CPU, and their lane axis is 1.

    A life is a sequence of these: one where each episode opens, then one after each step.
    """

    state: State  # after acting, or in which the episode opens
    action: Tensor | None  # [1] int64, or [1, A] float32; None where an episode opens
    reward: float  # for the action; 0 where an episode opens


class TaskDistribution(ABC):
    """MDPs that share their spaces, and the distribution that tasks are drawn from.

    Whatever the engine, the trainer and the evaluator ask of tasks. `TaskFamily` is the kind that
    is written in tensors, `EnvFamily` the kind that is a Gymnasium environment. Both are frozen
    dataclasses whose fields are the options.
    """

    @property
    @abstractmethod
    def observation_space(self) -> spaces.Box:
        """Observations of one lane."""

    @property
    @abstractmethod
    def action_space(self) -> spaces.Discrete | spaces.Box:
        """Actions of one lane."""

    @property
    @abstractmethod
    def task_space(self) -> spaces.Box | spaces.Discrete:
        """What the parameters of one task may be."""

    @property
    @abstractmethod
    def episode_steps(self) -> int:
        """Time limit: the environment steps after which an episode is truncated."""

    @property
    def trial_episodes(self) -> int:
        """Episodes that a trial lasts unless the user says otherwise."""
        return 1

    @abstractmethod
    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Draws tasks [N, ...] of a split, independently."""

    @property
    @abstractmethod
    def defines_success(self) -> bool:
        """Whether it can be said that a task is solved."""

    @property
    def can_render(self) -> bool:
        """Whether pictures can be made of what is lived."""
        return False

    def with_rendering(self) -> "TaskDistribution":
        """The same, in worlds that can be filmed."""
        return self

    @property
    def task_is_observable(self) -> bool:
        """Whether observations show the task, or a part of it, by design."""
        return False

    @property
    def splits_share_tasks(self) -> bool:
        """Whether test tasks are met in training by design, as where there are only two."""
        return False

    @property
    def max_lanes(self) -> int | None:
        """Lanes that an evaluation opens together, where many are costly."""
        return None

    @abstractmethod
    def open_env(
        self, tasks: Tensor, generator: Generator, workers: int | None = None
    ) -> BatchedEnv:
        """A world with one lane for each of `tasks` [L, ...], on the tasks' device.

        Args:
            tasks: parameters of the task of each lane.
            generator: source of all randomness.
            workers: processes that step the lanes, where the kind of world knows processes.
        """

    def expected_rewards(self, task: Tensor) -> Tensor | None:
        """Expected reward of every action, [L, A], where nothing but the task decides it.

        As in a bandit; None elsewhere. Only pictures ask for it: no agent is told.
        """
        return None

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Floors and ceilings of trials of so many episodes: by name, floor first."""
        return {}


class TaskFamily(TaskDistribution):
    """A distribution of MDPs written in tensors: every function moves all lanes at once.

    Subclasses are frozen dataclasses whose fields are the family's options, each with a
    default and a doc-string. All functions are pure: no hidden state, no Python loop over
    lanes, random numbers only from the generator given, tensors on that generator's device.
    """

    defines_success: ClassVar[bool] = False
    """whether `success` means something here"""
    can_render: ClassVar[bool] = False
    """whether `render` makes pictures"""

    @abstractmethod
    def reset(self, task: Tensor, generator: Generator) -> State:
        """State in which an episode opens, in each of the tasks [L, ...]."""

    @abstractmethod
    def observe(self, task: Tensor, state: State) -> Tensor:
        """What the agent sees, [L, D] float32. A fresh tensor: never a view of the state."""

    @abstractmethod
    def step(
        self, task: Tensor, state: State, action: Tensor, generator: Generator
    ) -> tuple[State, Tensor, Tensor]:
        """One transition.

        Args:
            task: [L, ...] parameters of each lane's task.
            state: state of each lane, not changed.
            action: [L] int64, or [L, A] float32; a Box action may lie outside the bounds.
            generator: source of all randomness, on the device of the tensors.

        Returns:
            The next state, reward [L] float32, terminated [L] bool.
        """

    def success(self, task: Tensor, state: State) -> Tensor:
        """Whether each lane has solved its task on arriving in `state`, [L] bool."""
        raise NotImplementedError(f"{type(self).__name__} does not define success.")

    def open_env(
        self, tasks: Tensor, generator: Generator, workers: int | None = None
    ) -> BatchedEnv:
        """A world of tensors; it knows no processes.

        Raises:
            ConfigError: workers are asked for.
        """
        if workers is not None:
            raise ConfigError(
                f"workers={workers} step ordinary Gymnasium environments; {type(self).__name__} "
                "moves all lanes with tensor operations. Leave the option out (and see "
                "`threads`)."
            )
        return TensorEnv(self, tasks, generator)

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """A picture [H, W, 3] of one lane in the last moment of `life`; announced by `draws`.

        The same size for all moments of a life, the same picture for the same arguments. It is
        made for people: it may show what agents are not told, such as the goal, and what was
        lived before, such as the way that was gone. `metarl.envs.drawing.canvas` has pens.

        Args:
            task: [1, ...] parameters of the lane's task, on the CPU.
            life: what the lane has lived in this task, over all its episodes, oldest first. Never
                empty; the oldest moments of a life of thousands may have been forgotten, so it
                need not begin where an episode opens.
        """
        raise NotImplementedError(f"{type(self).__name__} draws no pictures.")


class TensorEnv:
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


def draw_tasks(
    family: TaskDistribution, num_tasks: int, generator: Generator, split: Split
) -> Tensor:
    """Tasks [N, ...] of a split, proven to be what the family promises.

    Raises:
        TaskError: `sample_tasks` gave another number of tasks, or tasks outside `task_space`.
    """
    tasks = as_tasks(family, family.sample_tasks(num_tasks, generator, split), generator.device)
    if len(tasks) != num_tasks:
        raise TaskError(
            f"{type(family).__name__}.sample_tasks was asked for {num_tasks} tasks and gave "
            f"{len(tasks)}; its result must be [num_tasks, ...]."
        )
    return tasks


def as_tasks(family: TaskDistribution, value: Any, device: torch.device | str = "cpu") -> Tensor:
    """Tasks [N, ...] as a tensor, each proven to lie in the family's `task_space`.

    They are int64 where the space holds whole numbers only, else float32.

    Raises:
        TaskError: the shape is wrong or a task lies outside; the first offender is named.
    """
    space, name = family.task_space, type(family).__name__
    whole = bool(np.issubdtype(space.dtype, np.integer))
    dtype = torch.int64 if whole else torch.float32
    if isinstance(value, Tensor):
        tasks = value.detach().to(device, dtype)
        given_integers = not value.is_floating_point()
    else:
        try:
            array = np.array(value, order="C")  # torch takes neither reversed nor read-only arrays
        except ValueError:  # rows of different lengths
            array = np.array(None)
        if array.dtype == object or not np.issubdtype(array.dtype, np.number):
            raise TaskError(
                f"Tasks of {name} must be numbers in {space}, with a leading axis for the tasks; "
                f"got {value!r}."
            )
        given_integers = bool(np.issubdtype(array.dtype, np.integer))
        tasks = torch.as_tensor(array).to(device, dtype)
    shape = tuple(space.shape or ())
    if tasks.shape[1:] != shape or tasks.ndim != len(shape) + 1 or not len(tasks):
        raise TaskError(
            f"Tasks of {name} must have shape {['N', *shape]} with N >= 1 (one row of "
            f"{space} per task); got shape {list(tasks.shape)}."
        )
    if whole and not given_integers:
        raise TaskError(f"Tasks of {name} are whole numbers in {space}; got {value!r}.")
    if isinstance(space, spaces.Discrete):
        inside = (tasks >= int(space.start)) & (tasks < int(space.start) + int(space.n))
    else:
        low, high = (
            torch.as_tensor(b, dtype=dtype, device=device) for b in (space.low, space.high)
        )
        inside = (tasks >= low) & (tasks <= high)  # NaN is not
        inside = inside.reshape(len(tasks), -1).all(1)
    if not bool(inside.all()):
        row = int((~inside).nonzero()[0])
        raise TaskError(
            f"Task {row} of {len(tasks)} is {tasks[row].tolist()}, outside the task space "
            f"{space} of {name}; draw tasks with sample_tasks, or give values inside it."
        )
    return tasks
