"""Task families as Gymnasium environments, single and vector, with NumPy arrays.

Axes: `L` lanes, the environments of a vector environment, then features.
"""

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from metarl.bridges.numpy_lanes import NumpyLanes, sampled_tasks, to_numpy
from metarl.errors import ConfigError, ShapeError
from metarl.field_types import require_instance, shown
from metarl.new_tasks import NewTask, reset_options
from metarl.registry import build_family
from metarl.tasks.batched_env import Transition
from metarl.tasks.family import Split, TaskFamily
from metarl.tasks.rendering import RENDERING, refuse_rendering, rendering
from metarl.validation import require_positive

Infos = dict[str, Any]


class TaskEnv(gymnasium.Env[Any, Any]):
    """One lane of a task family.

    `reset(options={"task": ...})` sets the task, which persists over resets, seeded ones included,
    until another is given. As long as none is given, tasks are drawn from the train split:
    `new_task` says whether for every "episode", for every "trial" of the family's length, or once
    and "never" again. Equal seeds, tasks and actions give equal transitions. A frame may show the
    steps since the last seeded reset or new task.
    """

    metadata: dict[str, Any] = RENDERING
    _spec: EnvSpec | None = None

    def __init__(
        self,
        family: str | type[TaskFamily],
        render_mode: str | None = None,
        new_task: NewTask = "episode",
        **options: Any,
    ) -> None:
        """Builds the family, a class or `'module:Class'`, with its `options`."""
        self.family: TaskFamily = build_family(family, options)
        self.metadata, self.render_mode = rendering(self.family, render_mode), render_mode
        self.observation_space = self.family.observation_space
        self.action_space = self.family.action_space
        self.task_space = self.family.task_space
        rendered = render_mode is not None
        self._lanes = NumpyLanes(self.family, 1, new_task=new_task, rendered=rendered)
        self._running = False

    @property
    def spec(self) -> EnvSpec | None:
        """Gymnasium's specification, whose time limit is the family's with these options."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = spec
        if spec is not None and spec.max_episode_steps is None:
            self._spec = dataclasses.replace(spec, max_episode_steps=self.family.episode_steps)

    @property
    def task(self) -> NDArray[Any] | None:
        """Parameters of the current task; None before the first reset."""
        tasks = self._lanes.tasks
        return None if tasks is None else to_numpy(tasks[0]).copy()

    def sample_task(self, np_random: np.random.Generator, split: Split = "train") -> NDArray[Any]:
        """Draws a task for `options["task"]`; the current task does not change."""
        (task,) = sampled_tasks(self.family, 1, np_random, split)
        return np.array(task)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Starts an episode.

        Raises:
            TaskError: `options["task"]` lies outside the task space.
        """
        super().reset(seed=seed)
        task = reset_options(options).get("task")
        obs = self._lanes.reset(None if task is None else [task], self.np_random, seed is not None)
        self._running = True
        return to_numpy(obs[0]), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, Infos]:
        """One transition; the info holds `success` if the family defines it.

        Raises:
            ResetNeeded: no episode is running.
            InvalidAction: wrong shape, or not one of a discrete space.
        """
        if not self._running:
            raise ResetNeeded("No episode is running; call reset() before step().")
        last = self._lanes.step(np.asarray(action)[None])
        terminated, truncated = bool(last.terminated), bool(last.truncated)
        self._running = not (terminated or truncated)
        # An array of no axes, because readers of infos look for a dtype.
        info = {"success": np.array(bool(last.success))} if self.family.defines_success else {}
        return to_numpy(last.next_obs[0]), float(last.reward), terminated, truncated, info

    def render(self) -> NDArray[np.uint8] | None:
        """Current frame [H, W, 3]; None without a render mode."""
        return self._lanes.frame()


class TaskVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """`num_envs` lanes of a task family, one task each, stepped by tensor operations.

    `reset(options={"task": ...})` sets the tasks [L, ...], which persist over resets, automatic and
    seeded ones included, until others are given. As long as none are given, they are drawn from
    the train split: `new_task` says whether for every "episode", for every "trial" of the family's
    length, or once and "never" again. Equal seeds, tasks and actions give equal transitions, and
    neither the noise nor the drawn tasks of a lane depend on what happens in another.

    Autoreset: all three modes of Gymnasium, whose default, NEXT_STEP, is the default here: its
    vector wrappers expect it. It ignores the action after the end of an episode. "SameStep" loses
    no step; TorchRL and `metarl.load_policy` ask for it, or for "Disabled".
    """

    def __init__(
        self,
        num_envs: int,
        family: str | type[TaskFamily],
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        new_task: NewTask = "episode",
        **options: Any,
    ) -> None:
        """Builds the family, a class or `'module:Class'`, with its `options`.

        `max_episode_steps` is a time limit in addition to that of the family.
        """
        refuse_rendering(render_mode)
        require_instance("num_envs", num_envs, (int, np.integer), "a whole number")
        num_envs = int(num_envs)
        require_positive("num_envs", num_envs)
        require_positive("max_episode_steps", max_episode_steps)
        self.num_envs = num_envs
        self.family: TaskFamily = build_family(family, options)
        self.single_observation_space = self.family.observation_space
        self.single_action_space = self.family.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.task_space = self.family.task_space
        self._mode = _autoreset_mode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        self._limit = max_episode_steps
        self._lanes = NumpyLanes(self.family, num_envs, new_task=new_task)
        self._started = False
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64)
        self._ended = torch.zeros(num_envs, dtype=torch.bool)

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """As in Gymnasium's own vector environments."""
        return self._mode

    @property
    def task(self) -> NDArray[Any] | None:
        """Parameters [L, ...] of the current tasks; None before the first reset."""
        tasks = self._lanes.tasks
        return None if tasks is None else to_numpy(tasks).copy()

    def sample_task(self, np_random: np.random.Generator, split: Split = "train") -> NDArray[Any]:
        """Draws tasks [L, ...] for `options["task"]`; the current tasks do not change."""
        return sampled_tasks(self.family, self.num_envs, np_random, split)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Starts an episode in every lane, or in those that `options["reset_mask"]` [L] marks.

        With a mask, `options["task"]` is still [L, ...], but only marked lanes use their entry, and
        only they follow from `seed`.

        Raises:
            TaskError: `options["task"]` lies outside the task space, or is not one per lane.
            ShapeError: the mask is not [L] bool.
            ResetNeeded: the first reset has a mask that excludes lanes.
        """
        super().reset(seed=seed)
        options = reset_options(options)
        mask = self._mask(options.get("reset_mask"))
        every = bool(mask.all())
        if not (self._started or every):
            raise ResetNeeded("The first reset must start all lanes; call it without reset_mask.")
        some = None if every else mask
        obs = self._lanes.reset(options.get("task"), self.np_random, seed is not None, some)
        self._started = True
        self._elapsed = self._elapsed.masked_fill(mask, 0)
        self._ended = self._ended & ~mask
        return to_numpy(obs), {}

    def step(
        self, actions: Any
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], Infos]:
        """One transition in every lane; infos hold `success` if the family defines it.

        Raises:
            ResetNeeded: before the first reset; in mode DISABLED also if an episode has ended.
            InvalidAction: wrong shape, or not one of a discrete space.
        """
        self._require_running()
        restarting = self._ended  # non-empty only in mode NEXT_STEP; their action is ignored
        if bool(restarting.any()):  # a state after an end may have no next one
            self._lanes.rewind(restarting)
        last = self._limited(self._lanes.step(np.asarray(actions)), restarting)
        self._ended = last.terminated | last.truncated
        infos = self._success(last, ~restarting)
        obs = last.next_obs
        if self._mode is AutoresetMode.SAME_STEP:
            restarting, self._ended = self._ended, torch.zeros_like(self._ended)
            if bool(restarting.any()):
                infos = self._final_infos(last, restarting)
        if bool(restarting.any()):
            obs = torch.where(restarting[:, None], self._lanes.restart(restarting), obs)
            self._elapsed = self._elapsed.masked_fill(restarting, 0)
        reward = to_numpy(last.reward).astype(np.float64)
        return to_numpy(obs), reward, to_numpy(last.terminated), to_numpy(last.truncated), infos

    def _require_running(self) -> None:
        if not self._started:
            raise ResetNeeded("No episode is running; call reset() before step().")
        if self._mode is AutoresetMode.DISABLED and bool(self._ended.any()):
            raise ResetNeeded(
                f"The episodes of lanes {self._ended.nonzero().flatten().tolist()} have ended and "
                "autoreset is disabled; call reset(options={'reset_mask': terminated | truncated})."
            )

    def _limited(self, last: Transition, restarting: Tensor) -> Transition:
        """`last` with the user's time limit; reward and flags are zero in restarting lanes."""
        self._elapsed = self._elapsed + 1
        truncated = last.truncated
        if self._limit is not None:
            truncated = truncated | ((self._elapsed >= self._limit) & ~last.terminated)
        return last._replace(
            reward=last.reward.masked_fill(restarting, 0.0),
            terminated=last.terminated & ~restarting,
            truncated=truncated & ~restarting,
        )

    def _success(self, last: Transition, lanes: Tensor) -> Infos:
        """Infos in Gymnasium's format: values, and a mask of the lanes that have them."""
        if not self.family.defines_success or not bool(lanes.any()):
            return {}
        return {"success": to_numpy(last.success & lanes), "_success": to_numpy(lanes).copy()}

    def _final_infos(self, last: Transition, ended: Tensor) -> Infos:
        """Infos of SAME_STEP: final observation and info of ended lanes, success of the others."""
        mask = to_numpy(ended)
        terminal = to_numpy(last.next_obs)[mask]
        final_obs = np.full(self.num_envs, None, dtype=object)
        final_obs[mask] = np.fromiter(terminal, dtype=object, count=len(terminal))
        return {
            "final_obs": final_obs,
            "_final_obs": mask,
            "final_info": self._success(last, ended),
            "_final_info": mask.copy(),
            **self._success(last, ~ended),
        }

    def _mask(self, value: Any) -> Tensor:
        if value is None:
            return torch.ones(self.num_envs, dtype=torch.bool)
        mask = np.array(value)
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ShapeError(
                f"options['reset_mask'] must be [num_envs] = [{self.num_envs}] bool, True in lanes "
                f"to be reset; got {list(mask.shape)} {mask.dtype}."
            )
        return torch.as_tensor(mask)


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = ", ".join(each.value for each in AutoresetMode)
        raise ConfigError(f"autoreset_mode={shown(mode)} must be one of {known}.") from error
