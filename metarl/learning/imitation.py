"""Imitation of a reference on the agent's own experience: on-policy dataset aggregation.

The agent's policy is rolled out. Every step is labelled with the action that the reference would
have taken there, after the same percepts, and the policy learns to predict the labels. So it is
corrected in the situations that its own actions lead to, not only in those of the reference. At
first the reference itself may act in a share of the trials: after random actions, labels can be
hard to predict; after the actions of the reference they are easier.

Source: Ross et al. 2011, arXiv:1011.0686 (DAgger). Unlike the paper: each iteration learns from new
experience alone instead of all so far, and policies are mixed by trials instead of steps.

Axes: `T` steps, `L` lanes = tasks x rollouts per task, `F` inputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from metarl.agent import (
    AgentConfig,
    AgentContext,
    Memory,
    MetaBatch,
    Policy,
    PolicyOutput,
    Reference,
)
from metarl.errors import ConfigError, ShapeError
from metarl.field_types import suggestion
from metarl.learning.autograd_gradient import ByAutograd
from metarl.learning.losses import masked_mean
from metarl.learning.trial_optimiser import TrialOptimiser, require_optimisation_options
from metarl.networks.actor_critic import ActorCritic
from metarl.noise import LaneNoise, lane_keys
from metarl.trajectory import Percept, Trajectory
from metarl.validation import require_between


@dataclass(frozen=True, kw_only=True)
class ImitationConfig(AgentConfig):
    """Hyper-parameters of agents that imitate a reference in whole trials."""

    num_tasks: int = 256
    """tasks per meta-batch (N)"""
    iterations: int = 500
    """meta-iterations of the whole run; schedules run over these"""
    reference: str | None = None
    """the reference that is imitated, by name; by default the family's first ceiling, which is the
    exact optimum where it is known and else an oracle that knows the task; or, without a ceiling,
    its last baseline"""
    guided_fraction: float = 0.0
    """fraction of the run in which the reference acts in a share of the trials that falls linearly
    from all but one to none; for tasks in which a random policy meets situations that are hard to
    label, such as fifty arms pulled at random"""
    num_epochs: int = 1
    """passes over the meta-batch per iteration"""
    num_minibatches: int = 8
    """minibatches of whole trials per pass; must divide num_tasks * rollouts_per_task"""
    learning_rate: float = 1e-3
    """of Adam at the start"""
    final_learning_rate: float = 0.0
    """of Adam at the end of the run; linear in between"""
    max_grad_norm: float = 1.0
    """the gradient is scaled down to this norm"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_optimisation_options(self)
        require_between("guided_fraction", self.guided_fraction, 0.0, 1.0)

    @property
    def trains_on_ranks(self) -> bool:
        """Yes: `Imitation` sums over ranks."""
        return True


def choose_reference(known: Mapping[str, Reference], name: str | None) -> Reference:
    """The reference of this name, or the one that is imitated by default.

    Args:
        known: references by name, from floor to ceiling.
        name: None for the first ceiling, or without a ceiling the last baseline.

    Raises:
        ConfigError: there is no such reference, or it cannot be imitated.
    """
    usable = {key: one for key, one in known.items() if not one.open_loop}
    names = ", ".join(usable) or "none"
    if name is not None:
        if name in usable:
            return usable[name]
        if name in known:
            raise ConfigError(
                f"reference={name!r} cannot be imitated: it follows a plan whatever actions were "
                "taken, so it does not say what to do after those of another policy. References of "
                f"this family that can be imitated: {names}."
            )
        raise ConfigError(
            f"The family has no reference={name!r} for trials of this length."
            f"{suggestion(name, usable)} References of this family that can be imitated: {names}."
        )
    ceilings = [one for one in usable.values() if one.role == "ceiling"]
    baselines = [one for one in usable.values() if one.role == "baseline"]
    if not ceilings + baselines:
        raise ConfigError(
            "The family has no reference that is worth imitating, such as an optimum, an oracle or "
            f"a baseline (references that can be imitated: {names}). Define one in its "
            "`references`, or train an agent that learns from rewards, such as rl2."
        )
    return ceilings[0] if ceilings else baselines[-1]


@torch.no_grad()
def replayed_actions(policy: Policy, experience: Trajectory, noise: LaneNoise) -> Tensor:
    """The actions that a policy would have taken at each step of another policy's experience.

    Args:
        policy: is shown every percept; its actions are recorded, not taken.
        experience: of the other policy, [T, N, B, ...].
        noise: of L lanes.

    Returns:
        [T, L] int64, or [T, L, A] float.
    """
    percepts = experience.percepts()
    steps, lanes = experience.valid.flatten(1).shape
    columns = {
        field.name: getattr(percepts, field.name).flatten(1, 2).unbind(0)
        for field in fields(percepts)
    }
    memory = policy.initial_memory(lanes, steps)
    actions = []
    for step in range(steps):
        percept = Percept(**{name: column[step] for name, column in columns.items()})
        output = policy.act(percept, memory, noise.at(step))
        memory = output.memory
        actions.append(output.action)
    return torch.stack(actions)


@dataclass(frozen=True, kw_only=True)
class GuidedPolicy:
    """The reference acts in some of the lanes, the policy that learns in the others."""

    learner: Policy
    reference: Policy
    guided: Tensor  # [L] bool, where the reference acts

    def initial_memory(self, lanes: int, horizon: int) -> Memory:
        """Those of both, each of which is shown all lanes."""
        policies = self.learner, self.reference
        return tuple(policy.initial_memory(lanes, horizon) for policy in policies)

    def act(self, percept: Percept, memory: Memory, noise: LaneNoise) -> PolicyOutput:
        """The action of one of them in each lane; `log_prob` is always that of the learner's."""
        action, log_prob, learner = self.learner.act(percept, memory[0], noise)
        taught, _, reference = self.reference.act(percept, memory[1], noise)
        guided = self.guided.view(-1, *(1,) * (action.ndim - 1))
        return PolicyOutput(torch.where(guided, taught, action), log_prob, (learner, reference))


def guided_lanes(share: float, lanes: int) -> Tensor:
    """[L] bool: `share` of the lanes, rounded down, but never all; evenly spread over tasks."""
    count = min(int(share * lanes), lanes - 1)
    passed = torch.arange(lanes + 1) * count // lanes
    return passed[1:] > passed[:-1]


@dataclass(frozen=True, kw_only=True)
class LabelledTrials:
    """What imitation reads of a meta-batch, [T, L, ...]."""

    inputs: Tensor  # [T, L, F]
    label: Tensor  # [T, L] or [T, L, A] action of the reference
    valid: Tensor  # [T, L] float

    def map(self, function: Callable[[Tensor], Tensor]) -> "LabelledTrials":
        """The results of a function for each of the tensors."""
        return LabelledTrials(**{name: function(value) for name, value in vars(self).items()})


class Imitation:
    """Fits the policy of an actor-critic to a reference; holds its optimiser.

    The value head is not used.
    """

    def __init__(
        self, network: ActorCritic, config: ImitationConfig, context: AgentContext
    ) -> None:
        """Learns the parameters of `network`, which lie on the device.

        Raises:
            ConfigError: the family has no such reference, or it cannot be imitated.
        """
        self.network = network
        self._config = config
        self._seeds = context.seeds
        self._device = context.device
        self._ranks = context.ranks
        self._reference: Reference | None = None
        if context.references is not None:
            self._reference = choose_reference(context.references(), config.reference)
        self._optimiser = TrialOptimiser("the imitation", network, config, context)

    @property
    def guided_share(self) -> float:
        """Share of the trials in which the reference acts, at the next update."""
        if not self._config.guided_fraction:
            return 0.0
        length = self._config.guided_fraction * self._config.iterations
        return max(0.0, 1.0 - self._optimiser.updates / length)

    def acting(self, learner: Policy, tasks: Tensor, rollouts_per_task: int) -> Policy:
        """The policy that collects the experience of the next update in the tasks [N, ...]."""
        guided = self._guided(len(tasks) * rollouts_per_task)
        if self._reference is None or not bool(guided.any()):
            return learner
        return GuidedPolicy(learner=learner, reference=self._reference.build(tasks), guided=guided)

    def update(self, batch: MetaBatch) -> dict[str, float]:
        """Several epochs of minibatches on one phase of whole trials; returns metrics.

        Raises:
            ConfigError: the learner was built without references.
            ShapeError: the reference gave actions of another shape than the policy.
            MetaRLError: such as `NonFiniteError` for a gradient; the learner is unchanged.
        """
        (experience,) = batch.trajectories
        optimiser, share = self._optimiser, self.guided_share
        learning_rate = optimiser.learning_rate
        trials, metrics = self._labelled(batch.tasks, experience)
        with optimiser.unchanged_on_error():
            means = optimiser.update(trials.valid, ByAutograd(trials, self._loss))
            # Only now: this experience was collected and learned from with the former statistics.
            self.network.observe(experience.percepts(), experience.valid, self._ranks)
        return means | metrics | {"learning_rate": learning_rate, "guided_share": share}

    def state(self) -> dict[str, Tensor]:
        """Parameters, optimiser and the count of updates."""
        return self._optimiser.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned."""
        self._optimiser.load_state(state)

    @torch.no_grad()
    def _labelled(
        self, tasks: Tensor, experience: Trajectory
    ) -> tuple[LabelledTrials, dict[str, float]]:
        """The experience with labels, and how far the actions taken were from them."""
        if self._reference is None:
            raise ConfigError(
                "This agent was built to be measured: without references in its `AgentContext` "
                "there is nothing to imitate. `metarl.train` lists them."
            )
        seed = self._seeds.word("reference", self._optimiser.updates)
        first_task = self._ranks.first_of(len(tasks))
        num_tasks, rollouts = experience.valid.shape[1:]
        keys = lane_keys(seed, num_tasks, rollouts, first_task, tasks.device)
        noise = LaneNoise(keys, horizon=len(experience.valid))
        label = replayed_actions(self._reference.build(tasks), experience, noise)
        action = experience.action.flatten(1, 2)
        if label.shape != action.shape:
            raise ShapeError(
                f"The reference {self._reference.label!r} gave actions [T, L, ...] of shape "
                f"{list(label.shape)}, but those of the policy are {list(action.shape)}. A policy "
                "returns one action of the family's action space in each lane."
            )
        valid = experience.valid.flatten(1, 2).to(experience.reward.dtype)
        inputs = self.network.encode(experience.percepts()).flatten(1, 2)
        trials = LabelledTrials(inputs=inputs, label=label, valid=valid)
        own = valid * ~self._guided(valid.shape[1])
        return trials, self._distance(action, label, own)

    def _guided(self, lanes: int) -> Tensor:
        """[L] bool, where the reference acts at the next update; `lanes` are this rank's."""
        everywhere = guided_lanes(self.guided_share, lanes * self._ranks.size)
        return everywhere.view(-1, lanes)[self._ranks.rank].to(self._device)

    def _distance(self, action: Tensor, label: Tensor, valid: Tensor) -> dict[str, float]:
        """Share of equal actions; of Box actions the mean squared difference, summed over [A].

        `valid` [T, L] counts the steps in which the policy that learns has acted.
        """
        if not label.is_floating_point():
            name, distance = "agreement", (action == label).to(valid.dtype)
        else:
            head = self.network.head
            name = "squared_difference"
            distance = (head.encode(action) - head.encode(label)).square().sum(-1)
        return {name: float(self._ranks.ratio((distance * valid).sum(), valid.sum()))}

    def _loss(self, batch: LabelledTrials) -> tuple[Tensor, dict[str, Tensor]]:
        """Negative log-likelihood of the labels, mean over valid steps of a minibatch."""
        dist_params = self.network.dist_params(batch.inputs)
        log_prob, entropies = self.network.head.evaluate(dist_params, batch.label)
        loss = -masked_mean(log_prob, batch.valid)
        entropy = masked_mean(entropies.detach(), batch.valid)
        return loss, {"imitation_loss": loss.detach(), "entropy": entropy}
