"""MAML: initial parameters from which one or two gradient steps adapt well, learned by TRPO.

Source: Finn et al. 2017, arXiv:1703.03400. Inner loop: policy gradient over a linear baseline.
Outer loop: TRPO through the inner steps, exact to second order; FOMAML drops that order. The
meta-gradient is `outer_loop.MetaProblem.meta_gradient`; `maml_by_definition.py` defines it.
"""

from dataclasses import dataclass

from metarl.agents.gradient.inner_rules import InnerRule
from metarl.agents.gradient.outer_loop import OuterLoss
from metarl.agents.gradient.trainer import TrustRegionConfig


@dataclass(frozen=True, kw_only=True)
class MAMLConfig(TrustRegionConfig):
    """MAML: adapts by policy-gradient steps from a learned start (Finn et al. 2017, 1703.03400)."""

    @property
    def label(self) -> str:
        """MAML, and the estimator where it is not the plain one."""
        return self.label_with_estimator("FOMAML" if self.first_order else "MAML")

    def inner_rule(self) -> InnerRule:
        """Gradient descent."""
        return self.gradient_descent()

    def outer_loss(self) -> OuterLoss:
        """The adapted policies' loss."""
        return self.loss_after_adaptation()


@dataclass(frozen=True, kw_only=True)
class FOMAMLConfig(TrustRegionConfig):
    """First-order MAML: takes inner gradients as constants (Finn et al. 2017, 1703.03400)."""

    first_order: bool = True
    """take inner gradients as constants in the meta-gradient"""

    @property
    def label(self) -> str:
        """FOMAML, and the estimator where it is not the plain one."""
        return self.label_with_estimator("FOMAML" if self.first_order else "MAML")

    def inner_rule(self) -> InnerRule:
        """Gradient descent."""
        return self.gradient_descent()

    def outer_loss(self) -> OuterLoss:
        """The adapted policies' loss."""
        return self.loss_after_adaptation()
