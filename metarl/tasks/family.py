"""Task families: distributions of MDPs, from which tasks are sampled and environments opened.

Axes: `L` lanes (the environments stepped together), then features.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.agent import Reference as Reference
from metarl.agent import ShownTargets
from metarl.errors import ConfigError, TaskError
from metarl.field_types import require_types
from metarl.noise import LaneNoise
from metarl.split import Split as Split
from metarl.tasks.batched_env import BatchedEnv, State
from metarl.tasks.tensor_env import TensorEnv


class RenderFrame(NamedTuple):
    """One step of one lane, as renderings need it. Tensors are on the CPU, their lane axis is 1.

    A history is a sequence of these: one at the start of each episode, then one after each step.
    """

    state: State  # after acting, or at the start of the episode
    action: Tensor | None  # [1] int64, or [1, A] float32; None at the start of an episode
    reward: float  # for the action; 0 at the start of an episode


class TaskBounds(NamedTuple):
    """A space of tasks, in tensors."""

    space: spaces.Box | spaces.Discrete
    dtype: torch.dtype  # int64 where tasks are whole numbers, else float32
    lowest: Tensor
    highest: Tensor


class TaskDistribution(ABC):
    """MDPs that share their spaces, and the distribution that tasks are sampled from.

    This is all that engine, training and evaluation ask of tasks. `TaskFamily` is the kind that is
    written in tensors, `EnvFamily` the kind that is a Gymnasium environment. Both are frozen
    dataclasses whose fields are the options.

    Raises:
        ConfigError: an option is not of its annotated type.
    """

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Checks the types of the options, before the class itself reads them."""
        if is_dataclass(cls):
            require_types(cls, options)
        return super().__new__(cls)

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
        """Valid parameters of one task."""

    @cached_property  # Gymnasium takes longer to make a Box than some lanes to take a step
    def _task_bounds(self) -> TaskBounds:
        space = self.task_space
        dtype = torch.int64 if np.issubdtype(space.dtype, np.integer) else torch.float32
        if isinstance(space, spaces.Discrete):
            first = int(space.start)
            bounds = np.asarray(first), np.asarray(first + int(space.n) - 1)
        else:
            bounds = space.low, space.high
        return TaskBounds(space, dtype, *(torch.as_tensor(each, dtype=dtype) for each in bounds))

    @property
    def env_spaces(self) -> tuple[Space[Any], Space[Any]]:
        """Observations and actions of one environment that `gymnasium.make` makes.

        By default those of a lane; an environment that has others is flattened in its lane.
        """
        return self.observation_space, self.action_space

    @property
    @abstractmethod
    def episode_steps(self) -> int:
        """Time limit: the environment steps after which an episode is truncated."""

    @property
    def fixed_length(self) -> bool:
        """Whether every episode has exactly `episode_steps` steps; lets the engine run faster."""
        return False

    @property
    def trial_episodes(self) -> int:
        """Episodes of a trial by default."""
        return 1

    @abstractmethod
    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Samples tasks [N, ...] of a split, independently."""

    @property
    @abstractmethod
    def defines_success(self) -> bool:
        """Whether it is defined when a task counts as solved."""

    @property
    def can_render(self) -> bool:
        """Whether frames can be rendered."""
        return False

    def with_rendering(self) -> "TaskDistribution":
        """A copy of this distribution whose environments render frames."""
        return self

    @property
    def task_is_observable(self) -> bool:
        """Whether observations show the task, or a part of it, by design."""
        return False

    @property
    def splits_share_tasks(self) -> bool:
        """Whether test tasks also occur in training by design, as where there are only two."""
        return False

    @property
    def shown_targets(self) -> ShownTargets | None:
        """Where observations show the right action of the step before, as in supervised tasks."""
        return None

    @property
    def max_lanes(self) -> int | None:
        """Most lanes of one evaluation batch, where lanes are costly; None: no limit."""
        return None

    @abstractmethod
    def open_env(
        self,
        tasks: Tensor,
        noise: LaneNoise,
        workers: int | None = None,
        worker_timeout: float | None = None,
    ) -> BatchedEnv:
        """A batched environment with one lane for each of `tasks` [L, ...], on their device.

        Args:
            tasks: parameters of the task of each lane.
            noise: source of all randomness, of L lanes.
            workers: processes that step the lanes, for kinds of environments that support them.
            worker_timeout: seconds after which one that does not answer counts as hung.
        """

    def expected_rewards(self, task: Tensor) -> Tensor | None:
        """Expected reward of every action, [L, A], where the task alone decides it, as in bandits.

        None elsewhere. Only figures use it; agents never see it.
        """
        return None

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Floors and ceilings of trials of `episodes` episodes: by name, floor first."""
        return {}


class TaskFamily(TaskDistribution):
    """A distribution of MDPs written in tensors: every function handles all lanes at once.

    Subclasses are frozen dataclasses whose fields are the family's options, each with a default
    and a doc-string. All functions are pure: no hidden state, no Python loop over lanes, random
    numbers only from the noise given, tensors on its device.
    """

    defines_success: ClassVar[bool] = False
    """whether `success` is defined"""
    can_render: ClassVar[bool] = False
    """whether `render` is defined"""
    fixed_length: ClassVar[bool] = False
    """whether every episode has exactly `episode_steps` steps"""

    @abstractmethod
    def reset(self, task: Tensor, noise: LaneNoise) -> State:
        """State at the start of an episode, in each of the tasks [L, ...]."""

    @abstractmethod
    def observe(self, task: Tensor, state: State) -> Tensor:
        """The agent's observation, [L, D] float32. A new tensor: never a view of the state."""

    @abstractmethod
    def step(
        self, task: Tensor, state: State, action: Tensor, noise: LaneNoise
    ) -> tuple[State, Tensor, Tensor]:
        """One transition.

        Args:
            task: [L, ...] parameters of each lane's task.
            state: state of each lane, not changed.
            action: [L] int64, or [L, A] float32; a Box action may lie outside the bounds.
            noise: source of all randomness: `noise.uniform()` is [L], `noise.normal(3)` [L, 3].

        Returns:
            The next state, reward [L] float32, terminated [L] bool.
        """

    def success(self, task: Tensor, state: State) -> Tensor:
        """Whether each lane has solved its task on arriving in `state`, [L] bool."""
        raise NotImplementedError(f"{type(self).__name__} does not define success.")

    def open_env(
        self,
        tasks: Tensor,
        noise: LaneNoise,
        workers: int | None = None,
        worker_timeout: float | None = None,
    ) -> BatchedEnv:
        """A `TensorEnv`, in this process.

        Raises:
            ConfigError: workers are asked for.
        """
        require_no_workers(self, workers)
        return TensorEnv(self, tasks, noise)

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """A frame [H, W, 3] of one lane after the last step of `history`, if `can_render`.

        All frames of a history have one size, and equal arguments give equal frames. Frames are
        for people: they may show what agents do not see, such as the goal, and earlier steps, such
        as the path taken. `metarl.envs.drawing.canvas` has drawing functions.

        Args:
            task: [1, ...] parameters of the lane's task, on the CPU.
            history: the steps of the lane in this task, over all its episodes, oldest first. Never
                empty; after thousands of steps the oldest are dropped, so it need not begin at the
                start of an episode.
        """
        raise NotImplementedError(f"{type(self).__name__} does not render frames.")


def draw_tasks(
    family: TaskDistribution, num_tasks: int, generator: Generator, split: Split
) -> Tensor:
    """Samples tasks [N, ...] of a split and checks them against the contract of the family.

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
    """Tasks [N, ...] as a tensor, each checked to lie in the family's `task_space`.

    They are int64 where the space holds whole numbers only, else float32.

    Raises:
        TaskError: the shape is wrong or a task lies outside; the first offender is named.
    """
    (space, dtype, lowest, highest), name = family._task_bounds, type(family).__name__
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
    if dtype == torch.int64 and not given_integers:
        raise TaskError(f"Tasks of {name} are whole numbers in {space}; got {value!r}.")
    inside = (tasks >= lowest.to(device)) & (tasks <= highest.to(device))  # NaN is not
    if not bool(inside.all()):
        row = int((~inside.reshape(len(tasks), -1).all(1)).nonzero()[0])
        raise TaskError(
            f"Task {row} of {len(tasks)} is {tasks[row].tolist()}, outside the task space "
            f"{space} of {name}; draw tasks with sample_tasks, or give values inside it."
        )
    return tasks


def require_no_workers(family: TaskDistribution, workers: int | None) -> None:
    """Raises `ConfigError` where processes are asked for that a batched family cannot use."""
    if workers is not None and isinstance(family, TaskFamily):
        raise ConfigError(
            f"workers={workers} step ordinary Gymnasium environments; {type(family).__name__} "
            "steps all lanes with tensor operations. Leave the option out (and see `threads`)."
        )
