"""The recurrent actor-critic: percepts go in, what action heads read and values come out.

Axes: `T` steps, `L` lanes, then features (`F` inputs, `H` features, `R` raw numbers, `A` action).
"""

from dataclasses import replace
from typing import Any

import torch
from gymnasium import Space, spaces
from torch import Generator, Tensor, nn

from metarl.errors import ConfigError
from metarl.networks.action_heads import ActionHead, action_head, append_constants
from metarl.networks.layers import RunningScale, ScaledValue, linear, mlp
from metarl.networks.memory import CORES, CoreState, MemoryName
from metarl.trajectory import Percept

HISTORY = 5
"""numbers of a percept beside the observation and the previous action: the reward and four flags"""


def percept_features(head: ActionHead, percept: Percept) -> Tensor:
    """All of a percept as one vector, [..., D + A + 5]; any leading axes.

    The observation, then what the previous step was: its action as the head encodes it (one-hot,
    or in units of the bounds), reward, terminated, truncated; then first of episode, first of
    trial. So Duan et al. 2016, arXiv:1611.02779, with a flag for each way in which an episode ends.
    """
    obs = percept.obs.to(torch.float32)
    action = head.encode(percept.previous_action)
    flags = torch.stack(
        (
            percept.previous_reward,
            percept.previous_terminated.to(obs.dtype),
            percept.previous_truncated.to(obs.dtype),
            percept.first_of_episode.to(obs.dtype),
            percept.first_of_trial.to(obs.dtype),
        ),
        -1,
    )
    # At the start of a trial there is no previous action, not "action 0".
    return torch.cat((obs, action * ~percept.first_of_trial.unsqueeze(-1), flags), -1)


class RecurrentActorCritic(nn.Module):
    """Embedding, memory core, policy and value heads; the value may have a network of its own.

    With the memory "none" each step is met as if it were the first: no memory, and no previous
    action, reward or flags either, since they would be a memory of one step.

    With `normalise_inputs`, observations and previous rewards are read in units of the running mean
    and deviation of all that `observe` was given.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        memory: MemoryName,
        hidden_size: int,
        separate_value: bool,
        normalise_inputs: bool,
        initial_std: float,
        generator: Generator,
    ) -> None:
        super().__init__()
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
            raise ConfigError(f"Observations must be a Box vector [D]; got {observation_space}.")
        self.head = action_head(action_space, initial_std=initial_std)
        self._sees_history = memory != "none"
        inputs = observation_space.shape[0]
        self.scale = RunningScale(inputs + 1) if normalise_inputs else None
        if self._sees_history:
            inputs += self.head.outputs + HISTORY
        self.trunk = _Trunk(inputs, hidden_size, memory, generator)
        self.value_trunk = (
            _Trunk(inputs, hidden_size, memory, generator) if separate_value else None
        )
        self.policy = mlp(
            [hidden_size, hidden_size, self.head.outputs], last_gain=0.01, generator=generator
        )
        self.constants = (
            nn.Parameter(self.head.initial_constants()) if self.head.constants else None
        )
        self.value = ScaledValue(hidden_size, hidden_size, generator=generator)

    def encode(self, percept: Percept) -> Tensor:
        """What the networks read, [..., F]; any leading axes."""
        if self.scale is not None:
            scaled = self.scale(_measured(percept))
            percept = replace(percept, obs=scaled[..., :-1], previous_reward=scaled[..., -1])
        if not self._sees_history:
            return percept.obs.to(torch.float32)
        return percept_features(self.head, percept)

    def observe(self, percept: Percept, valid: Tensor) -> None:
        """From now on inputs are scaled by what was seen where `valid` [...], too."""
        assert self.scale is not None
        self.scale.observe(_measured(percept)[valid])

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Whole trials [T, L, F] -> what the head reads [T, L, ...], scaled values [T, L]."""
        features = self.trunk.sequence(inputs)
        value_features = features if self.value_trunk is None else self.value_trunk.sequence(inputs)
        return self.decide(features), self.value(value_features)

    def decide(self, features: Tensor) -> Tensor:
        """Features of the memory, [..., H] -> what the head reads, [..., R]."""
        outputs: Tensor = self.policy(features)
        return outputs if self.constants is None else append_constants(outputs, self.constants)

    def values(self, inputs: Tensor) -> Tensor:
        """Whole trials [T, L, F] -> values in units of the rewards [T, L]."""
        trunk = self.trunk if self.value_trunk is None else self.value_trunk
        return self.value.unscaled(self.value(trunk.sequence(inputs)))


def _measured(percept: Percept) -> Tensor:
    """Observation and previous reward, [..., D + 1]."""
    obs = percept.obs.to(torch.float32)
    return torch.cat((obs, percept.previous_reward.to(obs.dtype).unsqueeze(-1)), -1)


class _Trunk(nn.Module):
    """Linear embedding, ReLU, memory core."""

    def __init__(
        self, inputs: int, hidden_size: int, memory: MemoryName, generator: Generator
    ) -> None:
        super().__init__()
        self.embedding = linear(inputs, hidden_size, gain=2**0.5, generator=generator)
        self.core = CORES[memory](hidden_size, hidden_size, generator=generator)

    def step(self, inputs: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        return self.core.step(torch.relu(self.embedding(inputs)), state)

    def sequence(self, inputs: Tensor) -> Tensor:
        return self.core.sequence(torch.relu(self.embedding(inputs)))
