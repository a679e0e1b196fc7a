"""RL^2 whose memory also learns to predict the next reward.

Source of the idea: Jaderberg et al. 2017, arXiv:1611.05397 (UNREAL), section 3.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from metarl.agent import Agent, AgentContext
from metarl.agents.memory.trainer import RecurrentAgent, RecurrentConfig
from metarl.learning.losses import masked_mean
from metarl.learning.ppo import AuxiliaryLoss
from metarl.networks.action_heads import action_head
from metarl.networks.layers import mlp
from metarl.trajectory import Trajectory
from metarl.validation import require_between


class RewardPrediction(AuxiliaryLoss):
    """Squared error of the predicted reward, given the memory's features and the action."""

    def __init__(
        self, config: "RewardPredictingConfig", context: AgentContext, generator: Generator
    ) -> None:
        super().__init__()
        self._head = action_head(context.action_space)
        sizes = [config.hidden_size + self._head.outputs, config.hidden_size, 1]
        self.network = mlp(sizes, last_gain=0.1, generator=generator)
        self._coef = config.reward_coef

    def targets(self, experience: Trajectory) -> Mapping[str, Tensor]:
        """Actions and rewards."""
        action = self._head.encode(experience.action)
        return {"action": action.flatten(1, 2), "reward": experience.reward.flatten(1, 2)}

    def forward(self, features: Tensor, targets: Mapping[str, Tensor], valid: Tensor) -> Tensor:
        """The weighted error."""
        predicted = self.network(torch.cat((features, targets["action"]), -1)).squeeze(-1)
        return self._coef * masked_mean((predicted - targets["reward"]).square(), valid)


@dataclass(frozen=True, kw_only=True)
class RewardPredictingConfig(RecurrentConfig):
    """RL^2 with an auxiliary loss: the memory predicts the next reward."""

    reward_coef: float = 0.5
    """weight of the squared error of the predicted reward"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between("reward_coef", self.reward_coef, 0.0, float("inf"))

    @property
    def label(self) -> str:
        """RL² with reward prediction."""
        return "RL² with reward prediction"

    def build(self, context: AgentContext) -> Agent:
        """A new agent."""
        auxiliary = RewardPrediction(self, context, context.seeds.torch("reward prediction"))
        return RecurrentAgent(self, context, auxiliary)
