"""A batched env whose episodes are trials and whose observations are percepts.

A recurrent agent of another library that is trained in it is RL^2 (Duan et al. 2016,
arXiv:1611.02779).

Axes: `L` lanes, then features (`D` observation, `A` encoded action).
"""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from metarl.networks.action_heads import ActionHead, action_head
from metarl.networks.actor_critic import percept_features
from metarl.networks.memory import NUM_REWARD_AND_FLAGS
from metarl.tasks.batched_env import BatchedEnv, Transition, select_lanes
from metarl.trajectory import Percept, blank_action, first_percept, next_percept
from metarl.validation import require_positive


class TrialEnv:
    """Wraps a batched env: one episode is a trial of `episodes` inner episodes in one task.

    The observation [L, D + A + 5] is `metarl.networks.actor_critic.percept_features` of the percept
    that `metarl.collect` gives a policy at the same step. Where an episode ends within a trial, the
    next one starts in the same step: the observation is its initial one, with the last reward and
    flags; the terminal observation is dropped, because no action follows it. The terminal
    observation of the last episode is returned.

    The end of a trial is `terminated`, never `truncated`, however its last episode ended: no reward
    follows it, so that values are those of RL^2.
    """

    def __init__(self, env: BatchedEnv, action_space: Space[Any], episodes: int) -> None:
        """Wraps `env`, whose actions are in `action_space`.

        Raises:
            ConfigError: `episodes` is not positive, or the action space is neither a Discrete
                that starts at 0 nor a vector Box.
        """
        require_positive("episodes", episodes)
        self._env, self._episodes = env, episodes
        self._head = action_head(action_space)
        self._action = blank_action(action_space)
        self._finished = torch.zeros(0, dtype=torch.int64)
        self._percept: Percept | None = None

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Starts a new trial in the marked lanes; returns the percepts of all lanes."""
        obs = self._env.reset(lanes)
        fresh = first_percept(obs, self._action)
        if lanes is None or self._percept is None:
            self._percept = fresh
            self._finished = torch.zeros(len(obs), dtype=torch.int64, device=obs.device)
        else:
            self._percept = _select(lanes, fresh, replace(self._percept, obs=obs))
            self._finished = self._finished.masked_fill(lanes, 0)
        return percept_features(self._head, self._percept)

    def step(self, action: Tensor) -> Transition:
        """One step in every lane; starts the next episode where one ended within a trial."""
        last = self._env.step(action)
        ended = last.terminated | last.truncated
        self._finished = self._finished + ended
        trial_end = self._finished >= self._episodes
        restarting = ended & ~trial_end
        obs = last.next_obs
        if bool(restarting.any()):
            obs = select_lanes(restarting, self._env.reset(restarting), obs)
        never = torch.zeros_like(trial_end)
        self._percept = next_percept(
            obs, action, last.reward, last.terminated, last.truncated, first=restarting
        )
        features = percept_features(self._head, self._percept)
        return Transition(features, last.reward, trial_end, never, last.success)


def percept_space(observation_space: spaces.Box, head: ActionHead) -> spaces.Box:
    """Space of percepts as vectors, Box [D + A + 5]."""
    # Encoding clips an infinite action to the bound of the encoded actions.
    top = np.ones(head.outputs)
    if head.constants:
        top = head.encode(torch.full((head.outputs,), torch.inf)).numpy()
    bottom = -top if head.constants else np.zeros(head.outputs)
    flags = np.ones(NUM_REWARD_AND_FLAGS - 1)
    low = np.concatenate((observation_space.low, bottom, [-np.inf], 0 * flags))
    high = np.concatenate((observation_space.high, top, [np.inf], flags))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _select(lanes: Tensor, chosen: Percept, other: Percept) -> Percept:
    """`chosen` where `lanes` [L] is True, else `other`."""
    names = [field.name for field in fields(Percept)]
    return Percept(
        **{name: select_lanes(lanes, getattr(chosen, name), getattr(other, name)) for name in names}
    )
