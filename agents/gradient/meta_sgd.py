"""Meta-SGD: MAML that learns a rate for each parameter, too.

Source: Li et al. 2017, arXiv:1707.09835. That all rates begin equal and are kept between 0 and a
highest one is ours.
"""

from dataclasses import dataclass

from metarl.agents.gradient.inner_loop import InnerRule, LearntRates
from metarl.agents.gradient.trainer import TrustRegionConfig
from metarl.errors import ConfigError
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class MetaSGDConfig(TrustRegionConfig):
    """Meta-SGD: learns each parameter's inner rate (Li et al. 2017, arXiv:1707.09835)."""

    highest_rate: float = 1.0
    """learnt rates are kept between 0 and this"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("highest_rate", self.highest_rate)
        if self.inner_rate > self.highest_rate:
            raise ConfigError(
                f"inner_rate={self.inner_rate} is where the learnt rates begin, so it must not be "
                f"above highest_rate={self.highest_rate}, which they are kept below."
            )

    @property
    def label(self) -> str:
        """Meta-SGD."""
        return "Meta-SGD"

    def inner_rule(self) -> InnerRule:
        """A learnt rate for each parameter, at first all `inner_rate`."""
        return LearntRates(self.inner_rate, self.highest_rate)
