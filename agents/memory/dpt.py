"""Decision-pretrained transformer: a policy with memory that learns by imitation.

A transformer reads the trial so far and predicts the action of a reference policy: the Gittins
index, an exact optimum, posterior sampling, or an oracle that knows the task. Rolled out, it adapts
in its memory like RL^2, without the labels. So it shows how well a memory can adapt where the
credit assignment of reinforcement learning is no obstacle.

What it learns depends on the reference. One that uses only what is in the trial is reproduced. Of
an oracle, whose action the trial does not determine, the policy learns the posterior distribution:
acting by it is posterior sampling (Lee et al. 2023, theorem 1; in bandits, Thompson sampling).

Source: Lee et al. 2023, arXiv:2306.14892; imitation of the Gittins index by a recurrent network:
Duan et al. 2016, arXiv:1611.02779, section 3.1. Unlike Lee et al.: experience comes from the
policy that learns instead of a data set (`metarl.learning.imitation`, which names its source), so
that it covers what the policy does itself; any reference may be imitated, not only the optimal
action of the task; the context has the order of the trial, and every step of it is a query; the
memory may be another one than a transformer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from metarl.agent import Agent, AgentContext, MetaBatch, Policy
from metarl.agents.memory.trainer import (
    MemoryAgent,
    build_network,
    label_with_memory,
    require_network_options,
)
from metarl.learning.imitation import Imitation, ImitationConfig
from metarl.networks.actor_critic import NetworkOptions
from metarl.noise import LaneNoise
from metarl.registry import make_memory_options


@dataclass(frozen=True, kw_only=True)
class DPTConfig(ImitationConfig):
    """Decision-pretrained transformer: imitates a reference (Lee et al. 2023, 2306.14892)."""

    memory: str = "transformer"
    """transformer; none is the negative control; or another memory: see `metarl list`"""
    memory_options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """options of the memory by name, such as layers 4 for transformer"""
    hidden_size: int = 64
    """size of the embedding, the memory and the head"""
    normalise_inputs: bool = False
    """read observations and previous rewards in units of their running mean and deviation; for
    those that are far from order one, as in locomotion"""
    initial_std: float = 1.0
    """initial standard deviation of Box actions, in units of half their range"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_network_options(
            self.memory, self.memory_options, self.hidden_size, self.initial_std
        )

    @property
    def label(self) -> str:
        """DPT, with the reference that was asked for, and the memory where it is another one."""
        name = "DPT" if self.reference is None else f"DPT of {self.reference}"
        return label_with_memory(name, self.memory, self.memory_options, usual="transformer")

    def build(self, context: AgentContext) -> Agent:
        """A new agent of this kind.

        Raises:
            ConfigError: the family has no such reference, or it cannot be imitated.
        """
        options = NetworkOptions(
            memory=make_memory_options(self.memory, self.memory_options),
            hidden_size=self.hidden_size,
            normalise_inputs=self.normalise_inputs,
            initial_std=self.initial_std,
        )
        return ImitationAgent(Imitation(build_network(options, context), self, context))


class ImitationAgent(MemoryAgent):
    """Adapts in memory, trained by imitation."""

    def __init__(self, imitation: Imitation) -> None:
        super().__init__(imitation)
        self._imitation = imitation

    def start_guided(self, tasks: Tensor, rollouts_per_task: int, noise: LaneNoise) -> Policy:
        """The policy that collects experience: the reference acts in the guided trials."""
        return self._imitation.acting(self.start(len(tasks), noise), tasks, rollouts_per_task)

    def update(self, batch: MetaBatch) -> Mapping[str, float]:
        """Imitation on one phase of whole trials."""
        return self._imitation.update(batch)
