"""Vector environments of stable-baselines3 that step a task family in batches.

Axes: `L` lanes, `N` tasks, `B` lanes of each, then features (`D` observation, `F` of a task).
NOTE: importing this module imports stable-baselines3, which takes seconds; the core does not.
"""

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from metarl.bridges.numpy_lanes import sampled_tasks, to_numpy
from metarl.bridges.seeded_env import SeededEnv
from metarl.bridges.trial_env import TrialEnv, percept_space
from metarl.errors import ConfigError
from metarl.field_types import checks_arguments
from metarl.networks.action_heads import action_head
from metarl.registry import resolve_family
from metarl.seeding import Seeds
from metarl.tasks.batched_env import BatchedEnv, Transition, select_lanes
from metarl.tasks.family import (
    Split,
    TaskDistribution,
    TaskFamily,
    as_tasks,
    draw_tasks,
)
from metarl.tasks.rendering import RenderedEnv, rendering
from metarl.validation import require_positive

LANE_ATTRIBUTES = ("task", "task_space", "family", "observation_space", "action_space", "spec")
"""attributes of a lane that `get_attr` returns, in addition to `render_mode`"""


@checks_arguments("num_envs", "trial", "episodes", "seed", "informed", "render_mode")
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
    render_mode: str | None = None,
    **options: Any,
) -> "FamilyVecEnv":
    """A family as a vector environment of stable-baselines3, stepped in batches.

        model = PPO("MlpPolicy", metarl.to_sb3_vec_env("metarl/PointNavigation-v0", 256))
        model = RecurrentPPO(
            "MlpLstmPolicy", metarl.to_sb3_vec_env("metarl/BernoulliBandit-v0", 64, trial=True)
        )  # RL^2, with sb3-contrib

    Every lane draws a new task for each episode (with `trial`, for each trial), so that a model
    without memory learns one policy for all tasks. With `tasks`, the task of a lane is fixed.

    Args:
        task: id of a family, or a family.
        num_envs: L, lanes.
        trial: makes an episode of each trial, and an observation of each percept: see
            `metarl.bridges.trial_env.TrialEnv`. A recurrent model is then RL^2.
        episodes: number of episodes of a trial; by default that of the family.
        tasks: fixed tasks [N, ...] of the lanes; N divides L, and lane n * L/N + b is lane b of
            task n.
        seed: seed of tasks and noise, until `VecEnv.seed` or the `seed` of a model replaces it.
        split: split from which tasks are drawn.
        informed: appends the parameters of the task to the observation, a Discrete task one-hot.
        render_mode: "rgb_array" lets `render` and `VecVideoRecorder` film lane 0.
        options: fields of the family, where `task` is an id.

    Raises:
        UnknownNameError: the id is not registered.
        ConfigError: an option is unknown, out of range, or contradicts another.
        TaskError: a task lies outside the family's task space.
    """
    require_positive("num_envs", num_envs)
    require_positive("episodes", episodes)
    family = resolve_family(task, options)
    if not isinstance(family, TaskFamily):
        raise ConfigError(
            f"{task} is a Gymnasium environment, not a batched family; use make_vec_env(task, "
            "num_envs) of stable-baselines3, with wrapper_class=metarl.TrialWrapper for whole "
            "trials."
        )
    if episodes is not None and not trial:
        raise ConfigError(f"episodes={episodes} is the length of a trial; pass trial=True as well.")
    fixed = None if tasks is None else _lane_tasks(as_tasks(family, tasks), num_envs)
    length = (episodes or family.trial_episodes) if trial else None
    return FamilyVecEnv(family, num_envs, length, fixed, Seeds(seed), split, informed, render_mode)


def _lane_tasks(tasks: Tensor, num_envs: int) -> Tensor:
    """[N, ...] -> [L, ...]; lanes of a task are neighbours."""
    lanes_per_task, rest = divmod(num_envs, len(tasks))
    if rest:
        raise ConfigError(
            f"num_envs={num_envs} must be a multiple of the {len(tasks)} tasks given: every task "
            "gets the same number of lanes."
        )
    return tasks.repeat_interleave(lanes_per_task, 0)


class FamilyVecEnv(VecEnv):
    """Lanes of a family as a `VecEnv`; `to_sb3_vec_env` makes one.

    Where an episode ends, the lane starts the next one in the same step, and its info holds
    `terminal_observation`, `TimeLimit.truncated` and, if the family defines success, `is_success`:
    whether the task was solved at any step. The info of any other lane is the same dictionary
    object at every step: copy it before you change it. `VecMonitor` adds episode statistics.

    `seed(s)` takes effect at the next reset. Equal seeds and actions give equal transitions. The
    noise of a lane depends on no other lane, but all lanes draw their tasks from one stream.
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
        render_mode: str | None = None,
    ) -> None:
        """`episodes` is the length of a trial, or None; `tasks` [L, ...] are fixed, or None."""
        rendering(family, render_mode)
        self._wanted_render_mode = render_mode
        self.family = family
        self.num_envs = num_envs
        self._fixed, self._split = tasks is not None, split
        self._task_stream = seeds.torch("tasks")
        drawn = draw_tasks(family, num_envs, self._task_stream, split) if tasks is None else tasks
        self._task_env = SeededEnv(family, drawn, seeds.word("world"))
        self._rendered = RenderedEnv(self._task_env) if render_mode else None
        self._env: BatchedEnv = self._rendered or self._task_env
        space = family.observation_space
        if episodes is not None:
            self._env = TrialEnv(self._env, family.action_space, episodes)
            space = percept_space(space, action_head(family.action_space))
        if informed:
            self._env = _InformedEnv(self._env, self._task_env, family)
            space = informed_space(space, family)
        discrete = isinstance(family.action_space, spaces.Discrete)
        self._action_type = torch.int64 if discrete else torch.float32
        self._actions: NDArray[Any] = np.zeros(0)
        self._solved = torch.zeros(num_envs, dtype=torch.bool)
        self._running_infos: list[dict[str, Any]] = [
            {"TimeLimit.truncated": False} for _ in range(num_envs)
        ]
        super().__init__(num_envs, space, family.action_space)

    def reset(self) -> NDArray[np.float32]:
        """Starts an episode in every lane, in new tasks unless they are fixed; [L, D]."""
        if self._seeds[0] is not None:
            seeds = Seeds(self._seeds[0])
            self._task_stream = seeds.torch("tasks")
            self._task_env.seed(seeds.word("world"))
        self._reset_seeds()
        every = torch.ones(self.num_envs, dtype=torch.bool)
        if self._rendered is not None:
            self._rendered.forget()
        self._draw_tasks(every)
        self._solved = ~every
        return to_numpy(self._env.reset())

    def step_async(self, actions: NDArray[Any]) -> None:
        """Stores actions [L] or [L, A] for `step_wait`.

        Raises:
            InvalidAction: they have another shape.
        """
        expected = (self.num_envs, *(self.action_space.shape or ()))
        if np.shape(actions) != expected:
            raise InvalidAction(
                f"Actions must have shape {list(expected)}, {self.action_space} for each of "
                f"{self.num_envs} lanes; got {list(np.shape(actions))}."
            )
        self._actions = actions

    def step_wait(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        """One step in every lane: observations [L, D], rewards [L], ends [L], infos."""
        last = self._env.step(torch.tensor(self._actions, dtype=self._action_type))
        ended = last.terminated | last.truncated
        self._solved = self._solved | last.success
        obs, infos = last.next_obs, self._running_infos.copy()
        if bool(ended.any()):
            self._write_final_infos(infos, last, ended)
            self._draw_tasks(ended)
            obs = select_lanes(ended, self._env.reset(ended), obs)
            self._solved = self._solved & ~ended
        # A copy, because learners change rewards in place, and a family may keep the tensor.
        return to_numpy(obs), to_numpy(last.reward).copy(), to_numpy(ended), infos

    def _write_final_infos(
        self, infos: list[dict[str, Any]], last: Transition, ended: Tensor
    ) -> None:
        """Puts a new dictionary into `infos` for each lane whose episode has ended."""
        final = to_numpy(last.next_obs)
        truncated, solved = last.truncated.tolist(), self._solved.tolist()
        for lane in ended.nonzero().flatten().tolist():
            infos[lane] = {
                "TimeLimit.truncated": truncated[lane],
                "terminal_observation": final[lane],
            }
            if self.family.defines_success:
                infos[lane]["is_success"] = solved[lane]

    def _draw_tasks(self, lanes: Tensor) -> None:
        """Draws new tasks for the marked lanes [L], unless tasks are fixed."""
        if self._fixed:
            return
        tasks = self._task_env.tasks.clone()
        tasks[lanes] = self.family.sample_tasks(int(lanes.sum()), self._task_stream, self._split)
        self._task_env.tasks = tasks
        if self._rendered is not None and bool(lanes[0]):
            self._rendered.forget()

    def get_images(self) -> list[NDArray[np.uint8]]:
        """The frame [H, W, 3] of lane 0, alone: other lanes keep no history.

        Raises:
            ConfigError: the vector environment was made without a render mode.
        """
        if self._rendered is None:
            raise ConfigError(
                "This vector environment does not render: make it with "
                "to_sb3_vec_env(..., render_mode='rgb_array')."
            )
        return [self._rendered.frame()]

    def close(self) -> None:
        """Does nothing: there are no resources to release."""

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Accepts no options.

        Raises:
            ConfigError: options are given.
        """
        if options:
            raise ConfigError(
                f"Lanes of a family have no reset options; got {options}. Pass tasks to "
                "to_sb3_vec_env(..., tasks=...)."
            )

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of each lane: its `task`, or a shared one such as the `family`."""
        lanes = list(self._get_indices(indices))
        if attr_name == "task":
            tasks = to_numpy(self._task_env.tasks)
            return [tasks[lane].copy() for lane in lanes]
        shared = {
            "render_mode": self._wanted_render_mode,
            "spec": None,
            "family": self.family,
            "task_space": self.family.task_space,
        }
        if attr_name in ("observation_space", "action_space"):
            shared[attr_name] = getattr(self, attr_name)
        if attr_name not in shared:
            raise AttributeError(
                f"A lane has no attribute {attr_name!r}; it has {', '.join(LANE_ATTRIBUTES)}."
            )
        return [shared[attr_name] for _ in lanes]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(
            f"{attr_name!r} of a lane cannot be set, because all lanes are one batch. Pass options "
            "and tasks to to_sb3_vec_env."
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls `sample_task(np_random, split)`, the only method, once for each lane."""
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
        """False for each lane: a lane is no `gymnasium.Env` that could be wrapped."""
        return [False for _ in self._get_indices(indices)]


class _InformedEnv:
    """Appends the parameters of the task, taken from `task_env`, to the observations of `env`."""

    def __init__(self, env: BatchedEnv, task_env: SeededEnv, family: TaskFamily) -> None:
        self._env, self._task_env, self._space = env, task_env, family.task_space

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        return self._informed(self._env.reset(lanes))

    def step(self, action: Tensor) -> Transition:
        last = self._env.step(action)
        return last._replace(next_obs=self._informed(last.next_obs))

    def _informed(self, obs: Tensor) -> Tensor:
        return torch.cat((obs, task_features(self._space, self._task_env.tasks)), -1)


def task_features(space: spaces.Box | spaces.Discrete, tasks: Tensor) -> Tensor:
    """Tasks [N, ...] as vectors [N, F] float32; Discrete tasks are one-hot."""
    if isinstance(space, spaces.Discrete):
        return torch.nn.functional.one_hot(tasks - int(space.start), int(space.n)).float()
    return tasks.reshape(len(tasks), -1).float()


def informed_space(space: spaces.Box, family: TaskDistribution) -> spaces.Box:
    """Space of observations [D] followed by task features, Box [D + F]."""
    task = spaces.utils.flatten_space(family.task_space)
    assert isinstance(task, spaces.Box)
    low, high = np.concatenate((space.low, task.low)), np.concatenate((space.high, task.high))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
