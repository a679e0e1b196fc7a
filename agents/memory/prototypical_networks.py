"""Prototypical Networks in RL form: a policy with an episodic memory.

The policy compares the observation with a prototype of each action or class: the mean of earlier
observations, weighted by what followed them. Like RL^2 it adapts in this memory, and is trained by
PPO over whole trials. The memory, and what is the same as in the paper: `metarl.networks.episodic`.

Source: Snell et al. 2017, arXiv:1703.05175, for supervised few-shot classification. Unlike the
paper: rewards instead of a supervised loss; weights are learned from whole percepts, not labels
alone; the policy is a multilayer perceptron on the distances.
"""

from dataclasses import dataclass

from metarl.agents.memory.trainer import RecurrentConfig


@dataclass(frozen=True, kw_only=True)
class PrototypicalConfig(RecurrentConfig):
    """Prototypical Networks: adapts in an episodic memory (Snell et al. 2017, arXiv:1703.05175)."""

    memory: str = "prototypical"
    """prototypical; none is the negative control; or another memory: see `metarl list`"""

    @property
    def label(self) -> str:
        """Prototypical Networks, with the memory where it is another one."""
        return self.label_with_memory("Prototypical Networks", usual="prototypical")
