"""The recurrent actor-critic network: a memory, a policy head and a value head.

Axes: `T` steps, `L` lanes, then features (`F` inputs, `H` features, `R` parameters of an action
distribution, `A` action).
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from gymnasium import Space
from torch import Generator, Tensor, nn

from metarl.native.acting import Acting
from metarl.native.library import serves
from metarl.native.ppo import ActorCriticWeights
from metarl.networks.action_heads import (
    ActionHead,
    CategoricalHead,
    action_head,
    append_constants,
)
from metarl.networks.layers import MLP, RunningScale, ScaledValue, mlp
from metarl.networks.memory import (
    NUM_REWARD_AND_FLAGS,
    InputSizes,
    MemoryCore,
    MemoryOptions,
    MemoryState,
    PolicyInputs,
    encode_percept,
)
from metarl.networks.memory_check import require_memory_contract
from metarl.networks.recurrent import Embedded
from metarl.ranks import ALONE, Ranks
from metarl.trajectory import Percept
from metarl.validation import vector_size


def percept_features(head: ActionHead, percept: Percept) -> Tensor:
    """A whole percept as one vector, [..., D + A + 5]; any leading axes.

    The observation, then the previous step: its action as the head encodes it (one-hot, or in
    units of the bounds), reward, terminated, truncated; then first of episode, first of trial. As
    in Duan et al. 2016, arXiv:1611.02779, with a flag for each way in which an episode ends.
    """
    flags = (
        percept.previous_terminated,
        percept.previous_truncated,
        percept.first_of_episode,
        percept.first_of_trial,
    )
    action = head.encode(percept.previous_action)
    return encode_percept(percept.obs.to(torch.float32), action, percept.previous_reward, flags)


def percept_of_features(head: ActionHead, features: Tensor) -> Percept:
    """The percept whose `percept_features` are these [..., D + A + 5].

    An action outside its bounds comes out clipped, as it went in.
    """
    sizes = InputSizes(features.shape[-1] - head.outputs - NUM_REWARD_AND_FLAGS, head.outputs)
    parts = PolicyInputs(features, sizes)
    flags = (parts.flags > 0.5).unbind(-1)
    return Percept(
        obs=parts.observation,
        previous_action=head.decode(parts.previous_action),
        previous_reward=parts.previous_reward,
        previous_terminated=flags[0],
        previous_truncated=flags[1],
        first_of_episode=flags[2],
        first_of_trial=flags[3],
    )


Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The shape of an actor-critic network."""

    memory: MemoryOptions
    hidden_size: int
    separate_value: bool = False
    """the value has a memory of its own"""
    normalise_inputs: bool = False
    """observations and previous rewards are read in units of their running mean and deviation"""
    initial_std: float = 1.0
    """of Box actions, in units of half their range"""
    precision: Precision = "float32"
    """of the products of matrices on a GPU"""


class ActorCriticOutput(NamedTuple):
    """What the network computes for each step."""

    dist_params: Tensor  # [..., R] parameters of the action distribution
    value: Tensor  # [...] in the units of the value head
    features: Tensor  # [..., H] of the policy's memory


class ActorCritic(nn.Module):
    """Memory, policy head and value head."""

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        options: NetworkOptions,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.head = action_head(action_space, initial_std=options.initial_std)
        observation, hidden = vector_size(observation_space), options.hidden_size
        self.sizes = InputSizes(observation, self.head.outputs)
        self._precision = options.precision
        self.scale = RunningScale(observation + 1) if options.normalise_inputs else None
        self.trunk = options.memory.build(self.sizes, hidden, generator)
        require_memory_contract(self.trunk, self.sizes, hidden)
        self.value_trunk = None
        if options.separate_value:
            self.value_trunk = options.memory.build(self.sizes, hidden, generator)
        outputs = self.head.outputs
        self.policy = self.trunk.policy_head(outputs) or mlp(
            [hidden, hidden, outputs], last_gain=0.01, generator=generator
        )
        self.constants = (
            nn.Parameter(self.head.initial_constants()) if self.head.constants else None
        )
        self.value = ScaledValue(hidden, hidden, generator=generator)

    def encode(self, percept: Percept) -> Tensor:
        """Inputs of the memory, [..., F]; any leading axes."""
        if self.scale is not None:
            scaled = self.scale(_measured(percept))
            percept = replace(percept, obs=scaled[..., :-1], previous_reward=scaled[..., -1])
        return percept_features(self.head, percept)

    def observe(self, percept: Percept, valid: Tensor, ranks: Ranks = ALONE) -> None:
        """Updates the running scale of the inputs by all ranks' percepts where `valid`, [...]."""
        if self.scale is not None:
            self.scale.observe(_measured(percept)[valid], ranks)

    def forward(self, inputs: Tensor) -> ActorCriticOutput:
        """Whole trials from their start, encoded, [T, L, F]."""
        with self._arithmetic(inputs):
            features = self._features(self.trunk, inputs)
            if self.value_trunk is None:
                value = self.value(self.trunk.decision_features(features))
            else:
                value = self._value(self.value_trunk, inputs)
            dist_params = self.decide(features)
        return ActorCriticOutput(_full(dist_params), _full(value), _full(features))

    def dist_params(self, inputs: Tensor) -> Tensor:
        """The policy alone over whole trials [T, L, F]: action distributions [T, L, R]."""
        with self._arithmetic(inputs):
            return _full(self.decide(self._features(self.trunk, inputs)))

    def values(self, inputs: Tensor) -> Tensor:
        """Values of whole trials [T, L, F], in units of the rewards, [T, L]."""
        trunk = self.trunk if self.value_trunk is None else self.value_trunk
        with self._arithmetic(inputs):
            value = self._value(trunk, inputs)
        return self.value.unscaled(_full(value))

    @cached_property
    def plain_weights(self) -> ActorCriticWeights | None:
        """All weights, if the network is no more than an embedded GRU or LSTM and two perceptrons.

        Its actions are discrete then.
        """
        heads = (self.policy, self.value.layers)
        if (
            type(self.trunk) is not Embedded
            or self.trunk.recurrence is None
            or self.trunk.observation_only
            or self.value_trunk is not None
            or not isinstance(self.head, CategoricalHead)
            or not all(isinstance(head, MLP) and len(head) == 3 for head in heads)
        ):
            return None
        policy, value = (tuple(head.parameters()) for head in heads)
        return ActorCriticWeights(self.trunk.recurrence, policy, value)

    def initial_state(self, lanes: int, horizon: int) -> MemoryState:
        """State of the policy's memory at the start of a trial."""
        return self.trunk.initial_state(lanes, horizon)

    def acting(self, lanes: int, *, with_values: bool = False) -> Acting | None:
        """The policy's steps by the compiled library, with the weights of this moment.

        None where it does not serve the network, or gradients are wanted.
        """
        weights = self.plain_weights
        if weights is None or self.scale is not None or torch.is_grad_enabled():
            return None
        if not lanes or not serves(*weights.all):
            return None
        if with_values:
            weights = weights._replace(value=self.value.unscaled_weights(weights.value))
        return Acting(
            weights, lanes=lanes, observation=self.sizes.observation, with_values=with_values
        )

    def step(self, inputs: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """One step of the policy: inputs [L, F] -> dist_params [L, R] and the next state."""
        with self._arithmetic(inputs):
            features, state = self.trunk.step(PolicyInputs(inputs, self.sizes), state)
            return _full(self.decide(features)), state

    def decide(self, features: Tensor) -> Tensor:
        """Features of the memory [..., H] -> parameters of the action distribution [..., R]."""
        outputs: Tensor = self.policy(self.trunk.decision_features(features))
        return outputs if self.constants is None else append_constants(outputs, self.constants)

    def _arithmetic(self, inputs: Tensor) -> AbstractContextManager[Any]:
        """In which the network is computed, for inputs on a device."""
        if self._precision == "float32" or not inputs.is_cuda:
            return nullcontext()
        # Without a cache, which a replay would find empty.
        return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)

    def _value(self, trunk: MemoryCore, inputs: Tensor) -> Tensor:
        value: Tensor = self.value(trunk.decision_features(self._features(trunk, inputs)))
        return value

    def _features(self, trunk: MemoryCore, inputs: Tensor) -> Tensor:
        state = trunk.initial_state(inputs.shape[1], 0)  # no room for steps beyond the sequence
        features, _ = trunk.sequence(PolicyInputs(inputs, self.sizes), state)
        return features


def _full(value: Tensor) -> Tensor:
    """As it is, but float32 instead of bfloat16."""
    return value.float() if value.dtype == torch.bfloat16 else value


def _measured(percept: Percept) -> Tensor:
    """Observation and previous reward, [..., D + 1]."""
    obs = percept.obs.to(torch.float32)
    return torch.cat((obs, percept.previous_reward.to(obs.dtype).unsqueeze(-1)), -1)
