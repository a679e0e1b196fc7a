"""Meta-SGD: MAML that also learns an inner learning rate for each parameter.

Source: Li et al. 2017, arXiv:1707.09835. Unlike the paper, all rates start equal and are kept
between 0 and a maximum.
"""

from dataclasses import dataclass

from metarl.agents.gradient.inner_rules import InnerRule, LearnedRates
from metarl.agents.gradient.outer_loop import OuterLoss
from metarl.agents.gradient.trainer import TrustRegionConfig
from metarl.errors import ConfigError
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class MetaSGDConfig(TrustRegionConfig):
    """Meta-SGD: learns an inner rate for each parameter (Li et al. 2017, arXiv:1707.09835)."""

    max_inner_lr: float = 1.0
    """learned rates are kept between 0 and this"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("max_inner_lr", self.max_inner_lr)
        if self.inner_lr > self.max_inner_lr:
            raise ConfigError(
                f"inner_lr={self.inner_lr} is the initial value of the learned rates, so it must "
                f"not be above their upper bound max_inner_lr={self.max_inner_lr}."
            )

    @property
    def label(self) -> str:
        """Meta-SGD, and the estimator where it is not the plain one."""
        return self.label_with_estimator("Meta-SGD")

    def inner_rule(self) -> InnerRule:
        """A learned rate for each parameter, initially `inner_lr`."""
        return LearnedRates(self.inner_lr, self.max_inner_lr, self.schedule)

    def outer_loss(self) -> OuterLoss:
        """The adapted policies' loss."""
        return self.loss_after_adaptation()
