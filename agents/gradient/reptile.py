"""Reptile in reinforcement learning: adapt, then move towards the mean of the adapted parameters.

Source: Nichol et al. 2018, arXiv:1803.02999, whose authors report that it did not help in
reinforcement learning (section 7).
"""

from dataclasses import dataclass

import torch

from metarl.agents.gradient.inner_rules import InnerRule
from metarl.agents.gradient.outer_loop import Averaging, OuterRule
from metarl.agents.gradient.trainer import GradientConfig
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class ReptileConfig(GradientConfig):
    """Reptile: moves towards the mean of adapted parameters (Nichol et al. 2018, 1803.02999)."""

    adaptation_steps: int = 3
    """inner gradient steps per task in training (K); with one, Reptile is joint training"""
    later_lr_scale: float = 1.0
    """factor on the inner learning rate in all steps but the first"""
    outer_lr: float = 1.0
    """outer learning rate: fraction of the step to the mean of the adapted parameters"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("adaptation_steps", self.adaptation_steps)
        require_positive("outer_lr", self.outer_lr)

    @property
    def label(self) -> str:
        """Reptile."""
        return "Reptile"

    def inner_rule(self) -> InnerRule:
        """Gradient descent."""
        return self.gradient_descent()

    def outer_rule(self, size: int, device: torch.device) -> OuterRule:
        """Averaging."""
        return Averaging(self.outer_lr)
