"""Pretrained: one policy trained for the mean over tasks, then adapted by gradient steps.

The baseline of Finn et al. 2017, arXiv:1703.03400, section 5: TRPO on all tasks jointly, without
regard to the adaptation in evaluation.
"""

from dataclasses import dataclass

from metarl.agents.gradient.inner_rules import InnerRule
from metarl.agents.gradient.outer_loop import OuterLoss
from metarl.agents.gradient.trainer import TrustRegionConfig


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(TrustRegionConfig):
    """Pretrained: joint training over tasks, adapted afterwards (Finn et al. 2017, 1703.03400)."""

    adaptation_steps: int = 0
    """inner gradient steps per task in training: none"""

    @property
    def label(self) -> str:
        """Pretrained."""
        return "pretrained"

    def inner_rule(self) -> InnerRule:
        """Gradient descent."""
        return self.gradient_descent()

    def outer_loss(self) -> OuterLoss:
        """The adapted policies' loss."""
        return self.loss_after_adaptation()
