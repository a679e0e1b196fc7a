"""PPO over whole trials, for recurrent actor-critics: Schulman et al. 2017, arXiv:1707.06347.

Unlike plain PPO, the return runs on across the episodes of a trial and ends with the trial, and a
minibatch holds whole trials, so that the memory is replayed from the trial's start.

Axes: `T` steps, `L` lanes = tasks x rollouts per task, `F` inputs, `H` features.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metarl.agent import AgentConfig, AgentContext
from metarl.errors import ConfigError, ShapeError
from metarl.learning.advantages import gae
from metarl.learning.autograd_gradient import ByAutograd
from metarl.learning.losses import PPOTerms, normalised, ppo_loss
from metarl.learning.trial_optimiser import TrialOptimiser, require_optimisation_options
from metarl.native.library import alone
from metarl.native.ppo import ActorCriticWeights, PPOGradients, PPOInputs, can_run
from metarl.networks.actor_critic import ActorCritic
from metarl.trajectory import Percept, Trajectory
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class PPOConfig(AgentConfig):
    """Hyper-parameters of agents that learn by PPO over whole trials."""

    num_tasks: int = 512
    """tasks per meta-batch (N)"""
    iterations: int = 300
    """meta-iterations of the whole run; schedules run over these"""
    gamma: float = 0.99
    """discount per environment step, not reset between the episodes of a trial"""
    gae_lambda: float = 0.95
    """lambda of generalised advantage estimation"""
    num_epochs: int = 4
    """passes over the meta-batch per iteration"""
    num_minibatches: int = 4
    """minibatches of whole trials per pass; must divide num_tasks * rollouts_per_task"""
    clip_range: float = 0.2
    """how far the probability ratio may move before its gradient is cut"""
    learning_rate: float = 3e-3
    """of Adam at the start"""
    final_learning_rate: float = 0.0
    """of Adam at the end of the run; linear in between"""
    entropy_coef: float = 0.003
    """weight of the policy's entropy at the start"""
    final_entropy_coef: float = 0.0
    """weight of the policy's entropy at the end of the run; linear in between"""
    value_coef: float = 0.5
    """weight of the squared error of the (scaled) value"""
    max_grad_norm: float = 1.0
    """the gradient is scaled down to this norm"""
    normalise_advantages: bool = True
    """mean 0 and standard deviation 1 over the meta-batch"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_optimisation_options(self)
        require_positive("clip_range", self.clip_range)
        for name in ("gamma", "gae_lambda"):
            require_between(name, getattr(self, name), 0.0, 1.0)
        for name in ("entropy_coef", "final_entropy_coef", "value_coef"):
            require_between(name, getattr(self, name), 0.0, float("inf"))


class AuxiliaryLoss(nn.Module, ABC):
    """A loss next to PPO's, on the features of the memory; its parameters are learned along.

    As a module it may hold networks of its own. `forward` must be finite where `valid` is 0.
    """

    @abstractmethod
    def targets(self, experience: Trajectory) -> Mapping[str, Tensor]:
        """What the loss needs of the experience, each [T, L, ...]; computed once per iteration."""

    @abstractmethod
    def forward(self, features: Tensor, targets: Mapping[str, Tensor], valid: Tensor) -> Tensor:
        """The loss of a minibatch, weighted: added to PPO's as it is.

        Args:
            features: [T, L, H] of the policy's memory, after it has read each step's percept.
            targets: the minibatch's part of `targets`.
            valid: [T, L] float, 1 for transitions that count.
        """


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What PPO reads of a meta-batch, [T, L, ...]."""

    inputs: Tensor  # [T, L, F]
    action: Tensor  # [T, L] or [T, L, A]
    log_prob: Tensor  # [T, L] when the actions were taken
    advantage: Tensor  # [T, L]
    value_target: Tensor  # [T, L] returns in the value head's units
    valid: Tensor  # [T, L] float
    auxiliary: Mapping[str, Tensor]  # targets of the auxiliary loss

    def map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        """The results of a function for each of the tensors."""
        auxiliary = {name: function(value) for name, value in self.auxiliary.items()}
        rest = {name: value for name, value in vars(self).items() if name != "auxiliary"}
        return Batch(auxiliary=auxiliary, **{name: function(one) for name, one in rest.items()})


class PPO:
    """Improves an actor-critic from whole trials; holds its optimiser."""

    def __init__(
        self,
        network: ActorCritic,
        config: PPOConfig,
        context: AgentContext,
        auxiliary: AuxiliaryLoss | None = None,
    ) -> None:
        """Learns the parameters of `network` and of `auxiliary`, which lie on the device.

        Raises:
            ConfigError: several ranks train an auxiliary loss, whose sum over ranks is not known.
        """
        if auxiliary is not None and context.ranks.size > 1:
            raise ConfigError(
                f"The auxiliary loss {type(auxiliary).__name__} is trained in one process alone: "
                "it need not be a mean over transitions, so that the sum over several processes is "
                "not defined. Train without torchrun."
            )
        self._ranks = context.ranks
        self.network = network
        self._config = config
        self._auxiliary = auxiliary
        learner = nn.ModuleDict({"network": network})
        if auxiliary is not None:
            learner["auxiliary"] = auxiliary
        self._optimiser = TrialOptimiser("PPO", learner, config, context)

    def update(self, experience: Trajectory) -> dict[str, float]:
        """Several epochs of minibatches on one phase of whole trials; returns metrics.

        Raises:
            MetaRLError: such as `NonFiniteError` for a gradient; the learner is unchanged.
        """
        config, optimiser = self._config, self._optimiser
        entropy_coef = optimiser.scheduled(config.entropy_coef, config.final_entropy_coef)
        learning_rate = optimiser.learning_rate
        percepts = experience.percepts()
        with optimiser.unchanged_on_error(), self._threads():
            batch, explained_variance = self._advantages_and_targets(experience, percepts)
            means = self._learn(batch, entropy_coef)
            # Only now: this experience was collected and learned from with the former statistics.
            self.network.observe(percepts, experience.valid, self._ranks)
        return means | {
            "explained_variance": float(explained_variance),
            "learning_rate": learning_rate,
            "entropy_coef": entropy_coef,
        }

    def state(self) -> dict[str, Tensor]:
        """Parameters, optimiser and the count of updates."""
        return self._optimiser.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` returned."""
        self._optimiser.load_state(state)

    def _threads(self) -> AbstractContextManager[None]:
        """The compiled library has all threads where it computes the gradients."""
        weights = self._weights()
        return nullcontext() if weights is None else alone(*weights.all)

    def _weights(self) -> ActorCriticWeights | None:
        """Of a network and a loss that the compiled library may serve."""
        return self.network.plain_weights if self._auxiliary is None else None

    @torch.no_grad()
    def _advantages_and_targets(
        self, experience: Trajectory, percepts: Percept
    ) -> tuple[Batch, Tensor]:
        """Advantages and value targets over whole trials; also the explained variance."""
        inputs = self.network.encode(percepts).flatten(1, 2)
        valid = experience.valid.flatten(1, 2)
        kept = experience.value
        value = self.network.values(inputs) if kept is None else kept.flatten(1, 2)
        # Values go on across the episodes of a trial, so that of the next step is the next value,
        # after a reset, too; only the end of the trial terminates.
        next_value = torch.cat((value[1:], torch.zeros_like(value[:1])))
        trial_end = experience.trial_end.flatten(1, 2)
        reward = experience.reward.flatten(1, 2)
        advantage = gae(
            reward,
            value,
            next_value,
            terminated=trial_end,
            truncated=torch.zeros_like(trial_end),
            gamma=self._config.gamma,
            gae_lambda=self._config.gae_lambda,
        )
        returns = advantage + value
        explained = self._explained_variance(advantage[valid], returns[valid])
        self.network.value.observe(returns[valid], self._ranks)
        weight = valid.to(reward.dtype)
        if self._config.normalise_advantages:
            advantage = normalised(advantage, weight, self._ranks)
        batch = Batch(
            inputs=inputs,
            action=experience.action.flatten(1, 2),
            log_prob=experience.log_prob.flatten(1, 2),
            advantage=advantage,
            value_target=self.network.value.scaled(returns),
            valid=weight,
            auxiliary=self._auxiliary_targets(experience, valid),
        )
        return batch, explained

    def _explained_variance(self, error: Tensor, returns: Tensor) -> Tensor:
        """Share of the variance of the returns [M] that the values explain, on all ranks."""
        moments = self._ranks.moments(torch.stack((error, returns), 1))
        unexplained, whole = moments.variance.unbind()
        return 1.0 - unexplained / whole.clamp_min(1e-12)

    def _auxiliary_targets(self, experience: Trajectory, valid: Tensor) -> Mapping[str, Tensor]:
        if self._auxiliary is None:
            return {}
        targets = self._auxiliary.targets(experience)
        for name, value in targets.items():
            if value.shape[:2] != valid.shape:
                raise ShapeError(
                    f"The target {name!r} of {type(self._auxiliary).__name__} must be [T, L, ...] "
                    f"with T, L = {list(valid.shape)}; got {list(value.shape)}. Join tasks and "
                    "rollouts with flatten(1, 2)."
                )
        return targets

    def _learn(self, batch: Batch, entropy_coef: float) -> dict[str, float]:
        """By the compiled library where it serves network and loss, else by autograd."""
        weights = self._weights()
        inputs = PPOInputs(
            inputs=batch.inputs,
            action=batch.action,
            old_log_prob=batch.log_prob,
            advantage=batch.advantage,
            value_target=batch.value_target,
            valid=batch.valid,
        )
        if weights is None or not can_run(weights, inputs):
            gradient = ByAutograd(batch, self._loss, (entropy_coef,))
            return self._optimiser.update(batch.valid, gradient)
        gradients = PPOGradients(
            weights,
            inputs,
            clip_range=self._config.clip_range,
            value_coef=self._config.value_coef,
            entropy_coef=entropy_coef,
        )
        return self._optimiser.update(batch.valid, gradients.minibatch)

    def _loss(self, batch: Batch, entropy_coef: Tensor | float) -> tuple[Tensor, dict[str, Tensor]]:
        """Surrogate, value error, entropy and auxiliary loss of a minibatch; and metrics."""
        output = self.network(batch.inputs)
        log_prob, entropy = self.network.head.evaluate_once(output.dist_params, batch.action)
        terms = PPOTerms(
            log_prob=log_prob,
            old_log_prob=batch.log_prob,
            advantage=batch.advantage,
            value=output.value,
            value_target=batch.value_target,
            entropy=entropy,
            valid=batch.valid,
        )
        loss, metrics = ppo_loss(
            terms,
            clip_range=self._config.clip_range,
            value_coef=self._config.value_coef,
            entropy_coef=entropy_coef,
        )
        if self._auxiliary is not None:
            auxiliary = self._auxiliary(output.features, batch.auxiliary, batch.valid)
            if auxiliary.shape != ():
                raise ShapeError(
                    f"{type(self._auxiliary).__name__} must return one number, the loss; got "
                    f"shape {list(auxiliary.shape)}."
                )
            loss = loss + auxiliary
            metrics["auxiliary_loss"] = auxiliary.detach()
        return loss, metrics
