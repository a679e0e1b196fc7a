"""VERSA in RL form: a network generates the policy's head from the experience of the trial.

Trained by PPO over whole trials, as RL^2 is; no gradient is taken at test time. The memory, its
equations and the integration over the generated weights: `metarl.networks.amortised`.

Source: Gordon et al. 2019, arXiv:1805.09921, for supervised few-shot learning. Unlike the paper:
rewards instead of labels, so there is a value, which reads the same context; the generated weights
are integrated out instead of sampled; all outputs are generated jointly, because actions are not
exchangeable as classes are.
"""

from dataclasses import dataclass

from metarl.agents.memory.trainer import RecurrentConfig


@dataclass(frozen=True, kw_only=True)
class VERSAConfig(RecurrentConfig):
    """VERSA: generates the policy's head from experience (Gordon et al. 2019, 1805.09921)."""

    memory: str = "amortised"
    """amortised; none is the negative control; or another memory: see `metarl list`"""

    @property
    def label(self) -> str:
        """VERSA, with the memory where it is another one."""
        return self.label_with_memory("VERSA", usual="amortised")
