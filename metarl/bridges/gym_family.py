"""Ordinary Gymnasium environments as a task distribution: an id goes in, a family comes out.

The environment has a `task_space` and obeys `reset(options={"task": ...})`; nothing else is
required of it. What more it may say of itself:

    sample_task(np_random, split)   draws a task of a split; else `task_space.sample()` does
    trial_episodes                  how many episodes a trial lasts unless the user says otherwise
    episode_steps                   time limit, where the registered id sets none
    task_is_observable, splits_share_tasks   declarations, as in `TaskFamily`

Axes: `L` lanes, `N` tasks, `D` observation, `F` numbers that tell a task.
"""

import dataclasses
import functools
import inspect
import typing
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import docstring_parser
import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from torch import Generator, Tensor

from metarl.bridges.gym_env import EnvWorld, integers
from metarl.bridges.gym_pool import (
    SUCCESS_KEYS,
    LanePool,
    LaneSpaces,
    flat_space,
    plain_action_space,
)
from metarl.errors import ConfigError, TaskContractError
from metarl.networks.policies import UniformPolicy
from metarl.tasks.batched_env import BatchedEnv
from metarl.tasks.family import Reference, Split, TaskDistribution

DEFAULT_TRIAL_EPISODES = 2
"""one to explore, one to show what was learnt"""
LANES_AT_ONCE = 250
"""environments of an evaluation; part of what a seed means, since each batch draws its own"""
PICTURES = "rgb_array"
"""Gymnasium's name for pictures that are arrays"""
PLAIN = (bool, int, float, str)
"""types of constructor arguments that are options"""


@dataclass(frozen=True, kw_only=True)
class EnvFamily(TaskDistribution):
    """A registered Gymnasium environment; `env_family` makes the class for an id.

    Its fields are the constructor arguments of the environment that are plain values.
    """

    task_id: ClassVar[str]
    """as `gymnasium.make` takes it; with the module that registers it, if the user named one"""

    @functools.cached_property
    def _prototype(self) -> gymnasium.Env[Any, Any]:
        """An environment that is asked for its spaces and for tasks, and never trained in."""
        return self.make_env()

    @property
    def make_env(self) -> "_EnvMaker":
        """Makes a fresh environment with these options, at each call."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if vars(self).get("_seen"):
            options["render_mode"] = PICTURES
        return _EnvMaker(_spec(self.task_id), options)

    @property
    def observation_space(self) -> spaces.Box:
        """The observations, flattened to a vector."""
        return self._lane_spaces.observation

    @property
    def action_space(self) -> spaces.Discrete | spaces.Box:
        """The actions; Discrete ones count from 0."""
        return self._lane_spaces.action

    @functools.cached_property
    def _lane_spaces(self) -> LaneSpaces:
        env = self._prototype
        return LaneSpaces(flat_space(env.observation_space), plain_action_space(env.action_space))

    @functools.cached_property
    def own_task_space(self) -> spaces.Space[Any]:
        """The `task_space` of the environment itself."""
        space = _attribute(self._prototype, "task_space")
        if space is None:
            raise TaskContractError(
                f"{self.task_id} has no task_space, so there are no tasks to draw from. Give the "
                "environment a `task_space` and let reset(options={'task': ...}) set the task, or "
                "name what shall vary with metarl.register_varied_env."
            )
        if not isinstance(space, spaces.Space) or not space.is_np_flattenable:
            raise TaskContractError(
                f"The task_space of {self.task_id} must be a Gymnasium space of fixed size; got "
                f"{space!r}."
            )
        return space

    @functools.cached_property
    def task_space(self) -> spaces.Box | spaces.Discrete:
        """Discrete, or the vector [F] that Gymnasium's utilities flatten a task into."""
        space = self.own_task_space
        if isinstance(space, spaces.Discrete):
            return spaces.Discrete(int(space.n), start=int(space.start))
        return flat_space(space)

    @property
    def episode_steps(self) -> int:
        """`max_episode_steps` of the id, else `episode_steps` of the environment."""
        spec = self._prototype.spec
        limit = spec.max_episode_steps if spec else None
        limit = limit or _attribute(self._prototype, "episode_steps")
        if limit is None:
            raise TaskContractError(
                f"{self.task_id} has no time limit, and a trial must end some day: write "
                "gymnasium.register(..., max_episode_steps=...), or give the environment an "
                "attribute `episode_steps`."
            )
        return int(limit)

    @property
    def trial_episodes(self) -> int:
        """As the environment says."""
        return int(_attribute(self._prototype, "trial_episodes") or DEFAULT_TRIAL_EPISODES)

    @property
    def lanes_at_once(self) -> int:
        """An environment for each must be made."""
        return LANES_AT_ONCE

    @functools.cached_property
    def defines_success(self) -> bool:
        """Whether the info of a step tells `success` or `is_success`."""
        env = self.make_env()
        env.action_space.seed(0)
        (task,) = self.own_tasks(self.sample_tasks(1, Generator().manual_seed(0)))
        env.reset(seed=0, options={"task": task})
        *_, info = env.step(env.action_space.sample())
        env.close()
        return any(key in info for key in SUCCESS_KEYS)

    @property
    def task_is_observable(self) -> bool:
        """Whether the environment declares that observations show the task."""
        return bool(_attribute(self._prototype, "task_is_observable"))

    @property
    def splits_share_tasks(self) -> bool:
        """Whether the environment declares that test tasks are met in training."""
        return bool(_attribute(self._prototype, "splits_share_tasks"))

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Tasks [N, ...] drawn one by one by the environment's `sample_task`, or its space."""
        np_random = np.random.default_rng(integers(generator, 1)[0])
        space, sample = self.own_task_space, _attribute(self._prototype, "sample_task")
        if sample is None:
            space.seed(int(np_random.integers(2**31)))
        drawn = [sample(np_random, split) if sample else space.sample() for _ in range(num_tasks)]
        for task in drawn:
            if not space.contains(_cast(space, task)):
                raise TaskContractError(
                    f"sample_task of {self.task_id} gave {task!r}, which is not in its "
                    f"task_space {space}."
                )
        if isinstance(space, spaces.Discrete):
            return torch.tensor(drawn, dtype=torch.int64, device=generator.device)
        flat = np.stack([np.asarray(spaces.flatten(space, _cast(space, t))) for t in drawn])
        tasks = torch.as_tensor(flat.astype(np.float32), device=generator.device)
        for task, kept in zip(drawn, self.own_tasks(tasks), strict=True):
            if not _whole_numbers_equal(space, task, kept):
                raise TaskContractError(
                    f"The task {task!r} of {self.task_id} holds whole numbers that float32 cannot "
                    f"tell apart, and would become {kept!r}. Beyond 16,777,216 use Discrete as the "
                    "task_space, or make the numbers smaller."
                )
        return tasks

    def own_tasks(self, tasks: Tensor) -> list[Any]:
        """Tasks [N, ...] as the environment takes them."""
        space = self.own_task_space
        if isinstance(space, spaces.Discrete):
            return [space.dtype.type(task) for task in tasks.tolist()]
        return [
            _within(space, spaces.unflatten(space, row.astype(spaces.flatten_space(space).dtype)))
            for row in tasks.cpu().numpy()
        ]

    def open_env(
        self, tasks: Tensor, generator: Generator, workers: int | None = None
    ) -> BatchedEnv:
        """A world of environments, kept open for the next one that is as large.

        A family has one at a time: where another is opened, those before it step no more.

        Raises:
            ConfigError: workers is negative.
        """
        workers = workers or 0
        if workers < 0:
            raise ConfigError(f"workers={workers} must be 0 (step them in this process) or more.")
        pool: LanePool | None = vars(self).get("_pool")
        if pool is None or pool.closed or (pool.lanes, pool.workers) != (len(tasks), workers):
            self.close()
            pool = LanePool(self.make_env, self._lane_spaces, len(tasks), workers)
            # A cache: what is lived depends on tasks and seeds alone.
            vars(self).update(_pool=pool, _end_pool=weakref.finalize(self, pool.close))
        return EnvWorld(pool, self.own_tasks(tasks), generator)

    @property
    def can_render(self) -> bool:
        """Whether the environment can be rendered into an array."""
        return PICTURES in self._prototype.metadata.get("render_modes", ())

    def with_rendering(self) -> "EnvFamily":
        """The same, with environments that draw themselves."""
        copy = dataclasses.replace(self)
        vars(copy)["_seen"] = True
        return copy

    def close(self) -> None:
        """Ends the environments and workers that are kept open for the next world."""
        if vars(self).pop("_pool", None) is not None:
            vars(self).pop("_end_pool")()  # which then forgets the pool: it holds environments

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random actions, where they are bounded."""
        space = self.action_space
        if isinstance(space, spaces.Box) and not space.is_bounded():
            return {}
        return {
            "random": Reference(role="floor", label="random", build=lambda _: UniformPolicy(space))
        }


class _EnvMaker:
    """Makes one environment; a function that pickles, with all that a fresh process needs."""

    def __init__(self, spec: EnvSpec, options: Mapping[str, Any]):
        self._spec, self._options = spec, dict(options)

    def __call__(self) -> gymnasium.Env[Any, Any]:
        return gymnasium.make(self._spec, disable_env_checker=True, **self._options)


@functools.cache
def env_family(task_id: str) -> type[EnvFamily]:
    """The family class of a registered environment, with its constructor arguments as fields.

    Args:
        task_id: as `gymnasium.make` takes it; its module, if it names one, has been imported.
    """
    spec = _spec(task_id)
    entry_point = spec.entry_point
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    if creator is None:
        raise ConfigError(
            f"{task_id} has no entry_point, only one for vector environments; metarl steps single "
            "ones."
        )
    cls: type[EnvFamily] = dataclasses.make_dataclass(
        getattr(creator, "__name__", "Env"),
        _options(creator, spec),
        bases=(EnvFamily,),
        frozen=True,
        kw_only=True,
    )
    cls.task_id, cls.__module__ = task_id, creator.__module__
    cls.__doc__ = inspect.getdoc(creator) or f"{task_id}, a Gymnasium environment."
    return cls


def _spec(task_id: str) -> EnvSpec:
    return gymnasium.spec(task_id.rpartition(":")[2])


def _options(creator: Any, spec: EnvSpec) -> list[tuple[str, Any, Any]]:
    """Name, type and field of the constructor arguments that are plain values.

    What a docstring says of an argument is the field's `help`.
    """
    function = creator.__init__ if inspect.isclass(creator) else creator
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # names that only a type checker sees
        hints = {}
    said = docstring_parser.parse(f"{inspect.getdoc(function) or inspect.getdoc(creator)}").params
    texts = {one.arg_name: " ".join((one.description or "").split()) for one in said}
    found = []
    for name, parameter in inspect.signature(creator).parameters.items():
        default = spec.kwargs.get(name, parameter.default)
        named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if name == "render_mode" or not named or not isinstance(default, PLAIN):
            continue
        kind = hints.get(name)
        field = dataclasses.field(default=default, metadata={"help": texts.get(name, "")})
        found.append((name, kind if kind in PLAIN else type(default), field))
    return found


def _attribute(env: gymnasium.Env[Any, Any], name: str) -> Any:
    """What a wrapper or the environment itself says, else None."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else None


def _cast(space: spaces.Space[Any], task: Any) -> Any:
    """A number or list given for an array is taken for one."""
    if isinstance(space, spaces.Box):
        return np.asarray(task, dtype=space.dtype)
    if isinstance(space, spaces.Dict) and isinstance(task, Mapping):
        return {**task, **{n: _cast(space[n], task[n]) for n in space if n in task}}
    if isinstance(space, spaces.Tuple):
        return tuple(_cast(part, one) for part, one in zip(space.spaces, task, strict=False))
    return task


def _whole_numbers_equal(space: spaces.Space[Any], one: Any, two: Any) -> bool:
    """Whether two tasks agree in all integers; they may be seeds, which nothing may round."""
    if isinstance(space, spaces.Box):
        return not np.issubdtype(space.dtype, np.integer) or np.array_equal(one, two)
    if isinstance(space, spaces.Dict):
        return all(_whole_numbers_equal(space[name], one[name], two[name]) for name in space)
    if isinstance(space, spaces.Tuple):
        return all(map(_whole_numbers_equal, space.spaces, one, two))
    return True


def _within(space: spaces.Space[Any], task: Any) -> Any:
    """The task where float32 has rounded it over a bound of its space."""
    if isinstance(space, spaces.Box):
        return np.asarray(np.clip(task, space.low, space.high))  # of no axes it gives a number
    if isinstance(space, spaces.Dict):
        return {name: _within(part, task[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_within(part, one) for part, one in zip(space.spaces, task, strict=True))
    return task
