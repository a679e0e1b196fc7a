"""RL^2: a recurrent policy that adapts in its memory, trained by PPO over whole trials.

The return runs on across the episodes of a trial and ends with the trial. The memory is cleared at
the start of a trial, never at the start of an episode.

Sources: Duan et al. 2016, arXiv:1611.02779 (the idea, percept and discounting); Wang et al. 2016,
arXiv:1611.05763; Schulman et al. 2017, arXiv:1707.06347 (PPO); Schulman et al. 2016,
arXiv:1506.02438 (GAE). Unlike the paper: PPO instead of TRPO, GAE lambda .95 by default instead of
.3, values in units of the returns' running mean and deviation (PopArt). Memories and their sources:
`metarl.networks.recurrent`.
"""

from dataclasses import dataclass

from metarl.agents.memory.trainer import RecurrentConfig


@dataclass(frozen=True, kw_only=True)
class RL2Config(RecurrentConfig):
    """RL^2: adapts in the memory of a recurrent network (Duan et al. 2016, arXiv:1611.02779)."""

    @property
    def label(self) -> str:
        """RL², with the memory where it is not the usual one."""
        return self.label_with_memory("RL²", usual="gru")
