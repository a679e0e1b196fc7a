"""Registered Gymnasium environments as task families.

The environment must have a `task_space` and obey `reset(options={"task": ...})`. It may also have:

    sample_task(np_random, split)   draws a task of a split; default: `task_space.sample()`
    trial_episodes                  default number of episodes of a trial
    episode_steps                   time limit, if the registered id sets none
    task_is_observable, splits_share_tasks   declarations, as in `TaskFamily`
    references(episodes)            floors and ceilings, as in `TaskFamily`, besides random actions

Axes: `L` lanes, `N` tasks, `D` observation, `F` numbers of a flattened task.
"""

import dataclasses
import functools
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from torch import Generator, Tensor

from metarl.bridges.env_block import (
    SUCCESS_KEYS,
    LaneSpaces,
    close_env,
    flat_space,
    plain_action_space,
)
from metarl.bridges.env_options import env_options, env_spec
from metarl.bridges.gym_env import GymBatchedEnv
from metarl.bridges.gym_pool import LanePool
from metarl.bridges.workers import WORKER_TIMEOUT
from metarl.errors import ConfigError, TaskContractError
from metarl.field_types import NAME, option_name
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.options import plain_options
from metarl.tasks.batched_env import BatchedEnv
from metarl.tasks.family import Reference, Split, TaskDistribution

DEFAULT_TRIAL_EPISODES = 2
"""one episode to explore, and one to use what was learnt"""
MAX_LANES = 250
"""most lanes of an evaluation batch; changes no number"""
RGB_ARRAY = "rgb_array"
"""Gymnasium's render mode for frames as arrays"""


@dataclass(frozen=True, kw_only=True)
class EnvFamily(TaskDistribution):
    """A registered Gymnasium environment; `env_family` makes the class for an id.

    Its fields are the constructor arguments of the environment whose defaults are plain values,
    under names that no attribute of this class has.
    """

    task_id: ClassVar[str] = ""
    """id for `gymnasium.make`, with the module that registers it if the user named one"""

    @functools.cached_property
    def _prototype(self) -> gymnasium.Env[Any, Any]:
        """An environment that gives spaces and samples tasks; it is never stepped."""
        return self.make_env()

    @property
    def make_env(self) -> "_EnvMaker":
        """A function that makes a new environment with these options."""
        options = {
            option_name(field): getattr(self, field.name) for field in dataclasses.fields(self)
        }
        if vars(self).get("_rendered"):
            options["render_mode"] = RGB_ARRAY
        return _EnvMaker(env_spec(self.task_id), options)

    @property
    def observation_space(self) -> spaces.Box:
        """The observation space, flattened to a vector [D]."""
        return self._lane_spaces.observation

    @property
    def action_space(self) -> spaces.Discrete | spaces.Box:
        """The action space; a Discrete one starts at 0."""
        return self._lane_spaces.action

    @property
    def env_spaces(self) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        """Those of the environment, not flattened."""
        return self._prototype.observation_space, self._prototype.action_space

    @functools.cached_property
    def _lane_spaces(self) -> LaneSpaces:
        env = self._prototype
        return LaneSpaces(flat_space(env.observation_space), plain_action_space(env.action_space))

    @functools.cached_property
    def env_task_space(self) -> spaces.Space[Any]:
        """The `task_space` of the environment, not flattened."""
        space = _attribute(self._prototype, "task_space")
        if space is None:
            raise TaskContractError(
                f"{self.task_id} has no task_space, so there are no tasks to draw. Give the "
                "environment a `task_space` and let reset(options={'task': ...}) set the task, or "
                "name the parameters that vary with metarl.register_varied_env."
            )
        if not isinstance(space, spaces.Space) or not space.is_np_flattenable:
            raise TaskContractError(
                f"The task_space of {self.task_id} must be a Gymnasium space of fixed size; got "
                f"{space!r}."
            )
        return space

    @functools.cached_property
    def task_space(self) -> spaces.Box | spaces.Discrete:
        """A Discrete, or the vector [F] to which Gymnasium's utilities flatten a task."""
        space = self.env_task_space
        if isinstance(space, spaces.Discrete):
            return spaces.Discrete(int(space.n), start=int(space.start))
        return flat_space(space)

    @property
    def episode_steps(self) -> int:
        """`max_episode_steps` of the id, else `episode_steps` of the environment.

        Without both, a constructor argument `max_episode_steps` counts as the limit.
        """
        spec = self._prototype.spec
        limit = spec.max_episode_steps if spec else None
        limit = limit or _attribute(self._prototype, "episode_steps")
        limit = limit or plain_options(self).get("max_episode_steps")
        if limit is None:
            raise TaskContractError(
                f"{self.task_id} has no time limit, but every trial must end: write "
                "gymnasium.register(..., max_episode_steps=...), or give the environment an "
                "attribute `episode_steps`."
            )
        return int(limit)

    @property
    def trial_episodes(self) -> int:
        """`trial_episodes` of the environment, else 2."""
        return int(_attribute(self._prototype, "trial_episodes") or DEFAULT_TRIAL_EPISODES)

    @property
    def max_lanes(self) -> int:
        """250: each lane needs an environment object."""
        return MAX_LANES

    @functools.cached_property
    def defines_success(self) -> bool:
        """Whether the info of a step has `success` or `is_success`."""
        env = self.make_env()
        env.action_space.seed(0)
        (task,) = self.env_tasks(self.sample_tasks(1, Generator().manual_seed(0)))
        env.reset(seed=0, options={"task": task})
        *_, info = env.step(env.action_space.sample())
        close_env(env)
        return any(key in info for key in SUCCESS_KEYS)

    @property
    def task_is_observable(self) -> bool:
        """Whether the environment declares that observations show the task."""
        return bool(_attribute(self._prototype, "task_is_observable"))

    @property
    def splits_share_tasks(self) -> bool:
        """Whether the environment declares that the train split contains test tasks."""
        return bool(_attribute(self._prototype, "splits_share_tasks"))

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Tasks [N, ...], drawn one by one by the environment's `sample_task` or its space.

        Raises:
            TaskContractError: a task is not in the task space, or float32 would round its integers.
        """
        seed = torch.randint(2**31, (), generator=generator, device=generator.device)
        np_random = np.random.default_rng(int(seed))
        space, sample = self.env_task_space, _attribute(self._prototype, "sample_task")
        if sample is None:
            space.seed(int(np_random.integers(2**31)))
        drawn = [sample(np_random, split) if sample else space.sample() for _ in range(num_tasks)]
        for task in drawn:
            if not space.contains(_cast(space, task)):
                raise TaskContractError(
                    f"sample_task of {self.task_id} returned {task!r}, which is not in its "
                    f"task_space {space}."
                )
        if isinstance(space, spaces.Discrete):
            return torch.tensor(drawn, dtype=torch.int64, device=generator.device)
        flat = np.stack([np.asarray(spaces.flatten(space, _cast(space, t))) for t in drawn])
        tasks = torch.as_tensor(flat.astype(np.float32), device=generator.device)
        for task, kept in zip(drawn, self.env_tasks(tasks), strict=True):
            if not _integers_equal(space, task, kept):
                raise TaskContractError(
                    f"The task {task!r} of {self.task_id} holds integers that float32 cannot "
                    f"represent, and would become {kept!r}. Beyond 16,777,216 use Discrete as the "
                    "task_space, or smaller numbers."
                )
        return tasks

    def env_tasks(self, tasks: Tensor) -> list[Any]:
        """Tasks [N, ...] as members of the environment's task space."""
        space = self.env_task_space
        if isinstance(space, spaces.Discrete):
            return [space.dtype.type(task) for task in tasks.tolist()]
        return [
            _within(space, spaces.unflatten(space, row.astype(spaces.flatten_space(space).dtype)))
            for row in tasks.cpu().numpy()
        ]

    def open_env(
        self,
        tasks: Tensor,
        noise: LaneNoise,
        workers: int | None = None,
        worker_timeout: float | None = None,
    ) -> BatchedEnv:
        """A batched env of Gymnasium environments, which the next one of the same size reuses.

        A family has one at a time: opening another makes the earlier ones unusable.

        Raises:
            ConfigError: workers is negative.
        """
        workers = workers or 0
        if workers < 0:
            raise ConfigError(f"workers={workers} must be 0 (step in this process) or more.")
        pool: LanePool | None = vars(self).get("_pool")
        timeout = worker_timeout or WORKER_TIMEOUT
        wanted = (len(tasks), workers, timeout)
        if pool is None or pool.closed or (pool.lanes, pool.workers, pool.timeout) != wanted:
            self.close()
            pool = LanePool(self.make_env, self._lane_spaces, *wanted)
            # Only a cache: transitions depend on tasks and seeds alone.
            vars(self).update(_pool=pool, _end_pool=weakref.finalize(self, pool.close))
        return GymBatchedEnv(pool, self.env_tasks(tasks), noise)

    @property
    def can_render(self) -> bool:
        """Whether the environment can be rendered into an array."""
        return RGB_ARRAY in self._prototype.metadata.get("render_modes", ())

    def with_rendering(self) -> "EnvFamily":
        """A copy of this family whose environments render frames."""
        copy = dataclasses.replace(self)
        vars(copy)["_rendered"] = True
        return copy

    def close(self) -> None:
        """Closes the environments and workers that are kept open for reuse."""
        if vars(self).pop("_pool", None) is not None:
            # The called finalizer drops its reference to the pool, which holds environments.
            vars(self).pop("_end_pool")()

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Uniformly random actions, if the action space is bounded; and those of the environment.

        Raises:
            TaskContractError: `references` of the environment gives something else.
        """
        space, own = self.action_space, _attribute(self._prototype, "references")
        found = {}
        if not isinstance(space, spaces.Box) or space.is_bounded():
            build = functools.partial(_uniform, space)
            found["random"] = Reference(role="floor", label="random", build=build)
        given = own(episodes) if own is not None else {}
        if not isinstance(given, Mapping) or not all(
            isinstance(one, Reference) for one in given.values()
        ):
            raise TaskContractError(
                f"references() of {self.task_id} must return metarl.Reference objects by name; got "
                f"{given!r}."
            )
        return {**found, **given}


def _uniform(space: spaces.Discrete | spaces.Box, tasks: Tensor) -> UniformPolicy:
    return UniformPolicy(space)


class _EnvMaker:
    """A picklable function that makes one environment, also in a new process."""

    def __init__(self, spec: EnvSpec, options: Mapping[str, Any]):
        self._spec, self._options = spec, dict(options)

    def __call__(self) -> gymnasium.Env[Any, Any]:
        # In the spec, not as keywords: some names are arguments of `gymnasium.make` as well.
        spec = dataclasses.replace(self._spec, kwargs={**self._spec.kwargs, **self._options})
        return gymnasium.make(spec, disable_env_checker=True)


_families: dict[str, tuple[EnvSpec, type[EnvFamily]]] = {}
"""classes made so far, by id; each is for one spec of Gymnasium's"""


def env_family(task_id: str) -> type[EnvFamily]:
    """The family class of a registered environment, with its constructor arguments as fields.

    Args:
        task_id: id for `gymnasium.make`; a module named in it must have been imported.
    """
    spec = env_spec(task_id)
    if task_id not in _families or _families[task_id][0] is not spec:  # registered again
        _families[task_id] = spec, _new_class(task_id)
    return _families[task_id][1]


def _new_class(task_id: str) -> type[EnvFamily]:
    options = env_options(task_id)
    fields = [_own_field(field) for field in dataclasses.fields(options)]
    cls: type[EnvFamily] = dataclasses.make_dataclass(
        options.__name__, fields, bases=(EnvFamily,), frozen=True, kw_only=True
    )
    cls.task_id, cls.__module__, cls.__doc__ = task_id, options.__module__, options.__doc__
    return cls


def _own_field(field: "dataclasses.Field[Any]") -> tuple[str, Any, Any]:
    """Name, type and field of an option; the name is changed if `EnvFamily` has it."""
    name, metadata = field.name, dict(field.metadata)
    while hasattr(EnvFamily, name) or name.startswith("_"):
        name = f"option_{name.strip('_')}"
    if name != field.name:
        metadata[NAME] = field.name
    return name, field.type, dataclasses.field(default=field.default, metadata=metadata)


def _attribute(env: gymnasium.Env[Any, Any], name: str) -> Any:
    """Attribute of a wrapper or of the environment, else None."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None


def _cast(space: spaces.Space[Any], task: Any) -> Any:
    """The task with numbers and lists converted to arrays where the space has arrays."""
    if isinstance(space, spaces.Box):
        return np.asarray(task, dtype=space.dtype)
    if isinstance(space, spaces.Dict) and isinstance(task, Mapping):
        return {**task, **{n: _cast(space[n], task[n]) for n in space if n in task}}
    if isinstance(space, spaces.Tuple):
        return tuple(_cast(part, one) for part, one in zip(space.spaces, task, strict=False))
    return task


def _integers_equal(space: spaces.Space[Any], one: Any, two: Any) -> bool:
    """Whether two tasks agree in all integers, which may be seeds and must not be rounded."""
    if isinstance(space, spaces.Box):
        return not np.issubdtype(space.dtype, np.integer) or np.array_equal(one, two)
    if isinstance(space, spaces.Dict):
        return all(_integers_equal(space[name], one[name], two[name]) for name in space)
    if isinstance(space, spaces.Tuple):
        return all(map(_integers_equal, space.spaces, one, two))
    return True


def _within(space: spaces.Space[Any], task: Any) -> Any:
    """The task clipped to the bounds of its space, which rounding to float32 may exceed."""
    if isinstance(space, spaces.Box):
        return np.asarray(np.clip(task, space.low, space.high))  # clip of shape [] gives a scalar
    if isinstance(space, spaces.Dict):
        return {name: _within(part, task[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_within(part, one) for part, one in zip(space.spaces, task, strict=True))
    return task
