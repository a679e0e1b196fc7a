"""One environment with tasks goes in, an environment comes out whose episode is a whole trial.

For `gymnasium.make` and anybody's environment; many lanes at once are `metarl.to_sb3_vec_env`.
"""

from copy import deepcopy
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from metarl.bridges.gym_pool import flat_space
from metarl.bridges.trial_env import blank_action, first_percept, percept_space
from metarl.errors import ConfigError
from metarl.networks.action_heads import action_head
from metarl.networks.actor_critic import percept_features
from metarl.seeding import Seeds
from metarl.tasks.family import Split
from metarl.trajectory import Percept
from metarl.validation import require_positive

Infos = dict[str, Any]


class TrialWrapper(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Makes one trial, so many episodes in a row in one task, one episode.

    The observation is what RL^2 is shown, as one vector of float32: the flattened observation; of
    the step before its action (one-hot, or in units of the bounds), reward, terminated and
    truncated; whether an episode opens; whether the trial opens. Where an episode ends within a
    trial the next one opens in the same step. The end of the trial is `terminated`, however its
    last episode ended: nothing that counts comes after it.

    The environment has a `task_space`, and `reset(options={"task": ...})` that puts it into a task.
    A trial whose reset is given no task draws a new one: by `sample_task(np_random, split)` where
    the environment has it, else by `task_space.sample()`. Either is seeded by `reset(seed=...)`.
    Other options of `reset` are passed on at the opening of every episode.

    Source: Duan et al. 2016, arXiv:1611.02779.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        episodes: int | None = None,
        *,
        split: Split = "train",
    ) -> None:
        """Wraps `env`; `episodes` of a trial may be left out where the environment says them.

        Raises:
            ConfigError: there are no tasks, nobody says how many episodes a trial has, or actions
                are neither Discrete from 0 on nor a vector Box, or observations have no fixed size.
        """
        RecordConstructorArgs.__init__(self, episodes=episodes, split=split)
        gymnasium.Wrapper.__init__(self, env)
        self._samples = env.has_wrapper_attr("sample_task")
        if not (self._samples or env.has_wrapper_attr("task_space")):
            raise ConfigError(
                f"{env} has no tasks to live a trial in: it has neither `task_space` nor "
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
        """What a task may be."""
        space: spaces.Space[Any] = self.env.get_wrapper_attr("task_space")
        return space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Opens a trial, in `options["task"]` or in a new task."""
        if seed is not None or self._rng is None:
            self._seed(seed)
        options = dict(options or {})
        if options.get("task") is None:
            options["task"] = self._drawn()
        self._finished, self._running = 0, True
        obs, info = self.env.reset(seed=seed, options=dict(options))
        self._options = {name: options[name] for name in options if name != "task"}  # which stays
        return self._shown(first_percept(self._flat(obs), self._action)), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], SupportsFloat, bool, bool, Infos]:
        """One step; the info is the environment's.

        Raises:
            ResetNeeded: no trial is open.
        """
        if not self._running:
            raise ResetNeeded("No trial is open; call reset() before step().")
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = terminated or truncated
        self._finished += ended
        self._running = self._finished < self._episodes
        opening = ended and self._running
        if opening:
            obs, _ = self.env.reset(options=dict(self._options))
        percept = Percept(
            obs=self._flat(obs),
            previous_action=torch.as_tensor(action, dtype=self._action.dtype),
            previous_reward=torch.tensor(float(reward)),
            previous_terminated=torch.tensor(bool(terminated)),
            previous_truncated=torch.tensor(bool(truncated)),
            first_of_episode=torch.tensor(bool(opening)),
            first_of_trial=torch.tensor(False),
        )
        return self._shown(percept), float(reward), not self._running, False, info

    def _seed(self, seed: int | None) -> None:
        # A stream of its own, so that drawing tasks does not shift the environment's noise.
        self._rng = np.random.default_rng() if seed is None else Seeds(seed).numpy("tasks")
        if not self._samples:
            self._tasks = deepcopy(self.task_space)  # the environment's own stays unseeded
            self._tasks.seed(int(self._rng.integers(2**31)))

    def _drawn(self) -> Any:
        if self._tasks is not None:
            return self._tasks.sample()
        return self.env.get_wrapper_attr("sample_task")(self._rng, self._split)

    def _flat(self, obs: Any) -> torch.Tensor:
        flat = spaces.utils.flatten(self.env.observation_space, obs)
        return torch.as_tensor(np.asarray(flat, dtype=np.float32))

    def _shown(self, percept: Percept) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = percept_features(self._head, percept).numpy()
        return vector


def _trial_episodes(env: gymnasium.Env[Any, Any], episodes: int | None) -> int:
    """As given, or as the environment's family says."""
    require_positive("episodes", episodes)
    if episodes is not None:
        return episodes
    said = env.has_wrapper_attr("trial_episodes") and env.get_wrapper_attr("trial_episodes")
    if said:
        return int(said)
    if not env.has_wrapper_attr("family"):
        raise ConfigError(
            f"{env} does not say how many episodes a trial has; say it: "
            "TrialWrapper(env, episodes=3)."
        )
    return int(env.get_wrapper_attr("family").trial_episodes)
