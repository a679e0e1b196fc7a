"""Agents that adapt in memory, and their usual trainer: a recurrent policy, trained by PPO.

Each published algorithm is a file next to this one that names its parts and its defaults.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from metarl.agent import Adapted, Agent, AgentContext, MetaBatch, Policy
from metarl.errors import ConfigError
from metarl.learning.optimiser_state import weights_alone
from metarl.learning.ppo import PPO, AuxiliaryLoss, PPOConfig
from metarl.networks.actor_critic import ActorCritic, NetworkOptions, Precision
from metarl.networks.policies import RecurrentPolicy
from metarl.noise import LaneNoise
from metarl.registry import make_memory_options
from metarl.trajectory import Trajectory
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(PPOConfig):
    """Hyper-parameters of all agents that adapt in the memory of a recurrent network."""

    memory: str = "gru"
    """gru; lstm; attention (a GRU that also looks up every earlier step of the trial, for tasks
    with much to remember such as tabular MDPs; two to three times as slow, more in long trials);
    transformer (layers of attention to every earlier step); matching or prototypical (earlier
    observations with what followed them, compared with the present one); amortised (a network
    generates the policy's head); belief (a Gaussian over the task, for varibad); none (the negative
    control: the policy sees the present observation alone); or one that a plugin registers: see
    `metarl list`"""
    memory_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """options of the memory by name, such as heads 8 for attention"""
    hidden_size: int = 64
    """size of the embedding, the memory and the heads"""
    separate_value: bool = False
    """give the value function an embedding and a memory of its own"""
    normalise_inputs: bool = False
    """read observations and previous rewards in units of their running mean and deviation; for
    those that are far from order one, as in locomotion"""
    initial_std: float = 1.0
    """initial standard deviation of Box actions, in units of half their range"""
    precision: Precision = "float32"
    """of the network's products of matrices on a GPU; bfloat16 is less exact, and its speed has not
    been measured yet. A CPU always computes in float32"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_network_options(
            self.memory, self.memory_options, self.hidden_size, self.initial_std
        )

    @property
    def trains_on_ranks(self) -> bool:
        """Yes: PPO sums over ranks."""
        return True

    def label_with_memory(self, name: str, usual: str) -> str:
        """`name`, with the memory where it is not the usual one, and the options given to it."""
        return label_with_memory(name, self.memory, self.memory_options, usual)

    def build(self, context: AgentContext) -> Agent:
        """A new agent of this kind."""
        return RecurrentAgent(self, context)

    def network(self, context: AgentContext) -> ActorCritic:
        """A new actor-critic with these options."""
        options = NetworkOptions(
            memory=make_memory_options(self.memory, self.memory_options),
            hidden_size=self.hidden_size,
            separate_value=self.separate_value,
            normalise_inputs=self.normalise_inputs,
            initial_std=self.initial_std,
            precision=self.precision,
        )
        return build_network(options, context)


def require_network_options(
    memory: str, memory_options: Mapping[str, Any], hidden_size: int, initial_std: float
) -> None:
    """Raises `ConfigError` where an option of the network is unknown or out of range."""
    require_positive("hidden_size", hidden_size)
    require_positive("initial_std", initial_std)
    make_memory_options(memory, memory_options)


def label_with_memory(name: str, memory: str, options: Mapping[str, Any], usual: str) -> str:
    """`name`, with the memory where it is not the usual one, and the options given to it."""
    known = {
        "attention": " with attention",
        "transformer": " with a transformer",
        "none": " without memory",
        usual: "",
    }
    name += known.get(memory, f" ({memory})")
    given = ", ".join(f"{option}={value}" for option, value in options.items())
    return f"{name} ({given})" if given else name


def build_network(options: NetworkOptions, context: AgentContext) -> ActorCritic:
    """A new actor-critic for the spaces and on the device of the context."""
    network = ActorCritic(
        context.observation_space,
        context.action_space,
        options,
        context.seeds.torch("initial weights"),
    )
    return network.to(context.device)


class MemoryLearner(Protocol):
    """Learns the network of an agent that adapts in memory."""

    network: ActorCritic

    def state(self) -> dict[str, Tensor]:
        """Network, optimiser and the count of updates."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned."""


class MemoryAgent(ABC):
    """Adapts in memory: the same policy in every task, told apart by what it remembers."""

    adaptation_steps = 0
    evaluation_steps = 0
    learns_from_values = False
    """whether `update` reads `Trajectory.value`"""

    def __init__(self, learner: MemoryLearner, auxiliary: AuxiliaryLoss | None = None) -> None:
        """An agent that learns by `learner`, with an auxiliary loss where there is one.

        Raises:
            ConfigError: only an auxiliary loss would train the memory, and there is none.
        """
        memory = learner.network.trunk
        if memory.needs_auxiliary_loss and auxiliary is None:
            raise ConfigError(
                f"The memory {type(memory).__name__} is trained by an auxiliary loss, and this "
                "agent has none, so the memory would stay random. Use the agent varibad for the "
                "memory belief, or another memory for this agent."
            )
        self._learner = learner
        self.auxiliary = auxiliary

    def start(self, num_tasks: int, noise: LaneNoise) -> Policy:
        """The recurrent policy."""
        return RecurrentPolicy(self._learner.network, gives_values=self.learns_from_values)

    def adapt(self, policy: Policy, experience: Trajectory, noise: LaneNoise) -> Adapted:
        """The policy itself: it adapted in its memory while it acted."""
        return Adapted(policy)

    @torch.no_grad()
    def features(self, experience: Trajectory) -> Tensor:
        """What the memory returns at each step of whole trials, as `auxiliary` reads it, [T, L, H].

        Args:
            experience: [T, N, B, ...] of the agent's policy.
        """
        network = self._learner.network
        features: Tensor = network(network.encode(experience.percepts()).flatten(1, 2)).features
        return features

    @abstractmethod
    def update(self, batch: MetaBatch) -> Mapping[str, float]:
        """Learns from one phase of whole trials."""

    def state(self) -> dict[str, Tensor]:
        """Network, optimiser and the count of updates."""
        return self._learner.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self._learner.load_state(state)

    def take_weights(self, state: Mapping[str, Tensor]) -> None:
        """The network, and that of an auxiliary loss."""
        self._learner.load_state(weights_alone(state))


class RecurrentAgent(MemoryAgent):
    """Adapts in memory, trained by PPO."""

    learns_from_values = True

    def __init__(
        self,
        config: RecurrentConfig,
        context: AgentContext,
        auxiliary: AuxiliaryLoss | None = None,
    ) -> None:
        """A new, untrained agent; `auxiliary` is a further loss on the memory's features."""
        if auxiliary is not None:
            auxiliary = auxiliary.to(context.device)
        self._ppo = PPO(config.network(context), config, context, auxiliary)
        super().__init__(self._ppo, auxiliary)

    def update(self, batch: MetaBatch) -> Mapping[str, float]:
        """PPO on one phase of whole trials."""
        (experience,) = batch.trajectories
        return self._ppo.update(experience)
