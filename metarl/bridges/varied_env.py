"""Task environments made of any Gymnasium environment by varying its parameters.

The source of the environment does not change. A task sets arguments of its constructor, attributes
of the environment, or parameters that a function of the user reads.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator

from metarl.bridges.env_block import close_env
from metarl.errors import ConfigError
from metarl.field_types import checks_arguments, require_known, suggestion
from metarl.new_tasks import reset_options

Range: TypeAlias = tuple[float, float]
"""lowest and highest value, drawn uniformly"""
Configure: TypeAlias = Callable[[Any, Mapping[str, float]], None]
"""called with the unwrapped environment and the parameters of the task by name"""


@checks_arguments(
    "task_id", "env_id", "arguments", "attributes", "others", "trial_episodes", "max_episode_steps"
)
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
    """Registers a task environment in which parameters of another environment vary.

    Args:
        task_id: the new id, `namespace/Name-v0`.
        env_id: the environment that varies, such as `CartPole-v1`.
        arguments: constructor arguments by name; a new task makes a new environment.
        attributes: attributes of the unwrapped environment by name; dots are allowed
            (`model.opt.timestep`).
        others: parameters that only `configure` reads.
        configure: a function or `'module:function'` that is called after the attributes are set,
            for example to compute quantities that depend on them.
        trial_episodes: default number of episodes of a trial.
        max_episode_steps: time limit; by default that of `env_id`.
        options: constructor arguments that do not vary.

    Raises:
        ConfigError: the id is taken by another variation, a range is invalid, or the environment
            has no such constructor argument.
        gymnasium.error.Error: there is no environment `env_id`.
    """
    variation = {
        "arguments": dict(arguments or {}),
        "attributes": dict(attributes or {}),
        "others": dict(others or {}),
        "configure": configure,
        "trial_episodes": trial_episodes,
    }
    _task_space(variation)
    _require_arguments(env_id, options)
    kwargs = {"variation": {"env_id": env_id, **variation}, **options}
    steps = max_episode_steps or gymnasium.spec(env_id).max_episode_steps
    if task_id in gymnasium.registry:
        known = gymnasium.registry[task_id]
        if known.kwargs == kwargs and known.max_episode_steps == steps:
            return  # as where a cell of a notebook runs twice
        raise ConfigError(f"The id {task_id!r} is already registered with Gymnasium.")
    gymnasium.register(
        task_id,
        entry_point="metarl.bridges.varied_env:VariedEnv",
        max_episode_steps=steps,
        kwargs=kwargs,
    )


def _require_arguments(env_id: str, options: Mapping[str, Any]) -> None:
    """Raises `ConfigError` if a constructor argument that does not vary does not exist."""
    entry_point = gymnasium.spec(env_id).entry_point
    if not options or entry_point is None:
        return
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    parameters = inspect.signature(creator).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        require_known(env_id, options, list(parameters), ("arguments", "attributes", "others"))


class VariedEnv(gymnasium.Env[Any, Any]):
    """An environment whose task is the values of some of its parameters."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  (Gymnasium's)

    def __init__(
        self,
        variation: Mapping[str, Any],
        *,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Makes the environment; `register_varied_env` builds `variation`."""
        self._env_id, self._options = variation["env_id"], dict(options)
        if render_mode is not None:  # not every constructor takes it
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
        """The parameters of the current task."""
        return dict(self._task or {})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode, in `options["task"]` if given; the first reset draws a task if not."""
        super().reset(seed=seed)
        options = reset_options(options)
        task = options.pop("task", None)
        if task is None and self._task is None:
            self.task_space.seed(int(self.np_random.integers(2**31)))
            task = self.task_space.sample()
        if task is not None:
            before = self._env
            self._set_task({name: float(np.asarray(value).item()) for name, value in task.items()})
            if seed is None and self._env is not before:
                # Without a seed, the noise of a new environment would not be reproducible.
                seed = int(self.np_random.integers(2**31))
        return self._env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        return self._env.step(action)

    def render(self) -> Any:
        """Frame of the environment."""
        return self._env.render()

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _set_task(self, task: dict[str, float]) -> None:
        if self._arguments and task != self._task:
            close_env(self._env)
            self._env = self._make({name: task[name] for name in self._arguments})
        for name in self._attributes:
            owner, _, last = name.rpartition(".")
            setattr(_walk(self._env.unwrapped, owner), last, task[name])
        if self._configure is not None:
            self._configure(self._env.unwrapped, task)
        self._task = task

    def _make(self, arguments: Mapping[str, float]) -> gymnasium.Env[Any, Any]:
        try:
            # No inner time limit: the limit of the new id applies, and may be longer.
            return gymnasium.make(
                self._env_id,
                max_episode_steps=-1,
                disable_env_checker=True,
                **{**self._options, **arguments},
            )
        except TypeError as error:
            raise ConfigError(
                f"{self._env_id} cannot be made with {', '.join(self._arguments) or 'these'}: "
                f"{error}. `arguments` are passed to its constructor; what is only an attribute "
                "goes into `attributes`."
            ) from error

    def _require(self, name: str) -> None:
        """Raises `ConfigError` unless the environment has the attribute."""
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
    """The task space: one number for each varied name."""
    kinds = ("arguments", "attributes", "others")
    ranges = {name: ends for kind in kinds for name, ends in variation[kind].items()}
    if not ranges:
        raise ConfigError("Nothing varies: name constructor arguments, attributes, or others.")
    for name, given in ranges.items():
        if np.shape(given) != (2,) or not -np.inf < given[0] < given[1] < np.inf:
            raise ConfigError(
                f"{name}={given!r} must be a range (lowest, highest) of finite numbers."
            )
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
