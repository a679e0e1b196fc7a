"""An agent of its own kind: exponential weights over the arms of a bandit, no network at all.

Source: Freund and Schapire 1997, doi:10.1006/jcss.1997.1504 (Hedge).
"""

from dataclasses import dataclass, replace

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import Adapted, Agent, AgentConfig, AgentContext, MetaBatch, PolicyOutput
from metarl.errors import ConfigError
from metarl.noise import LaneNoise


@dataclass(frozen=True)
class Preferences:
    """Draws arms by the softmax of preferences [N, A], one row for each task."""

    values: Tensor

    def initial_memory(self, lanes, horizon):
        """None is needed."""

    def act(self, percept, memory, noise):
        """One arm in every lane."""
        rows = self.values.repeat_interleave(noise.lanes // len(self.values), 0)
        log_probs = rows.log_softmax(1)
        action = (log_probs + -noise.exponential(log_probs.shape[1]).log()).argmax(1)  # Gumbel
        return PolicyOutput(action, log_probs.gather(1, action[:, None])[:, 0], None)


@dataclass(frozen=True, kw_only=True)
class HedgeConfig(AgentConfig):
    """Exponential weights over arms; meta-learns their initial values."""

    eta: float = 0.5
    """growth of a preference per unit of reward"""
    label = "Hedge"

    def build(self, context: AgentContext) -> Agent:
        """A new agent."""
        if not isinstance(space := context.action_space, spaces.Discrete):
            raise ConfigError(f"Hedge needs Discrete actions; got {space}.")
        return Hedge(self, torch.zeros(int(space.n), device=context.device))


@dataclass
class Hedge:
    """Adapts without gradients; its own random choices break ties between arms."""

    config: HedgeConfig
    initial: Tensor  # [A]
    adaptation_steps = evaluation_steps = 2

    def start(self, num_tasks: int, noise: LaneNoise) -> Preferences:
        """The meta-learned preferences and a little noise."""
        return Preferences(self.initial + 0.01 * noise.normal(len(self.initial)))

    def adapt(self, policy: Preferences, experience, noise: LaneNoise) -> Adapted:
        """Raises the preference of each arm by the reward that it brought."""
        arms = torch.nn.functional.one_hot(experience.action, len(self.initial))
        change = self.config.eta * (arms * experience.reward.unsqueeze(-1)).sum((0, 2))
        return Adapted(replace(policy, values=policy.values + change), cache=change)

    def update(self, batch: MetaBatch) -> dict[str, float]:
        """Moves the start towards what all tasks prefer after adapting."""
        change = torch.stack(batch.caches).sum(0).mean(0)
        self.initial = self.initial + 0.1 * (change - change.mean())
        return {"largest_preference": float(self.initial.max())}

    def state(self) -> dict[str, Tensor]:
        """The initial preferences."""
        return {"initial": self.initial}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restores them."""
        self.initial = state["initial"]
