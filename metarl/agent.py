"""The contracts of policies and agents, and the options that every agent has.

Axes: `T` steps, `N` tasks, `B` rollouts of each task, `L` = N x B lanes, then features (`D`
observation, `A` action).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from gymnasium import Space
from torch import Tensor

from metarl.field_types import check_fields
from metarl.noise import LaneNoise
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Seeds
from metarl.trajectory import Percept, Trajectory
from metarl.validation import require_positive

Memory: TypeAlias = Any
"""what a policy carries from step to step: tensors whose leading axis is the lane, or None"""


class PolicyOutput(NamedTuple):
    """What a policy returns at one step."""

    action: Tensor  # [L] int64, or [L, A] float
    log_prob: Tensor  # [L] float, log-density of `action`
    memory: Memory  # passed to `act` at the next step


class Policy(Protocol):
    """Acts in all lanes at once; may hold separate parameters for each of the N tasks."""

    def initial_memory(self, lanes: int, horizon: int) -> Memory:
        """Memory at the start of a trial of at most `horizon` steps."""

    def act(self, percept: Percept, memory: Memory, noise: LaneNoise) -> PolicyOutput:
        """Action in every lane, all randomness from `noise`."""


@runtime_checkable
class StochasticPolicy(Protocol):
    """A policy that draws its actions, and knows which of them is most likely."""

    def greedy(self) -> Policy:
        """The same policy, but it takes the most likely action instead of drawing one."""


@runtime_checkable
class DistributionPolicy(Protocol):
    """A policy whose distribution over actions is a function of percept and memory alone."""

    @property
    def head(self) -> Any:
        """The action head that the parameters belong to."""

    def distribution(self, percept: Percept, memory: Memory) -> tuple[Tensor, Memory]:
        """Parameters of the distribution, [L, R], and the next memory."""


@runtime_checkable
class ValuePolicy(Protocol):
    """A policy that estimates, while it acts, the return to come."""

    def value_estimate(self, memory: Memory) -> Tensor | None:
        """That [L] of the step that returned `memory`; None if it made none."""


@runtime_checkable
class ThreadedPolicy(Protocol):
    """A policy that acts with threads of its own."""

    def threads(self) -> AbstractContextManager[None]:
        """Entered for a whole rollout, in which no others should be in the way of its threads."""


@runtime_checkable
class StationaryPolicy(Protocol):
    """A policy whose steps are the same operations on the same tensors, in every rollout.

    What it learns it writes into them, so that a GPU can replay a rollout of it.
    """

    @property
    def address(self) -> Hashable:
        """Equal for policies that take equal steps with tensors at equal places.

        None: this one does not, after all.
        """


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A policy that needs no training; it may know the prior, or even the task itself."""

    role: Literal["floor", "baseline", "ceiling"]
    """`floor`: no learning at all; `ceiling`: no policy can do better; `baseline`: in between"""
    label: str
    """in figure legends, such as 'exact Bayes optimum'"""
    build: Callable[[Tensor], Policy]
    """makes the policy for the tasks [N, ...] that it will act in, on their device"""
    by_default: bool = True
    """whether an evaluation runs it unless others are named"""
    open_loop: bool = False
    """whether it follows a plan whatever actions were taken; it cannot be imitated then, because
    it does not say what to do after the actions of another policy"""


class Agent(Protocol):
    """Learns, across tasks, a policy that improves within a task."""

    @property
    def adaptation_steps(self) -> int:
        """Parameter updates per task: K for gradient agents, 0 for those that adapt in memory."""

    @property
    def evaluation_steps(self) -> int:
        """Adaptation steps that an evaluation shows; may differ from those of training."""

    def start(self, num_tasks: int, noise: LaneNoise) -> Policy:
        """The policy before any experience in the tasks; random choices from `noise`, [N, ...]."""

    def adapt(self, policy: Policy, experience: Trajectory, noise: LaneNoise) -> "Adapted":
        """The policy after one adaptation step on `experience`. Changes nothing else."""

    def update(self, batch: "MetaBatch") -> Mapping[str, float]:
        """One meta-iteration: learns from a meta-batch; returns metrics to log.

        The trajectories are valid until the next meta-batch is collected: an agent that keeps
        experience clones it. If it raises a `MetaRLError`, such as for a gradient that is not
        finite, the agent is unchanged.
        """

    def state(self) -> dict[str, Tensor]:
        """Everything that learning has changed, optimiser and counters included."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned. Raises `CheckpointError` if it does not fit."""


@runtime_checkable
class GuidedAgent(Protocol):
    """An agent, part of whose training experience is collected by a policy that is not its own."""

    def start_guided(self, tasks: Tensor, rollouts_per_task: int, noise: LaneNoise) -> Policy:
        """The policy that takes the place of that of `start` in training; may know the tasks."""


@runtime_checkable
class WarmStartAgent(Protocol):
    """An agent that can start from the weights of another training."""

    def take_weights(self, state: Mapping[str, Tensor]) -> None:
        """Takes what was learned from the `state` of another agent of its kind.

        Optimiser, schedules and stored experience stay those of a new agent. Raises
        `CheckpointError` if the weights do not fit.
        """


class Adapted(NamedTuple):
    """The result of one adaptation step."""

    policy: Policy
    cache: Any = None  # what `adapt` computed that `update` can use again


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Experience between two adaptation steps."""

    policy: Policy  # that acted
    trajectory: Trajectory  # [T, N, B, ...]
    cache: Any  # of the adaptation step on this trajectory; None after the last phase


@dataclass(frozen=True, kw_only=True)
class MetaBatch:
    """What one meta-iteration learns from: tasks, and K + 1 phases of experience in each."""

    tasks: Tensor  # [N, ...]
    phases: tuple[Phase, ...]

    @property
    def trajectories(self) -> list[Trajectory]:
        """The experience before and after each adaptation step."""
        return [phase.trajectory for phase in self.phases]

    @property
    def caches(self) -> list[Any]:
        """What each of the K adaptation steps computed."""
        return [phase.cache for phase in self.phases[:-1]]


class ShownTargets(NamedTuple):
    """Where observations show, one step late, which action would have been right.

    Agents may learn from them as from labels.
    """

    components: slice
    """of the observation: the targets, and whatever else only concerns them"""
    read: Callable[[Tensor], tuple[Tensor, Tensor]]
    """observations [..., D] -> the right action of the step before, [...] int64 or [..., A] float,
    and whether it is shown, [...] bool"""


@dataclass(frozen=True, kw_only=True)
class AgentContext:
    """What an agent is built for: spaces and references of a family, random streams, the device."""

    observation_space: Space[Any]
    action_space: Space[Any]
    seeds: Seeds
    device: torch.device
    shown_targets: ShownTargets | None = None
    references: Callable[[], Mapping[str, Reference]] | None = None
    """lists the family's references for trials of the agent's length, by name, floor first; None:
    the agent will not be trained"""
    ranks: Ranks = ALONE
    """the processes that train the agent; each calls `update` with its share of the tasks"""


@dataclass(frozen=True, kw_only=True)
class AgentConfig(ABC):
    """Hyper-parameters that every agent has; each agent's config adds the rest."""

    num_tasks: int = 64
    """tasks per meta-batch (N)"""
    rollouts_per_task: int = 1
    """environments stepped in parallel in each task (B)"""
    episodes: int | None = None
    """consecutive episodes per rollout (E), a trial for RL^2; by default set by the family"""
    iterations: int = 100
    """meta-iterations of the whole run; schedules run over these"""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("num_tasks", "rollouts_per_task", "iterations", "episodes"):
            require_positive(name, getattr(self, name))

    @property
    def reads_next_obs(self) -> bool:
        """Whether the agent reads `Trajectory.next_obs`, which is kept only then."""
        return False

    @property
    def joins_rollouts(self) -> bool:
        """Whether an adaptation step joins the rollouts of a task; otherwise each adapts alone."""
        return True

    @property
    def trains_on_ranks(self) -> bool:
        """Whether several processes can train the agent together: its learner sums over `ranks`."""
        return False

    @property
    @abstractmethod
    def label(self) -> str:
        """The agent in figure legends: its name, and the options that make it a variant."""

    @abstractmethod
    def build(self, context: AgentContext) -> Agent:
        """A new, untrained agent."""
