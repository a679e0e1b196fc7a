"""A Gymnasium wrapper whose episodes are whole trials.

For single environments; `metarl.to_sb3_vec_env(..., trial=True)` steps many lanes in a batch.
"""

from copy import deepcopy
from types import NoneType
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from metarl.bridges.env_block import flat_observation, flat_space
from metarl.bridges.trial_env import percept_space
from metarl.errors import ConfigError
from metarl.field_types import require_instance
from metarl.networks.action_heads import action_head
from metarl.networks.actor_critic import percept_features
from metarl.new_tasks import reset_options
from metarl.seeding import Seeds
from metarl.split import Split
from metarl.trajectory import Percept, blank_action, first_percept, next_percept
from metarl.validation import require_positive

Infos = dict[str, Any]


class TrialWrapper(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Turns a trial, `episodes` consecutive episodes in one task, into one episode.

    The observation is the input of RL^2, as one vector of float32: the flattened observation;
    action (one-hot, or in units of the bounds), reward, terminated and truncated of the previous
    step; first of episode; first of trial. Where an episode ends within a trial, the next one
    starts in the same step. The end of the trial is `terminated`, however its last episode ended:
    no reward follows it.

    The environment must have a `task_space`, and set its task in `reset(options={"task": ...})`.
    A reset without a task draws a new one: by `sample_task(np_random, split)` if the environment
    has it, else by `task_space.sample()`. Either is seeded by `reset(seed=...)`. Other options of
    `reset` are passed on at the start of every episode of the trial.

    Source: Duan et al. 2016, arXiv:1611.02779.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        episodes: int | None = None,
        *,
        split: Split = "train",
    ) -> None:
        """Wraps `env`; `episodes` defaults to the `trial_episodes` of `env` or its family.

        Raises:
            ConfigError: there are no tasks, the number of episodes is not defined, the action space
                is neither a Discrete that starts at 0 nor a vector Box, or observations have no
                fixed size.
        """
        require_instance("env", env, gymnasium.Env, "a Gymnasium environment")
        numbers = (int, np.integer, NoneType)
        require_instance("episodes", episodes, numbers, "a whole number or None")
        require_instance("split", split, str, "'train' or 'test'")
        RecordConstructorArgs.__init__(self, episodes=episodes, split=split)
        gymnasium.Wrapper.__init__(self, env)
        self._samples = env.has_wrapper_attr("sample_task")
        if not (self._samples or env.has_wrapper_attr("task_space")):
            raise ConfigError(
                f"{env} has no tasks for a trial: it has neither `task_space` nor "
                "`sample_task(np_random, split)`."
            )
        self._episodes, self._split = _trial_episodes(env, episodes), split
        self._head = action_head(env.action_space)
        self._action = blank_action(env.action_space)
        flat = flat_space(env.observation_space)
        self.observation_space: spaces.Space[Any] = percept_space(flat, self._head)
        self._rng: np.random.Generator | None = None
        self._tasks: spaces.Space[Any] | None = None
        self._options: dict[str, Any] = {}
        self._finished = 0
        self._running = False

    @property
    def task_space(self) -> spaces.Space[Any]:
        """The task space of the environment."""
        space: spaces.Space[Any] = self.env.get_wrapper_attr("task_space")
        return space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Starts a trial, in `options["task"]` or in a new task."""
        if seed is not None or self._rng is None:
            self._seed(seed)
        options = reset_options(options)
        if options.get("task") is None:
            options["task"] = self._sample_task()
        self._finished, self._running = 0, True
        obs, info = self.env.reset(seed=seed, options=dict(options))
        # Later episodes get no task, because the environment keeps it.
        self._options = {name: options[name] for name in options if name != "task"}
        return self._vector(first_percept(self._flat(obs), self._action)), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], SupportsFloat, bool, bool, Infos]:
        """One step; the info is that of the environment.

        Raises:
            ResetNeeded: no trial is running.
        """
        if not self._running:
            raise ResetNeeded("No trial is running; call reset() before step().")
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = terminated or truncated
        self._finished += ended
        self._running = self._finished < self._episodes
        restarting = ended and self._running
        if restarting:
            obs, _ = self.env.reset(options=dict(self._options))
        percept = next_percept(
            self._flat(obs),
            torch.as_tensor(action, dtype=self._action.dtype),
            torch.tensor(float(reward)),
            torch.tensor(bool(terminated)),
            torch.tensor(bool(truncated)),
            first=torch.tensor(bool(restarting)),
        )
        return self._vector(percept), float(reward), not self._running, False, info

    def _seed(self, seed: int | None) -> None:
        # A separate stream, so that drawing tasks does not shift the environment noise.
        self._rng = np.random.default_rng() if seed is None else Seeds(seed).numpy("tasks")
        if not self._samples:
            self._tasks = deepcopy(self.task_space)  # seeds only the copy
            self._tasks.seed(int(self._rng.integers(2**31)))

    def _sample_task(self) -> Any:
        if self._tasks is not None:
            return self._tasks.sample()
        return self.env.get_wrapper_attr("sample_task")(self._rng, self._split)

    def _flat(self, obs: Any) -> torch.Tensor:
        return torch.as_tensor(flat_observation(self.env.observation_space, obs))

    def _vector(self, percept: Percept) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = percept_features(self._head, percept).numpy()
        return vector


def _trial_episodes(env: gymnasium.Env[Any, Any], episodes: int | None) -> int:
    """`episodes` if given, else `trial_episodes` of the environment or of its family."""
    require_positive("episodes", episodes)
    if episodes is not None:
        return episodes
    default = env.has_wrapper_attr("trial_episodes") and env.get_wrapper_attr("trial_episodes")
    if default:
        return int(default)
    if not env.has_wrapper_attr("family"):
        raise ConfigError(
            f"{env} does not define how many episodes a trial has; pass the number: "
            "TrialWrapper(env, episodes=3)."
        )
    return int(env.get_wrapper_attr("family").trial_episodes)
