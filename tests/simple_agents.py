"""A small agent that adapts separate parameters for each task, so that phases differ visibly."""

from dataclasses import dataclass

import torch

from metarl.agent import Adapted, AgentConfig, PolicyOutput
from metarl.errors import CheckpointError
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class SteeringConfig(AgentConfig):
    """Steers towards a point of the plane, and moves that point to where the reward was highest."""

    num_tasks: int = 2
    """tasks per meta-batch (N)"""
    rollouts_per_task: int = 4
    """environments stepped in parallel in each task (B)"""
    episodes: int | None = 1
    """consecutive episodes per rollout (E)"""
    iterations: int = 1
    """meta-iterations of the whole run"""
    adaptation_steps: int = 1
    """adaptation steps in training"""
    evaluation_steps: int = 2
    """adaptation steps in evaluation"""
    rate: float = 1.0
    """share of the distance by which the point moves"""
    width: int = 3
    """size of a network that is not used"""
    hidden_sizes: tuple[int, ...] = (8, 8)
    """not used; an option that JSON keeps as a list"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("rate", self.rate)

    @property
    def reads_next_obs(self) -> bool:
        return True

    @property
    def label(self) -> str:
        return f"steering at {self.rate}"

    def build(self, context):
        return Steering(self)


class Steering:
    def __init__(self, config):
        self.config = config
        self.adaptation_steps, self.evaluation_steps = (
            config.adaptation_steps,
            config.evaluation_steps,
        )
        self.network = torch.zeros(config.width)

    def start(self, num_tasks, noise):
        return SteeringPolicy(torch.zeros(num_tasks, 2), 0.5)

    def adapt(self, policy, experience, noise):
        reward = experience.reward.masked_fill(~experience.valid, -torch.inf)
        reward, place = (v.movedim(0, 2).flatten(1, 2) for v in (reward, experience.next_obs))
        best = reward.argmax(1)[:, None, None].expand(-1, 1, 2)
        rate = self.config.rate
        aim = policy.aim + rate * (place.gather(1, best)[:, 0] - policy.aim)
        return Adapted(SteeringPolicy(aim, policy.spread * (1 - 0.6 * rate)))

    def update(self, batch):
        assert len(batch.phases) == 1 + self.adaptation_steps
        self.network = self.network + 1.0
        return {}

    def state(self):
        return {"network": self.network}

    def load_state(self, state):
        if state["network"].shape != self.network.shape:
            raise CheckpointError("another width")
        self.network = state["network"]


class SteeringPolicy:
    """Goes to its aim [N, 2]; each lane misses it by `spread` in a random direction."""

    def __init__(self, aim, spread):
        self.aim, self.spread = aim, spread

    def initial_memory(self, lanes, horizon):
        aim = self.aim.repeat_interleave(lanes // len(self.aim), 0)
        return aim, torch.zeros_like(aim)

    def act(self, percept, memory, noise):
        aim, miss = memory
        drawn, jitter = noise.normal(2), noise.normal(2)
        miss = torch.where(percept.first_of_episode[:, None], self.spread * drawn, miss)
        step = (aim + miss - percept.obs).clamp(-0.1, 0.1)
        zeros = torch.zeros_like(percept.previous_reward)
        return PolicyOutput(step + 0.02 * jitter, zeros, (aim, miss))
