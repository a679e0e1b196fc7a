"""A trained agent with the method `predict` of stable-baselines3.

Axes: `L` lanes, then features (`D` observation, `A` encoded action).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space, spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.agent import Memory, Policy
from metarl.bridges.env_block import flat_space
from metarl.bridges.lane_arrays import LaneArrays
from metarl.bridges.trial_env import percept_space
from metarl.deployment.acting import most_likely, require_finite
from metarl.errors import ShapeError
from metarl.field_types import checks_arguments
from metarl.networks.action_heads import action_head
from metarl.networks.actor_critic import percept_of_features
from metarl.noise import LaneNoise, lane_keys
from metarl.seeding import Seeds
from metarl.training.process import torch_threads
from metarl.training.torch_defaults import torch_defaults
from metarl.trajectory import blank_action, first_percept


class LaneState(NamedTuple):
    """What `predict` returns for one lane, and is given in the next call."""

    trial: int  # number of the lane's trial
    step: int  # steps taken in it
    memory: Memory  # of one lane


@dataclass(frozen=True, kw_only=True)
class SB3Predictor:
    """Predicts actions; keeps nothing between calls but what it returns as state.

    Each lane has a memory of its own, because trials end at different steps; so lanes are stepped
    one by one. Actions depend on the seed, the lane, its trial and its step alone.
    """

    policy: Policy
    label: str
    arrays: LaneArrays
    reads_percepts: bool
    """observations are those of trials, [L, D + A + 5]; else [L, D]"""
    horizon: int
    seeds: Seeds
    device: torch.device

    @torch_defaults()
    @checks_arguments("deterministic")
    def predict(
        self,
        observation: Any,
        state: Sequence[LaneState] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, list[LaneState]]:
        """Actions and the next state, as in stable-baselines3's models.

        Args:
            observation: [L, ...], or of one environment.
            state: as returned by the last call; None before the first.
            episode_start: [L] bool, where a trial begins.
            deterministic: the most likely action instead of a random one.

        Raises:
            ShapeError: observations are not those of trials (for an agent with a memory), or not
                those of the environments of training.
            PolicyUseError: this agent always draws its actions.
        """
        inputs = LaneArrays(self._input_space, self.arrays.action_space)
        num_envs = _num_envs(inputs.observation_space, observation)
        try:
            obs = inputs.observations(observation, num_envs).to(self.device)
        except ShapeError as error:
            raise self._misfit(error) from error
        require_finite("observation", obs)
        policy = most_likely(self.policy, self.label) if deterministic else self.policy
        states = self._states(num_envs or 1, state, episode_start)
        with torch.no_grad(), torch_threads(1):
            if self.reads_percepts:
                action, after = self._act_in_trials(policy, obs, states)
            else:
                action, after = self._act(policy, obs, states)
        return self.arrays.actions(action, num_envs), after

    @property
    def _input_space(self) -> Space[Any]:
        space = self.arrays.observation_space
        if not self.reads_percepts:
            return space
        return percept_space(flat_space(space), action_head(self.arrays.lane_action_space))

    def _misfit(self, error: ShapeError) -> ShapeError:
        if not self.reads_percepts:
            return error
        return ShapeError(
            f"{self.label} reads the previous action, reward and flags, which plain observations "
            "do not hold. Wrap the environment with metarl.TrialWrapper, or make it by "
            f"metarl.to_sb3_vec_env(..., trial=True). {error}"
        )

    def _states(
        self, lanes: int, state: Sequence[LaneState] | None, starts: NDArray[np.bool_] | None
    ) -> list[LaneState]:
        """The state of each lane, a new one where a trial begins."""
        if state is None:
            return [self._start(0) for _ in range(lanes)]
        if not isinstance(state, Sequence) or not all(isinstance(one, LaneState) for one in state):
            raise ShapeError(
                "The state is not one that predict() has returned. Pass what the last call "
                "returned, and None before the first step."
            )
        if len(state) != lanes:
            raise ShapeError(
                f"The state is of {len(state)} environments, the observation of {lanes}. Pass "
                "state=None before the first step."
            )
        begins = np.zeros(lanes, dtype=bool) if starts is None else np.asarray(starts).reshape(-1)
        return [
            self._start(one.trial + 1) if begin else one
            for one, begin in zip(state, begins, strict=True)
        ]

    def _start(self, trial: int) -> LaneState:
        return LaneState(trial, 0, self.policy.initial_memory(1, self.horizon))

    def _noise(self, lanes: int, state: LaneState) -> LaneNoise:
        """That of all lanes in a trial, at a step of it."""
        word = self.seeds.child("trial", state.trial).word("policy")
        return LaneNoise(lane_keys(word, lanes, device=self.device)).at(state.step)

    def _act(
        self, policy: Policy, obs: Tensor, states: list[LaneState]
    ) -> tuple[Tensor, list[LaneState]]:
        """All lanes at once: a policy that remembers nothing."""
        percept = first_percept(obs, blank_action(self.arrays.lane_action_space))
        step = states[0].step
        noise = self._noise(len(obs), LaneState(0, step, None))
        memory = policy.initial_memory(len(obs), self.horizon)  # it is that of every step
        action = policy.act(percept, memory, noise).action
        return action, [one._replace(step=step + 1) for one in states]

    def _act_in_trials(
        self, policy: Policy, obs: Tensor, states: list[LaneState]
    ) -> tuple[Tensor, list[LaneState]]:
        head = action_head(self.arrays.lane_action_space).to(self.device)
        actions, after = [], []
        for lane, state in enumerate(states):
            percept = percept_of_features(head, obs[lane : lane + 1])
            noise = LaneNoise(self._noise(len(states), state).keys[lane : lane + 1])
            output = policy.act(percept, state.memory, noise.at(state.step))
            actions.append(output.action)
            after.append(LaneState(state.trial, state.step + 1, output.memory))
        return torch.cat(actions), after


def _num_envs(space: Space[Any], observation: Any) -> int | None:
    """How many environments an observation is of; None where it has no axis for them."""
    try:
        if isinstance(space, spaces.Dict):
            name = next(iter(space.spaces))
            return _num_envs(space[name], observation[name])
        if isinstance(space, spaces.Tuple):
            return _num_envs(space[0], observation[0])
    except (KeyError, IndexError, TypeError):
        return None  # not in the space, which is reported where it is flattened
    return None if np.ndim(observation) <= len(space.shape or ()) else len(observation)
