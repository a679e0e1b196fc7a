"""MAML: initial parameters from which a gradient step or two adapt well, learnt by TRPO.

Source: Finn et al. 2017, arXiv:1703.03400. Inner step: policy gradient over a linear baseline.
Outer rule: TRPO through the inner step, exact to second order; FOMAML leaves that order out.
"""

from dataclasses import dataclass

from metarl.agents.gradient.trainer import TrustRegionConfig


@dataclass(frozen=True, kw_only=True)
class MAMLConfig(TrustRegionConfig):
    """MAML: adapts by policy-gradient steps from a learnt start (Finn et al. 2017, 1703.03400)."""

    @property
    def label(self) -> str:
        """MAML, and the estimator where it is not the plain one."""
        name = "FOMAML" if self.first_order else "MAML"
        return name if self.estimator == "score" else f"{name} ({self.estimator})"


@dataclass(frozen=True, kw_only=True)
class FOMAMLConfig(MAMLConfig):
    """First-order MAML: takes inner gradients for constants (Finn et al. 2017, 1703.03400)."""

    first_order: bool = True
    """take inner gradients for constants in the meta-gradient"""
