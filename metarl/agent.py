"""What a policy sees and says, and what every agent offers to training and evaluation.

Axes: `T` steps, `N` tasks, `B` copies of each task, then features (`D` observation, `A` action).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from gymnasium import Space
from torch import Generator, Tensor

from metarl.seeding import Seeds
from metarl.trajectory import Percept, Trajectory
from metarl.validation import require_positive

Memory: TypeAlias = Any
"""whatever a policy carries from step to step: tensors with leading axes [N, B], or None"""


class PolicyOutput(NamedTuple):
    """What a policy says about one step."""

    action: Tensor  # [N, B] int64, or [N, B, A] float
    log_prob: Tensor  # [N, B] float, log-density of `action`
    memory: Memory  # to be handed back at the next step


class Policy(Protocol):
    """Acts in N x B lanes at once; may hold parameters of its own for each of the N tasks."""

    def initial_memory(self, num_tasks: int, copies: int) -> Memory:
        """Memory at the start of a trial."""

    def act(self, percept: Percept, memory: Memory, generator: Generator) -> PolicyOutput:
        """Action in every lane, all randomness from `generator`."""


class Agent(Protocol):
    """Learns, across tasks, a policy that improves within a task."""

    @property
    def adaptation_steps(self) -> int:
        """Parameter updates per task: K for gradient agents, 0 for those that adapt in memory."""

    @property
    def evaluation_steps(self) -> int:
        """Adaptation steps that an evaluation shows; may differ from those of training."""

    def start(self, num_tasks: int) -> Policy:
        """The policy before any experience in the task."""

    def adapt(self, policy: Policy, experience: Trajectory) -> Policy:
        """The policy after learning from `experience`; `policy` itself does not change."""

    def update(self, phases: Sequence[Trajectory]) -> Mapping[str, float]:
        """One meta-iteration on the experience before and after each adaptation step.

        If it raises a `MetaRLError`, such as for a gradient that is not finite, the agent is what
        it was before.
        """

    def state(self) -> dict[str, Tensor]:
        """Everything that learning has changed, optimiser and counters included."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` returned. Raises `CheckpointError` if it does not fit."""


@dataclass(frozen=True, kw_only=True)
class AgentContext:
    """What an agent is told about the family it will learn: its spaces and where to compute."""

    observation_space: Space[Any]
    action_space: Space[Any]
    seeds: Seeds
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class AgentConfig(ABC):
    """Hyper-parameters that every agent has; each agent's own class adds the rest."""

    num_tasks: int = 64
    """tasks per meta-iteration (N)"""
    rollouts_per_task: int = 1
    """environments lived through in each task at once (B)"""
    episodes: int | None = None
    """episodes in a row per phase (E), a trial for RL^2; by default what the family says"""
    iterations: int = 100
    """meta-iterations of the whole run; schedules run over these"""

    def __post_init__(self) -> None:
        for name in ("num_tasks", "rollouts_per_task", "iterations", "episodes"):
            require_positive(name, getattr(self, name))

    @property
    @abstractmethod
    def label(self) -> str:
        """How a legend calls the agent: its name, and what makes this variant another agent."""

    @abstractmethod
    def build(self, setting: AgentContext) -> Agent:
        """A new, untrained agent."""
