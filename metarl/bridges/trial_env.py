"""A world goes in, a world comes out whose episodes are trials and whose observations percepts.

Whatever learns one episode at a time with a memory, such as a recurrent agent of another library,
so becomes RL^2 (Duan et al. 2016, arXiv:1611.02779).

Axes: `L` lanes, then features (`D` observation, `A` encoded action); `E` episodes of a trial.
"""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Tensor

from metarl.networks.action_heads import ActionHead, action_head
from metarl.networks.actor_critic import HISTORY, percept_features
from metarl.tasks.batched_env import BatchedEnv, Transition, select_lanes
from metarl.trajectory import Percept
from metarl.validation import require_positive


class TrialEnv:
    """A world around a world: `episodes` of its episodes, in a row in one task, are one of ours.

    The observation, [L, D + A + 5], is everything that
    `metarl.networks.actor_critic.percept_features` says, and reads the same as the percepts of
    `metarl.collect` in the same life. Where an episode ends but not the trial, the
    next one opens within the same step: the observation is its first, with the last reward and
    flags; the terminal observation is dropped, because no action follows it. It is shown where
    the trial ends.

    A trial's end is `terminated`, never `truncated`, however its last episode ended: nothing that
    counts comes after it, and so agents value it as RL^2 does.
    """

    def __init__(self, world: BatchedEnv, action_space: Space[Any], episodes: int) -> None:
        """Wraps `world`, whose actions are of `action_space`.

        Raises:
            ConfigError: `episodes` is not positive, or actions are neither Discrete from 0 on nor
                a vector Box.
        """
        require_positive("episodes", episodes)
        self._world, self._episodes = world, episodes
        self._head = action_head(action_space)
        self._action = blank_action(action_space)
        self._finished = torch.zeros(0, dtype=torch.int64)
        self._percept: Percept | None = None

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Opens a new trial in the marked lanes; percepts of all lanes."""
        obs = self._world.reset(lanes)
        fresh = first_percept(obs, self._action)
        if lanes is None or self._percept is None:
            self._percept = fresh
            self._finished = torch.zeros(len(obs), dtype=torch.int64, device=obs.device)
        else:
            self._percept = _select(lanes, fresh, replace(self._percept, obs=obs))
            self._finished = self._finished.masked_fill(lanes, 0)
        return percept_features(self._head, self._percept)

    def step(self, action: Tensor) -> Transition:
        """One step in every lane; opens the next episode where one has ended within a trial."""
        last = self._world.step(action)
        ended = last.terminated | last.truncated
        self._finished = self._finished + ended
        over = self._finished >= self._episodes
        opening = ended & ~over
        obs = last.obs
        if bool(opening.any()):
            obs = select_lanes(opening, self._world.reset(opening), obs)
        never = torch.zeros_like(over)
        self._percept = Percept(
            obs=obs,
            previous_action=action,
            previous_reward=last.reward,
            previous_terminated=last.terminated,
            previous_truncated=last.truncated,
            first_of_episode=opening,
            first_of_trial=never,
        )
        features = percept_features(self._head, self._percept)
        return Transition(features, last.reward, over, never, last.success)


def blank_action(action_space: Space[Any]) -> Tensor:
    """What stands for the previous action where there is none: zeros, [] int64 or [A] float."""
    discrete = isinstance(action_space, spaces.Discrete)
    return torch.zeros(action_space.shape or (), dtype=torch.int64 if discrete else torch.float32)


def first_percept(obs: Tensor, blank: Tensor) -> Percept:
    """The percept that opens a trial, of observations [..., D] and a blank action [A] or []."""
    lead = obs.shape[:-1]
    yes = torch.ones(lead, dtype=torch.bool, device=obs.device)
    no = torch.zeros_like(yes)
    return Percept(
        obs=obs,
        previous_action=blank.to(obs.device).expand((*lead, *blank.shape)),
        previous_reward=torch.zeros(lead, device=obs.device),
        previous_terminated=no,
        previous_truncated=no,
        first_of_episode=yes,
        first_of_trial=yes,
    )


def percept_space(observation_space: spaces.Box, head: ActionHead) -> spaces.Box:
    """Where percepts as vectors lie, Box [D + A + 5]."""
    # An action as far out as can be is encoded as the bound of what can be encoded.
    top = np.ones(head.outputs)
    if head.constants:
        top = head.encode(torch.full((head.outputs,), torch.inf)).numpy()
    bottom = -top if head.constants else np.zeros(head.outputs)
    flags = np.ones(HISTORY - 1)
    low = np.concatenate((observation_space.low, bottom, [-np.inf], 0 * flags))
    high = np.concatenate((observation_space.high, top, [np.inf], flags))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _select(lanes: Tensor, chosen: Percept, other: Percept) -> Percept:
    """`chosen` where `lanes` [L] is True, else `other`."""
    names = [field.name for field in fields(Percept)]
    return Percept(
        **{name: select_lanes(lanes, getattr(chosen, name), getattr(other, name)) for name in names}
    )
