"""PLATIPUS: a learned Gaussian over initial parameters, from which each task samples hypotheses.

Several hypotheses explore a task in parallel, each a policy in its share of the rollouts:

    theta[h]  = mu + sigma * epsilon[h]                                      the prior p
    theta'[h] = mu - gamma * mean over h of gradient[h] + tau * epsilon[h]   the posterior q
    phi[h]    = theta'[h] - alpha * gradient[h]

with gradient[h] of the inner loss at theta[h] on the experience of theta[h]. The mean over
hypotheses estimates the gradient, by mu, of the expected loss under the prior, so all experience of
the task shifts the posterior's mean. Later steps go along both gradients as well. The outer loss is
that of MAML for the adapted hypotheses, plus kl_coef * KL(q || p). mu, sigma, tau and gamma are
meta-learned; with sigma = tau = gamma = 0 it is MAML.

Source: Finn, Xu and Levine 2018, arXiv:1806.02817, algorithms 1 and 2, for supervised learning.
Unlike the paper: the prior is not shifted before hypotheses are sampled, because they collect the
experience in the first place; the posterior is shifted by that experience, not by the test data;
the gradient of the last step is taken before the shift, which saves a second one; gradients are
constants in the KL divergence; TRPO through the inner steps as the outer loop.

Axes: `N` tasks, `H` hypotheses, `P` parameters of a policy.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from metarl.agents.gradient.inner_rules import (
    CONSTANT,
    InnerRule,
    LearningRateSchedule,
    RuleInputs,
    RuleOutputs,
)
from metarl.agents.gradient.options import MAX_OPTION
from metarl.agents.gradient.outer_loop import OuterLoss
from metarl.agents.gradient.trainer import TrustRegionConfig
from metarl.errors import ConfigError
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class SampledHypotheses(InnerRule):
    """Hypotheses from a Gaussian that is meta-learned; see the module.

    Its parameters are log sigma [P], log tau [P] and log gamma [1], so that 0 stays 0.
    """

    uses_loss = False
    hypotheses: int
    inner_lr: float
    shared_lr: float
    """gamma before meta-learning"""
    initial_spread: float
    """sigma before meta-learning"""
    posterior_share: float
    """tau / sigma before meta-learning"""
    kl_coef: float
    schedule: LearningRateSchedule = CONSTANT

    def initial(self, size: int, generator: Generator) -> Tensor:
        """Equal deviations of all policy parameters, [2 P + 1]."""
        prior = torch.full((size,), self.initial_spread)
        shared_lr = torch.tensor([self.shared_lr])
        return torch.cat((prior, self.posterior_share * prior, shared_lr)).log()

    def for_policies(self, per_task: int) -> "SampledHypotheses":
        """With as many hypotheses."""
        return replace(self, hypotheses=per_task)

    def noise_size(self, size: int) -> int:
        """Epsilon of every parameter."""
        return size

    def start(self, initial: Tensor, rule_params: Tensor, noise: Tensor) -> RuleOutputs:
        """Hypotheses sampled from the prior, [N H, P]; the state is epsilon."""
        prior, _, _ = _split(rule_params)
        return RuleOutputs(initial + prior.exp() * noise, (noise,))

    def apply(self, inputs: RuleInputs, step: int) -> RuleOutputs:
        """From the prior to the posterior in the first step; along both gradients in each."""
        prior, posterior, shared_lr = _split(inputs.rule_params)
        params, noise = inputs.params, inputs.state[0]
        if step == 0:
            params = params + (posterior.exp() - prior.exp()) * noise
        of_task = self._mean_over_hypotheses(inputs.gradient)
        shared = of_task.repeat_interleave(self.hypotheses, 0)
        change = self.inner_lr * inputs.gradient + shared_lr * shared
        return RuleOutputs(params - self.schedule.factor(step) * change, inputs.state)

    def penalty(self, rule_params: Tensor, gradient: Tensor) -> Tensor:
        """`kl_coef` * KL(q || p), in nats, the mean over tasks."""
        if self.kl_coef == 0.0:
            return rule_params.new_zeros(())
        prior, posterior, shared_lr = _split(rule_params)
        shift = shared_lr * self._mean_over_hypotheses(gradient)
        return self.kl_coef * kl_divergence(shift, posterior, prior).mean()

    def _mean_over_hypotheses(self, gradient: Tensor) -> Tensor:
        """[N H, P] -> [N, P]."""
        return gradient.view(-1, self.hypotheses, gradient.shape[1]).mean(1)


def _split(rule_params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log sigma [P], log tau [P], gamma []."""
    size = len(rule_params) // 2
    return rule_params[:size], rule_params[size:-1], rule_params[-1].exp()


def kl_divergence(shift: Tensor, log_posterior: Tensor, log_prior: Tensor) -> Tensor:
    """KL(q || p) of Gaussians whose means differ by `shift` [N, P]; log-deviations [P]; [N]."""
    log_ratio = log_posterior - log_prior
    square = (2 * log_ratio).exp() + (shift / log_prior.exp()).square()
    return (0.5 * (square - 1.0) - log_ratio).sum(1)


@dataclass(frozen=True, kw_only=True)
class PLATIPUSConfig(TrustRegionConfig):
    """PLATIPUS: adapts sampled hypotheses by gradient steps (Finn et al. 2018, 1806.02817)."""

    hypotheses: int = 4
    """policies sampled for each task (H); each is rolled out in rollouts_per_task / H rollouts; in
    fewer than H environments as many of them act"""
    initial_spread: float = 0.05
    """standard deviation of parameters over hypotheses before any experience (sigma), before
    meta-learning; 0 is the negative control: all hypotheses are the same"""
    posterior_share: float = 0.3
    """that deviation after the first step (tau), in units of sigma, before meta-learning"""
    shared_lr: float = 0.1
    """learning rate, before meta-learning, for the gradient that all hypotheses of a task share; 0
    stays 0"""
    kl_coef: float = 1e-5
    """weight of KL(posterior || prior), in nats, in the outer loss; it is summed over parameters"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("hypotheses", self.hypotheses)
        require_positive("posterior_share", self.posterior_share)
        for name in ("initial_spread", "shared_lr", "kl_coef"):
            require_between(name, getattr(self, name), 0.0, MAX_OPTION)
        if self.rollouts_per_task % self.hypotheses:
            raise ConfigError(
                f"rollouts_per_task={self.rollouts_per_task} does not divide into "
                f"hypotheses={self.hypotheses} (remainder "
                f"{self.rollouts_per_task % self.hypotheses}); all hypotheses of a task are rolled "
                "out equally often, so it must be a multiple."
            )
        if self.adapt_each_rollout and self.hypotheses != self.rollouts_per_task:
            raise ConfigError(
                f"adapt_each_rollout needs a hypothesis for each rollout; hypotheses="
                f"{self.hypotheses} and rollouts_per_task={self.rollouts_per_task} differ."
            )
        if self.initial_spread == 0.0 and self.kl_coef > 0.0:
            raise ConfigError(
                f"initial_spread=0 makes the prior a point, so kl_coef={self.kl_coef} would weigh "
                "an infinite divergence; set kl_coef=0 as well."
            )

    @property
    def policies_per_task(self) -> int | None:
        """H."""
        return self.hypotheses

    @property
    def label(self) -> str:
        """PLATIPUS, whether its hypotheses are all the same, and the estimator."""
        name = "PLATIPUS" if self.initial_spread else "PLATIPUS without variance"
        return self.label_with_estimator(name)

    def inner_rule(self) -> InnerRule:
        """Sampled hypotheses."""
        return SampledHypotheses(
            hypotheses=self.hypotheses,
            inner_lr=self.inner_lr,
            shared_lr=self.shared_lr,
            initial_spread=self.initial_spread,
            posterior_share=self.posterior_share,
            kl_coef=self.kl_coef,
            schedule=self.schedule,
        )

    def outer_loss(self) -> OuterLoss:
        """The adapted hypotheses' loss."""
        return self.loss_after_adaptation()
