"""E-MAML: MAML whose first policy also gets credit for the return after adaptation.

Source: Stadie et al. 2018, arXiv:1803.01118.
"""

from dataclasses import dataclass

from metarl.agents.gradient.inner_rules import InnerRule
from metarl.agents.gradient.options import MAX_OPTION
from metarl.agents.gradient.outer_loop import ExplorationLoss, OuterLoss
from metarl.agents.gradient.trainer import TrustRegionConfig
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class EMAMLConfig(TrustRegionConfig):
    """E-MAML: MAML with an exploration term (Stadie et al. 2018, arXiv:1803.01118)."""

    exploration_coef: float = 0.1
    """weight of the first policy's credit for the return after adaptation"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_policy_gradient()
        require_positive("adaptation_steps", self.adaptation_steps)
        require_between("exploration_coef", self.exploration_coef, 0.0, MAX_OPTION)

    @property
    def label(self) -> str:
        """E-MAML."""
        return "E-MAML"

    def inner_rule(self) -> InnerRule:
        """Gradient descent."""
        return self.gradient_descent()

    def outer_loss(self) -> OuterLoss:
        """MAML's, and the exploration term."""
        return ExplorationLoss(self.exploration_coef)
