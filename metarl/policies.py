"""Percepts in, actions and their log-probabilities out: action heads and recurrent policies.

Axes: `T` steps, `N` tasks, `B` copies, `L` = N x B lanes, then features (`A` action).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Generator, Tensor, nn

from metarl.agent import Decision, Memory
from metarl.errors import ConfigError
from metarl.networks import CORES, CoreName, CoreState, ScaledValue, linear, mlp
from metarl.trajectory import Percept


class ActionHead(nn.Module, ABC):
    """A distribution over actions, given what a network says. Shapes: any leading axes."""

    outputs: int
    """numbers the network has to give"""

    @abstractmethod
    def sample(self, raw: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """An action drawn, and its log-probability; no gradient."""

    @abstractmethod
    def evaluate(self, raw: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of `action`, and the entropy of the distribution."""

    @abstractmethod
    def encode(self, action: Tensor) -> Tensor:
        """The action as features of order one, [..., A]."""


class CategoricalHead(ActionHead):
    """Discrete actions; the network gives logits [..., A]."""

    def __init__(self, space: spaces.Discrete) -> None:
        super().__init__()
        if int(space.start) != 0:
            raise ConfigError(f"Discrete actions must start at 0; got {space}.")
        self.outputs = int(space.n)
        self.register_buffer("_identity", torch.eye(self.outputs), persistent=False)

    def sample(self, raw: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """By inverting the cumulative distribution: one uniform number per lane."""
        log_probs = self._log_probs(raw)
        cumulative = log_probs.exp().cumsum(0)
        uniform = torch.rand(raw.shape[:-1], generator=generator, device=raw.device)
        # Rounding (or NaN from a broken network) must not index past the last action.
        action = (cumulative < uniform).sum(0).clamp_max_(self.outputs - 1)
        return action, log_probs.gather(0, action.unsqueeze(0)).squeeze(0)

    def evaluate(self, raw: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the softmax at the action, and - sum p log p."""
        log_probs = self._log_probs(raw)
        entropy = -(log_probs.exp() * log_probs).sum(0)
        return log_probs.gather(0, action.unsqueeze(0)).squeeze(0), entropy

    @staticmethod
    def _log_probs(raw: Tensor) -> Tensor:
        """[..., A] -> [A, ...]: over few actions a CPU is ten times faster this way round."""
        return raw.movedim(-1, 0).contiguous().log_softmax(0)

    def encode(self, action: Tensor) -> Tensor:
        """One-hot."""
        identity: Tensor = self.get_buffer("_identity")
        return identity.index_select(0, action.flatten()).view(*action.shape, -1)


class GaussianHead(ActionHead):
    """Box actions; the network gives the mean in units of the bounds, the deviation is learnt.

    A bounded action is `centre + half_range * u`; densities are those of `u`. The action is not
    clipped here: that is the environment's to do, and the density stays exact.
    """

    log_std: Tensor

    def __init__(self, space: spaces.Box, *, initial_std: float = 1.0) -> None:
        super().__init__()
        if len(space.shape) != 1:
            raise ConfigError(f"Box actions must be vectors [A]; got shape {space.shape}.")
        self.outputs = int(space.shape[0])
        low, high = space.low.astype(np.float64), space.high.astype(np.float64)
        # Float's own limits stand for "no bound", and a range of zero has no unit.
        bounded = (high - low < np.finfo(np.float32).max) & (high > low)
        middle = np.where(bounded, low, 0.0) / 2 + np.where(bounded, high, 0.0) / 2
        centre = np.where(high > low, middle, low)
        scale = np.where(bounded, (np.where(bounded, high, 1) - np.where(bounded, low, -1)) / 2, 1)
        limit = np.where(bounded, 1.0, np.inf)
        for name, value in (("_centre", centre), ("_scale", scale), ("_limit", limit)):
            self.register_buffer(
                name, torch.as_tensor(value, dtype=torch.float32), persistent=False
            )
        self.log_std = nn.Parameter(torch.full((self.outputs,), math.log(initial_std)))

    def sample(self, raw: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Mean plus noise."""
        noise = torch.randn(raw.shape, generator=generator, device=raw.device)
        unit = raw + self.log_std.exp() * noise
        action = self.get_buffer("_centre") + self.get_buffer("_scale") * unit
        return action, self._density(noise)

    def evaluate(self, raw: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Density in units of the bounds; the entropy is the same everywhere."""
        unit = (action - self.get_buffer("_centre")) / self.get_buffer("_scale")
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        return self._density((unit - raw) * (-self.log_std).exp()), entropy.expand(raw.shape[:-1])

    def encode(self, action: Tensor) -> Tensor:
        """In units of the bounds, clipped to them as the environment does."""
        unit = (action - self.get_buffer("_centre")) / self.get_buffer("_scale")
        limit = self.get_buffer("_limit")
        return torch.clamp(unit, -limit, limit)

    def _density(self, standard: Tensor) -> Tensor:
        constant = self.log_std.sum() + 0.5 * math.log(2 * math.pi) * self.outputs
        return -0.5 * standard.square().sum(-1) - constant


def action_head(space: Space[Any], *, initial_std: float = 1.0) -> ActionHead:
    """The head that serves an action space.

    Raises:
        ConfigError: neither Discrete from 0 on nor a vector Box.
    """
    if isinstance(space, spaces.Discrete):
        return CategoricalHead(space)
    if isinstance(space, spaces.Box):
        return GaussianHead(space, initial_std=initial_std)
    raise ConfigError(
        f"No action head serves {space}; it must be Discrete (from 0 on) or a Box vector."
    )


class RecurrentActorCritic(nn.Module):
    """Embedding, memory core, policy and value heads; the value may have a network of its own.

    With the core "none" each step is met as if it were the first: no memory, and no previous
    action, reward or flags either, since they would be a memory of one step.
    """

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        core: CoreName,
        hidden: int,
        separate_value: bool,
        initial_std: float,
        generator: Generator,
    ) -> None:
        super().__init__()
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
            raise ConfigError(f"Observations must be a Box vector [D]; got {observation_space}.")
        self.head = action_head(action_space, initial_std=initial_std)
        self._sees_history = core != "none"
        inputs = observation_space.shape[0]
        if self._sees_history:
            inputs += self.head.outputs + 5
        self.trunk = _Trunk(inputs, hidden, core, generator)
        self.value_trunk = _Trunk(inputs, hidden, core, generator) if separate_value else None
        self.policy = mlp([hidden, hidden, self.head.outputs], last_gain=0.01, generator=generator)
        self.value = ScaledValue(hidden, hidden, generator=generator)

    def encode(self, percept: Percept) -> Tensor:
        """What the networks read, [..., F]; any leading axes."""
        obs = percept.obs.to(torch.float32)
        if not self._sees_history:
            return obs
        action = self.head.encode(percept.previous_action)
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

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Whole trials [T, L, F] -> what the head reads [T, L, ...], scaled values [T, L]."""
        features = self.trunk.sequence(inputs)
        value_features = features if self.value_trunk is None else self.value_trunk.sequence(inputs)
        return self.policy(features), self.value(value_features)

    def values(self, inputs: Tensor) -> Tensor:
        """Whole trials [T, L, F] -> values in units of the rewards [T, L]."""
        trunk = self.trunk if self.value_trunk is None else self.value_trunk
        return self.value.unscaled(self.value(trunk.sequence(inputs)))


class _Trunk(nn.Module):
    """Linear embedding, ReLU, memory core."""

    def __init__(self, inputs: int, hidden: int, core: CoreName, generator: Generator) -> None:
        super().__init__()
        self.embedding = linear(inputs, hidden, gain=2**0.5, generator=generator)
        self.core = CORES[core](hidden, hidden, generator=generator)

    def step(self, inputs: Tensor, state: CoreState) -> tuple[Tensor, CoreState]:
        return self.core.step(torch.relu(self.embedding(inputs)), state)

    def sequence(self, inputs: Tensor) -> Tensor:
        return self.core.sequence(torch.relu(self.embedding(inputs)))


@dataclass(frozen=True)
class RecurrentPolicy:
    """Acts with the memory of the whole trial."""

    network: RecurrentActorCritic

    def initial_memory(self, num_tasks: int, copies: int) -> Memory:
        """The core's initial state in every lane."""
        return self.network.trunk.core.initial_state(num_tasks * copies)

    def act(self, percept: Percept, memory: Memory, generator: Generator) -> Decision:
        """One step of the network."""
        inputs = self.network.encode(percept)
        features, memory = self.network.trunk.step(inputs.flatten(0, 1), memory)
        raw = self.network.policy(features).unflatten(0, inputs.shape[:2])
        action, log_prob = self.network.head.sample(raw, generator)
        return Decision(action, log_prob, memory)


@dataclass(frozen=True)
class UniformPolicy:
    """The floor: every action is as likely as every other, whatever happens."""

    action_space: spaces.Discrete | spaces.Box

    def __post_init__(self) -> None:
        space = self.action_space
        if isinstance(space, spaces.Box) and not space.is_bounded():
            raise ConfigError(f"Uniformly random actions need a bounded space; got {space}.")

    def initial_memory(self, num_tasks: int, copies: int) -> Memory:
        """None is needed."""
        return None

    def act(self, percept: Percept, memory: Memory, generator: Generator) -> Decision:
        """A uniform draw."""
        space, lanes, device = self.action_space, percept.first_of_trial.shape, percept.obs.device
        if isinstance(space, spaces.Discrete):
            low, count = int(space.start), int(space.n)
            action = torch.randint(low, low + count, lanes, generator=generator, device=device)
            return Decision(action, torch.full(lanes, -math.log(count), device=device), memory)
        low_bound, high_bound = (torch.as_tensor(b, device=device) for b in (space.low, space.high))
        uniform = torch.rand(*lanes, *space.shape, generator=generator, device=device)
        action = low_bound + (high_bound - low_bound) * uniform
        log_prob = -(high_bound - low_bound).log().sum()
        return Decision(action, log_prob.expand(lanes), memory)
