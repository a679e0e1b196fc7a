"""MAML with another inner loop: gradient descent with momentum and a learned decay."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from metarl.agents.gradient.inner_rules import InnerRule, RuleInputs, RuleOutputs
from metarl.agents.gradient.outer_loop import OuterLoss, surrogate_loss
from metarl.agents.gradient.trainer import TrustRegionConfig
from metarl.validation import require_between


@dataclass(frozen=True)
class Momentum(InnerRule):
    """velocity <- decay * velocity + gradient,   params <- params - lr * velocity.

    The decay is meta-learned: one number, kept between 0 and 1. Derivatives through the steps come
    from `torch.func`.
    """

    uses_loss = False
    inner_lr: float
    decay: float

    def initial(self, size: int, generator: Generator) -> Tensor:
        """The decay before meta-learning, [1]."""
        return torch.tensor([self.decay])

    def start(self, initial: Tensor, rule_params: Tensor, noise: Tensor) -> RuleOutputs:
        """No velocity."""
        return RuleOutputs(initial, (torch.zeros_like(initial),))

    def project(self, rule_params: Tensor) -> Tensor:
        """Clamps the decay."""
        return rule_params.clamp(0.0, 1.0)

    def apply(self, inputs: RuleInputs, step: int) -> RuleOutputs:
        """One step."""
        velocity = inputs.rule_params * inputs.state[0] + inputs.gradient
        return RuleOutputs(inputs.params - self.inner_lr * velocity, (velocity,))


@dataclass(frozen=True, kw_only=True)
class MomentumMAMLConfig(TrustRegionConfig):
    """MAML whose inner loop has momentum with a learned decay."""

    adaptation_steps: int = 2
    """inner gradient steps per task in training (K); momentum needs two"""
    momentum: float = 0.5
    """decay of the velocity before meta-learning"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between("momentum", self.momentum, 0.0, 1.0)

    @property
    def label(self) -> str:
        """MAML with momentum."""
        return "MAML with momentum"

    def inner_rule(self) -> InnerRule:
        """Momentum."""
        return Momentum(self.inner_lr, self.momentum)

    def outer_loss(self) -> OuterLoss:
        """That of MAML."""
        return surrogate_loss
