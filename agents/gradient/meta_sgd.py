"""Meta-SGD: MAML that learns a rate for each parameter, too.

Source: Li et al. 2017, arXiv:1707.09835. That all rates begin equal and are kept between 0 and a
highest one is ours.
"""

from dataclasses import dataclass

from metarl.agents.gradient.inner_loop import InnerRule, LearnedRates
from metarl.agents.gradient.trainer import TrustRegionConfig
from metarl.errors import ConfigError
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class MetaSGDConfig(TrustRegionConfig):
    """Meta-SGD: learns each parameter's inner rate (Li et al. 2017, arXiv:1707.09835)."""

    max_inner_lr: float = 1.0
    """learnt rates are kept between 0 and this"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("max_inner_lr", self.max_inner_lr)
        if self.inner_lr > self.max_inner_lr:
            raise ConfigError(
                f"inner_lr={self.inner_lr} is where the learnt rates begin, so it must not be "
                f"above max_inner_lr={self.max_inner_lr}, which they are kept below."
            )

    @property
    def label(self) -> str:
        """Meta-SGD."""
        return "Meta-SGD"

    def inner_rule(self) -> InnerRule:
        """A learnt rate for each parameter, at first all `inner_lr`."""
        return LearnedRates(self.inner_lr, self.max_inner_lr, self.schedule)
