"""The trainer of all agents that adapt by gradient steps: an inner rule and an outer rule.

Each published algorithm is a file next to this one that names its parts and its defaults.

Axes: `T` steps, `N` tasks, `B` rollouts of each, `P` parameters of a policy, `K` adaptation steps.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch

from metarl.agent import Agent, AgentContext
from metarl.agents.gradient.agent import GradientAgent
from metarl.agents.gradient.options import MAX_OPTION, GradientOptions
from metarl.agents.gradient.outer_loop import (
    OuterLoss,
    OuterRule,
    TrustRegion,
    supervised_loss,
    surrogate_loss,
)
from metarl.errors import ConfigError
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class GradientConfig(GradientOptions):
    """Hyper-parameters of all agents that adapt by gradient steps."""

    @property
    def trains_on_ranks(self) -> bool:
        """Yes: `MetaProblem` takes means over ranks."""
        return True

    def build(self, context: AgentContext) -> Agent:
        """A new agent of this kind."""
        return GradientAgent(self, context)


@dataclass(frozen=True, kw_only=True)
class TrustRegionConfig(GradientConfig):
    """Agents whose outer rule is TRPO."""

    max_kl: float = 0.01
    """bound on the change of the adapted policies in one meta-iteration: mean KL(old || new)"""
    conjugate_gradient_steps: int = 10
    """conjugate-gradient steps, each a product with the exact curvature of that divergence"""
    multi_step_loss: bool = False
    """put the policies after every inner step into the outer loss, not only after the last"""
    shared_advantage_scale: bool = False
    """divide advantages of all tasks and steps by one standard deviation instead of each by its
    own, so that tasks with larger differences in return weigh more"""
    curvature_rollouts: int | None = None
    """rollouts of each task that the curvature is computed on; fewer are faster; by default all"""
    damping: float = 0.1
    """added to the curvature's diagonal; less makes steps longer where the curvature is large, as
    in navigation, and stops them where it is small, as in bandits"""
    line_search_steps: int = 15
    """line-search candidates before no step is taken"""
    line_search_shrink: float = 0.8
    """ratio of each line-search candidate to the one before"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "max_kl",
            "conjugate_gradient_steps",
            "curvature_rollouts",
            "line_search_steps",
        ):
            require_positive(name, getattr(self, name))
        require_between("damping", self.damping, 0.0, MAX_OPTION)
        if self.multi_step_loss and self.gradient_steps > 1:
            raise ConfigError(
                f"multi_step_loss needs experience after every gradient step; with gradient_steps="
                f"{self.gradient_steps} several are taken on the same. Set one of them to its "
                "default."
            )
        require_between("line_search_shrink", self.line_search_shrink, 0.01, 0.99)

    def loss_after_adaptation(self) -> OuterLoss:
        """The supervised loss with that estimator, else minus the return, as a surrogate."""
        return supervised_loss if self.estimator == "supervised" else surrogate_loss

    @abstractmethod
    def outer_loss(self) -> OuterLoss:
        """The outer loss."""

    def outer_rule(self, size: int, device: torch.device) -> OuterRule:
        """TRPO."""
        return TrustRegion(
            outer_loss=self.outer_loss(),
            max_divergence=self.max_kl,
            steps=self.conjugate_gradient_steps,
            damping=self.damping,
            search_steps=self.line_search_steps,
            shrink=self.line_search_shrink,
            rollouts_per_task=self.curvature_rollouts,
            multi_step_loss=self.multi_step_loss,
            shared_advantage_scale=self.shared_advantage_scale,
        )
