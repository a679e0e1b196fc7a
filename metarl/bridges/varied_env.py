"""Any Gymnasium environment becomes a task environment: ranges of its numbers go in.

The environment's source is not touched. What varies are arguments of its constructor, attributes
of the environment, or whatever a function of yours does with the numbers drawn.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.errors import ConfigError
from metarl.registry import suggestion

Range: TypeAlias = tuple[float, float]
"""lowest and highest value, drawn uniformly"""
Configure: TypeAlias = Callable[[Any, Mapping[str, float]], None]
"""is given the bare environment and the numbers of the task by name"""


def register_varied_env(
    task_id: str,
    env_id: str,
    *,
    arguments: Mapping[str, Range] | None = None,
    attributes: Mapping[str, Range] | None = None,
    others: Mapping[str, Range] | None = None,
    configure: Configure | str | None = None,
    trial_episodes: int | None = None,
    max_episode_steps: int | None = None,
    **options: Any,
) -> None:
    """Registers a task environment in which numbers of another environment vary.

    Args:
        task_id: the new id, `namespace/Name-v0`.
        env_id: the environment that varies, such as `CartPole-v1`.
        arguments: constructor arguments by name; the environment is made anew for each task.
        attributes: attributes of the bare environment by name, dots allowed (`model.opt.timestep`).
        others: numbers that nobody but `configure` reads.
        configure: what else shall follow from the numbers, as a function or `'module:function'`;
            called after the attributes were set, such as to compute what depends on them.
        trial_episodes: how many episodes a trial lasts unless the user says otherwise.
        max_episode_steps: time limit; by default that of `env_id`.
        options: constructor arguments that do not vary.

    Raises:
        ConfigError: the id is taken, or a range is none.
        gymnasium.error.Error: there is no environment `env_id`.
    """
    if task_id in gymnasium.registry:
        raise ConfigError(f"The id {task_id!r} is already registered with Gymnasium.")
    variation = {
        "arguments": dict(arguments or {}),
        "attributes": dict(attributes or {}),
        "others": dict(others or {}),
        "configure": configure,
        "trial_episodes": trial_episodes,
    }
    _task_space(variation)
    gymnasium.register(
        task_id,
        entry_point="metarl.bridges.varied_env:VariedEnv",
        max_episode_steps=max_episode_steps or gymnasium.spec(env_id).max_episode_steps,
        kwargs={"variation": {"env_id": env_id, **variation}, **options},
    )


class VariedEnv(gymnasium.Env[Any, Any]):
    """An environment whose task is a few of its numbers."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  (Gymnasium's)

    def __init__(
        self,
        variation: Mapping[str, Any],
        *,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Makes the environment; `register_varied_env` says what a variation holds."""
        self._env_id, self._options = variation["env_id"], dict(options)
        if render_mode is not None:  # not every constructor knows it
            self._options["render_mode"] = render_mode
        self._arguments, self._attributes = variation["arguments"], variation["attributes"]
        self._configure = _function(variation["configure"])
        self.trial_episodes = variation["trial_episodes"]
        self.task_space = _task_space(variation)
        self._task: dict[str, float] | None = None
        self._env = self._make({})
        self.render_mode = render_mode
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        for name in self._attributes:
            self._require(name)

    @property
    def task(self) -> dict[str, float]:
        """The numbers of the task that is being lived in."""
        return dict(self._task or {})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Opens an episode, in `options["task"]` if it is given; the first time one is drawn."""
        super().reset(seed=seed)
        options = dict(options or {})
        task = options.pop("task", None)
        if task is None and self._task is None:
            self.task_space.seed(int(self.np_random.integers(2**31)))
            task = self.task_space.sample()
        if task is not None:
            before = self._env
            self._live_in({name: float(np.asarray(value).item()) for name, value in task.items()})
            if seed is None and self._env is not before:
                # A new environment would start from the clock; its luck shall follow from ours.
                seed = int(self.np_random.integers(2**31))
        return self._env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        return self._env.step(action)

    def render(self) -> Any:
        """As the environment does."""
        return self._env.render()

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _live_in(self, task: dict[str, float]) -> None:
        if self._arguments and task != self._task:
            self._env.close()
            self._env = self._make({name: task[name] for name in self._arguments})
        for name in self._attributes:
            owner, _, last = name.rpartition(".")
            setattr(_walk(self._env.unwrapped, owner), last, task[name])
        if self._configure is not None:
            self._configure(self._env.unwrapped, task)
        self._task = task

    def _make(self, arguments: Mapping[str, float]) -> gymnasium.Env[Any, Any]:
        try:
            # Without its own time limit: ours is around us, and may be longer.
            return gymnasium.make(
                self._env_id,
                max_episode_steps=-1,
                disable_env_checker=True,
                **{**self._options, **arguments},
            )
        except TypeError as error:
            raise ConfigError(
                f"{self._env_id} cannot be made with {', '.join(self._arguments) or 'these'}: "
                f"{error}. `arguments` are those of its constructor; what is only an attribute "
                "goes into `attributes`."
            ) from error

    def _require(self, name: str) -> None:
        """Raises `ConfigError` unless there is such an attribute."""
        owner, _, last = name.rpartition(".")
        try:
            getattr(_walk(self._env.unwrapped, owner), last)
        except AttributeError as error:
            known = [known for known in vars(self._env.unwrapped) if not known.startswith("_")]
            raise ConfigError(
                f"{self._env_id} has no attribute {name!r}, so varying it would change nothing."
                f"{suggestion(name, known)} It has: {', '.join(sorted(known))}."
            ) from error


def _task_space(variation: Mapping[str, Any]) -> spaces.Dict:
    """One number for each name."""
    kinds = ("arguments", "attributes", "others")
    ranges = {name: ends for kind in kinds for name, ends in variation[kind].items()}
    if not ranges:
        raise ConfigError("Nothing varies: name constructor arguments, attributes, or others.")
    for name, given in ranges.items():
        if np.shape(given) != (2,) or not -np.inf < given[0] < given[1] < np.inf:
            raise ConfigError(f"{name}={given!r} must be a range (lowest, highest) of numbers.")
    return spaces.Dict(
        {name: spaces.Box(low, high, (), np.float64) for name, (low, high) in ranges.items()}
    )


def _function(configure: Configure | str | None) -> Configure | None:
    if not isinstance(configure, str):
        return configure
    module, _, name = configure.partition(":")
    function: Configure = getattr(importlib.import_module(module), name)
    return function


def _walk(start: Any, dotted: str) -> Any:
    return reduce(getattr, dotted.split(".") if dotted else [], start)
