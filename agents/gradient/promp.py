"""ProMP: low-variance curvature in the inner step, PPO and a KL penalty outside.

Source: Rothfuss et al. 2019, arXiv:1810.06784, and its released code for the defaults.
"""

from dataclasses import dataclass

import torch

from metarl.agents.gradient.inner_rules import InnerRule
from metarl.agents.gradient.options import MAX_OPTION
from metarl.agents.gradient.outer_loop import OuterRule
from metarl.agents.gradient.pg_batch import Estimator
from metarl.agents.gradient.proximal import Proximal
from metarl.agents.gradient.trainer import GradientConfig
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class ProMPConfig(GradientConfig):
    """ProMP: proximal meta-policy search (Rothfuss et al. 2019, arXiv:1810.06784)."""

    estimator: Estimator = "lvc"
    """inner loss: score (plain), lvc (low-variance curvature), dice or loaded_dice"""
    clip_range: float = 0.3
    """how far the probability ratio may move before its gradient is cut"""
    num_epochs: int = 5
    """steps of Adam per meta-iteration, each with a new meta-gradient"""
    learning_rate: float = 1e-3
    """of Adam"""
    target_kl: float = 0.01
    """target change of the policies before each inner step in a meta-iteration, a KL divergence"""
    initial_kl_coef: float = 5e-4
    """KL coefficient of that divergence at the start; it adapts"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_policy_gradient()
        for name in ("clip_range", "num_epochs", "learning_rate", "target_kl"):
            require_positive(name, getattr(self, name))
        require_between("initial_kl_coef", self.initial_kl_coef, 0.0, MAX_OPTION)

    @property
    def label(self) -> str:
        """ProMP."""
        return self.label_with_estimator("ProMP", usual="lvc")

    def inner_rule(self) -> InnerRule:
        """Gradient descent."""
        return self.gradient_descent()

    def outer_rule(self, size: int, device: torch.device) -> OuterRule:
        """PPO with adaptive KL coefficients."""
        return Proximal(
            inner_steps=self.adaptation_steps * self.gradient_steps,
            size=size,
            clip_range=self.clip_range,
            num_epochs=self.num_epochs,
            learning_rate=self.learning_rate,
            target=self.target_kl,
            kl_coef=self.initial_kl_coef,
            device=device,
        )
