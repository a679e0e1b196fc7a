"""Stable-baselines3's place: a family goes in, its vector environment comes out.

Axes: `L` lanes, `N` tasks, `B` copies of each, then features (`D` observation, `F` of a task).
NOTE: importing this module imports stable-baselines3, which takes seconds; the core does not.
"""

from typing import Any, Protocol

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl.bridges.task_env import sampled_tasks
from metarl.bridges.trial_env import TrialEnv, percept_space
from metarl.errors import ConfigError
from metarl.networks.action_heads import action_head
from metarl.registry import make_family
from metarl.seeding import Seeds
from metarl.tasks.batched_env import BatchedEnv, Transition, select_lanes
from metarl.tasks.family import (
    Split,
    TaskDistribution,
    TaskFamily,
    TensorEnv,
    as_tasks,
    draw_tasks,
)
from metarl.validation import require_positive

LANE_ATTRIBUTES = ("task", "task_space", "family", "observation_space", "action_space", "spec")
"""what `get_attr` knows of a lane, beside `render_mode`"""


def to_sb3_vec_env(
    task: str | TaskFamily,
    num_envs: int,
    *,
    trial: bool = False,
    episodes: int | None = None,
    tasks: Any = None,
    seed: int = 0,
    split: Split = "train",
    informed: bool = False,
    **options: Any,
) -> "FamilyVecEnv":
    """A family as a vector environment of stable-baselines3, stepped in batches.

        model = PPO("MlpPolicy", metarl.to_sb3_vec_env("metarl/PointNavigation-v0", 256))
        model = RecurrentPPO(
            "MlpLstmPolicy", metarl.to_sb3_vec_env("metarl/BernoulliBandit-v0", 64, trial=True)
        )  # RL^2, with sb3-contrib

    Every lane draws a new task wherever an episode opens (with `trial`, wherever a trial does), so
    that a model without memory learns what serves all tasks. With `tasks`, lanes stay in theirs.

    Args:
        task: id of a family, or a family.
        num_envs: L, lanes.
        trial: whole trials are episodes, and percepts observations: see
            `metarl.bridges.trial_env.TrialEnv`. A recurrent model then is RL^2.
        episodes: of a trial; by default what the family says.
        tasks: [N, ...] in which the lanes live for good; N divides L, and lane n * L/N + b is copy
            b of task n.
        seed: of tasks and noise, until `VecEnv.seed` or a model's `seed` says otherwise.
        split: that tasks are drawn from.
        informed: adds the task's parameters to the observation, one-hot where it is a number.
        options: fields of the family, where `task` is an id.

    Raises:
        UnknownNameError: nobody registered this id.
        ConfigError: an option is unknown, out of range, or contradicts another.
        TaskError: a task lies outside the family's task space.
    """
    require_positive("num_envs", num_envs)
    require_positive("episodes", episodes)
    if isinstance(task, TaskFamily) and options:
        raise ConfigError(
            f"{', '.join(options)} would be options of a family, but the family was given itself; "
            "build it with them."
        )
    family = task if isinstance(task, TaskFamily) else make_family(task, **options)
    if not isinstance(family, TaskFamily):
        raise ConfigError(
            f"{task} is an ordinary Gymnasium environment, not a batched family; "
            "stable-baselines3 steps it itself: make_vec_env(task, num_envs), with "
            "metarl.TrialWrapper as its wrapper_class for whole trials."
        )
    if episodes is not None and not trial:
        raise ConfigError(f"episodes={episodes} is the length of a trial; say trial=True as well.")
    lanes = None if tasks is None else _lanes(as_tasks(family, tasks), num_envs)
    length = (episodes or family.trial_episodes) if trial else None
    return FamilyVecEnv(family, num_envs, length, lanes, Seeds(seed), split, informed)


def _lanes(tasks: Tensor, num_envs: int) -> Tensor:
    """[N, ...] -> [L, ...], task by task."""
    copies, rest = divmod(num_envs, len(tasks))
    if rest:
        raise ConfigError(
            f"num_envs={num_envs} must be a multiple of the {len(tasks)} tasks given: each lives "
            "in as many lanes as every other."
        )
    return tasks.repeat_interleave(copies, 0)


class TaskedWorld(BatchedEnv, Protocol):
    """A world whose tasks can be exchanged; a lane is in its new one from its next reset on."""

    tasks: Tensor
    """[L, ...]"""


class FamilyVecEnv(VecEnv):
    """Lanes of a family with the conventions of stable-baselines3; `to_sb3_vec_env` makes one.

    Where an episode ends, the lane opens the next one in the same step, and its info holds
    `terminal_observation`, `TimeLimit.truncated` and, where the family defines success,
    `is_success`: whether the task counted as solved at any step. Infos of other lanes are the same
    dictionary at every step: read them, and copy what you want to write into. Statistics of
    episodes are `VecMonitor`'s to add.

    `seed(s)` holds from the next reset on; one stream of random numbers serves all lanes, so lane
    i is not what it would be alone. Equal seeds and actions are equal lives.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        episodes: int | None,
        tasks: Tensor | None,
        seeds: Seeds,
        split: Split,
        informed: bool,
    ) -> None:
        """Makes lanes of trials of `episodes`, or of plain episodes; tasks [L, ...] if fixed."""
        self.family = family
        self.num_envs = num_envs
        self._fixed, self._split = tasks is not None, split
        self._task_stream, self._world_stream = seeds.torch("tasks"), seeds.torch("world")
        drawn = draw_tasks(family, num_envs, self._task_stream, split) if tasks is None else tasks
        self._inner: TaskedWorld = TensorEnv(family, drawn, self._world_stream)
        self._world: BatchedEnv = self._inner
        space = family.observation_space
        if episodes is not None:
            self._world = TrialEnv(self._world, family.action_space, episodes)
            space = percept_space(space, action_head(family.action_space))
        if informed:
            self._world = _InformedWorld(self._world, self._inner, family)
            space = informed_space(space, family)
        discrete = isinstance(family.action_space, spaces.Discrete)
        self._action_type = torch.int64 if discrete else torch.float32
        self._actions: NDArray[Any] = np.zeros(0)
        self._solved = torch.zeros(num_envs, dtype=torch.bool)
        self._silent: list[dict[str, Any]] = [
            {"TimeLimit.truncated": False} for _ in range(num_envs)
        ]
        super().__init__(num_envs, space, family.action_space)

    def reset(self) -> NDArray[np.float32]:
        """Opens an episode in every lane, in new tasks unless they are fixed; [L, D]."""
        seed = self._seeds[0]
        if seed is not None:
            for purpose, stream in (("tasks", self._task_stream), ("world", self._world_stream)):
                stream.manual_seed(Seeds(seed).torch(purpose).initial_seed())
        self._reset_seeds()
        every = torch.ones(self.num_envs, dtype=torch.bool)
        self._draw(every)
        self._solved = ~every
        return _numpy(self._world.reset())

    def step_async(self, actions: NDArray[Any]) -> None:
        """Takes actions [L] or [L, A].

        Raises:
            InvalidAction: they have another shape.
        """
        expected = (self.num_envs, *(self.action_space.shape or ()))
        if np.shape(actions) != expected:
            raise InvalidAction(
                f"Actions must have shape {list(expected)}, {self.action_space} in each of "
                f"{self.num_envs} lanes; got {list(np.shape(actions))}."
            )
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """One step in every lane: observations [L, D], rewards [L], ends [L], infos."""
        last = self._world.step(torch.tensor(self._actions, dtype=self._action_type))
        ended = last.terminated | last.truncated
        self._solved = self._solved | last.success
        obs, infos = last.obs, self._silent.copy()
        if bool(ended.any()):
            self._tell(infos, last, ended)
            self._draw(ended)
            obs = select_lanes(ended, self._world.reset(ended), obs)
            self._solved = self._solved & ~ended
        # A copy, because learners add to rewards in place, which a family may have kept.
        return _numpy(obs), _numpy(last.reward).copy(), _numpy(ended), infos

    def _tell(self, infos: list[dict[str, Any]], last: Transition, ended: Tensor) -> None:
        """Puts a dictionary of its own into `infos` for each lane that has ended."""
        final = _numpy(last.obs)
        truncated, solved = last.truncated.tolist(), self._solved.tolist()
        for lane in ended.nonzero().flatten().tolist():
            infos[lane] = {
                "TimeLimit.truncated": truncated[lane],
                "terminal_observation": final[lane],
            }
            if self.family.defines_success:
                infos[lane]["is_success"] = solved[lane]

    def _draw(self, lanes: Tensor) -> None:
        """New tasks in the marked lanes [L]."""
        if self._fixed:
            return
        tasks = self._inner.tasks.clone()
        tasks[lanes] = self.family.sample_tasks(int(lanes.sum()), self._task_stream, self._split)
        self._inner.tasks = tasks

    def close(self) -> None:
        """Nothing is held."""

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """There are none.

        Raises:
            ConfigError: some are given.
        """
        if options:
            raise ConfigError(
                f"A family's lanes have no reset options; got {options}. Give tasks where the "
                "environment is made: to_sb3_vec_env(..., tasks=...)."
            )

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Of each lane: its `task`, or what all have in common, such as the `family`."""
        lanes = list(self._get_indices(indices))
        if attr_name == "task":
            tasks = _numpy(self._inner.tasks)
            return [tasks[lane].copy() for lane in lanes]
        common = {
            "render_mode": None,
            "spec": None,
            "family": self.family,
            "task_space": self.family.task_space,
        }
        if attr_name in ("observation_space", "action_space"):
            common[attr_name] = getattr(self, attr_name)
        if attr_name not in common:
            raise AttributeError(
                f"A lane has no attribute {attr_name!r}; it has {', '.join(LANE_ATTRIBUTES)}."
            )
        return [common[attr_name] for _ in lanes]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Nothing of a lane can be set.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(
            f"{attr_name!r} of a lane cannot be set: lanes are one batch. Options and tasks are "
            "given where the environment is made, to to_sb3_vec_env."
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Of each lane `sample_task(np_random, split)`, as `gymnasium.make(id)` has it."""
        if method_name != "sample_task":
            raise AttributeError(f"A lane has no method {method_name!r}; it has sample_task.")
        return [
            self._sample_task(*method_args, **method_kwargs) for _ in self._get_indices(indices)
        ]

    def _sample_task(self, np_random: np.random.Generator, split: Split = "train") -> NDArray[Any]:
        (task,) = sampled_tasks(self.family, 1, np_random, split)
        return np.array(task)

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> list[bool]:
        """No lane is: there is nothing to wrap."""
        return [False for _ in self._get_indices(indices)]


class _InformedWorld:
    """A world whose observation ends with the parameters of the task."""

    def __init__(self, world: BatchedEnv, inner: TaskedWorld, family: TaskFamily) -> None:
        self._world, self._inner, self._space = world, inner, family.task_space

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        return self._informed(self._world.reset(lanes))

    def step(self, action: Tensor) -> Transition:
        last = self._world.step(action)
        return last._replace(obs=self._informed(last.obs))

    def _informed(self, obs: Tensor) -> Tensor:
        return torch.cat((obs, task_features(self._space, self._inner.tasks)), -1)


def task_features(space: spaces.Box | spaces.Discrete, tasks: Tensor) -> Tensor:
    """Tasks [N, ...] as vectors [N, F] float32: their numbers, one-hot where a task is one of n."""
    if isinstance(space, spaces.Discrete):
        return torch.nn.functional.one_hot(tasks - int(space.start), int(space.n)).float()
    return tasks.reshape(len(tasks), -1).float()


def informed_space(space: spaces.Box, family: TaskDistribution) -> spaces.Box:
    """Observations [D] with the task's features behind them, Box [D + F]."""
    task = spaces.utils.flatten_space(family.task_space)
    assert isinstance(task, spaces.Box)
    low, high = np.concatenate((space.low, task.low)), np.concatenate((space.high, task.high))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _numpy(value: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = value.numpy()
    return array
