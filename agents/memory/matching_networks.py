"""Matching Networks in RL form: a policy with an episodic memory.

The policy attends to earlier observations by cosine similarity, and reads what followed them:
actions, rewards, labels. Like RL^2 it adapts in this memory, and is trained by PPO over whole
trials. The memory, and what is the same as in the paper: `metarl.networks.episodic`.

Source: Vinyals et al. 2016, arXiv:1606.04080, for supervised few-shot classification. Unlike the
paper: rewards instead of a supervised loss; outcomes are whole percepts, not labels alone; the
policy is a multilayer perceptron on what the memory returned; the similarity has a temperature.
"""

from dataclasses import dataclass

from metarl.agents.memory.trainer import RecurrentConfig


@dataclass(frozen=True, kw_only=True)
class MatchingConfig(RecurrentConfig):
    """Matching Networks: adapts in an episodic memory (Vinyals et al. 2016, arXiv:1606.04080)."""

    memory: str = "matching"
    """matching; none is the negative control; or another memory: see `metarl list`"""

    @property
    def label(self) -> str:
        """Matching Networks, with the memory where it is another one."""
        return self.label_with_memory("Matching Networks", usual="matching")
