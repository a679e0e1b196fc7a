"""The contract of memories: what a recurrent policy is shown step by step, and what it returns.

Axes: `T` steps, `L` lanes, then features (`D` observation, `A` encoded action, `H` output).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor, nn

MemoryState: TypeAlias = Any
"""what a memory carries from step to step; tensors in it have the lane as leading axis"""

NUM_REWARD_AND_FLAGS = 5
"""components next to the observation and the previous action: previous reward, four flags"""


class InputSizes(NamedTuple):
    """Sizes of the parts of a policy's inputs."""

    observation: int  # D
    action: int  # A, as the action head encodes it

    @property
    def total(self) -> int:
        """Components of all parts, D + A + 5."""
        return self.observation + self.action + NUM_REWARD_AND_FLAGS


@dataclass(frozen=True)
class PolicyInputs:
    """A percept encoded as one vector, and its parts by name; any leading axes."""

    values: Tensor  # [..., D + A + 5]
    sizes: InputSizes

    @property
    def observation(self) -> Tensor:
        """[..., D]."""
        return self.values[..., : self.sizes.observation]

    @property
    def previous_action(self) -> Tensor:
        """[..., A], one-hot or in units of the bounds; zeros at the start of a trial."""
        return self.values[..., self.sizes.observation : -NUM_REWARD_AND_FLAGS]

    @property
    def previous_reward(self) -> Tensor:
        """[...]."""
        return self.values[..., -NUM_REWARD_AND_FLAGS]

    @property
    def flags(self) -> Tensor:
        """[..., 4]: previous terminated, previous truncated, first of episode, first of trial."""
        return self.values[..., 1 - NUM_REWARD_AND_FLAGS :]


class MemoryCore(nn.Module, ABC):
    """Summarises a trial so far as one feature vector per lane, [L, H], at each step.

    `step` and `sequence` must agree: training replays in one call what acting saw step by step.
    `horizon` is an upper bound that may differ between the two, so features must not depend on it.
    A core embeds its inputs itself, because it is shown them by name.
    """

    needs_auxiliary_loss: ClassVar[bool] = False
    """policy and value do not train all of it: see `decision_features`"""

    def decision_features(self, features: Tensor) -> Tensor:
        """What policy and value read of the features, [..., H]; by default all of them.

        Auxiliary losses read the features themselves. What is detached here is trained by such a
        loss alone.
        """
        return features

    def policy_head(self, outputs: int) -> nn.Module | None:
        """A module from features [..., H] to a distribution's parameters [..., outputs].

        By default None: the actor-critic has a multilayer perceptron of its own.
        """
        return None

    @abstractmethod
    def initial_state(self, lanes: int, horizon: int) -> MemoryState:
        """The state at the start of a trial of at most `horizon` steps."""

    @abstractmethod
    def step(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """One step: inputs [L, ...] -> features [L, H] and the next state."""

    @abstractmethod
    def sequence(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """Many steps: inputs [T, L, ...] -> features [T, L, H] and the state after them."""


class SequenceCore(nn.Module, ABC):
    """The part of a memory behind its embedding: features in, features out.

    `step` and `sequence` must agree.
    """

    @abstractmethod
    def initial_state(self, lanes: int, horizon: int) -> MemoryState:
        """The state at the start of a trial of at most `horizon` steps."""

    @abstractmethod
    def step(self, features: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """One step: [L, F] -> output [L, H] and the next state."""

    @abstractmethod
    def sequence(self, features: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """Many steps: [T, L, F] -> [T, L, H] and the state after them."""


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(ABC):
    """Options of one kind of memory; `metarl.register_memory` makes a subclass known by name."""

    @abstractmethod
    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """A new memory core.

        Args:
            sizes: of its inputs.
            hidden_size: H, the features that it returns.
            generator: source of the initial weights.

        Raises:
            ConfigError: the options do not fit the sizes.
        """


def encode_percept(
    obs: Tensor, action: Tensor, reward: Tensor, flags: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Tensor:
    """Joins the parts of a percept, in the order of `PolicyInputs`, to [..., D + A + 5].

    The action is blanked where the last flag, the first step of a trial, is set: there was none.
    """
    flag_values = torch.stack(flags, -1).to(obs.dtype)
    return torch.cat(
        (obs, action * ~flags[-1].unsqueeze(-1), reward.unsqueeze(-1), flag_values), -1
    )
