"""Percepts in, actions and their log-probabilities out.

Axes: `T` steps, `N` tasks, `B` copies, `L` = N x B lanes, then features (`A` action).
"""

import math
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import Memory, PolicyOutput
from metarl.errors import ConfigError
from metarl.networks.action_heads import ActionHead
from metarl.networks.actor_critic import ActorCritic
from metarl.networks.stacked_mlp import StackedMLP
from metarl.trajectory import Percept


@dataclass(frozen=True)
class RecurrentPolicy:
    """Acts with a memory of the whole trial."""

    network: ActorCritic

    def initial_memory(self, num_tasks: int, copies: int, horizon: int = 1000) -> Memory:
        """The initial state of the network's memory in every lane."""
        return self.network.initial_state(num_tasks * copies, horizon)

    def act(self, percept: Percept, memory: Memory, generator: Generator) -> PolicyOutput:
        """One step of the network."""
        inputs = self.network.encode(percept)
        raw, memory = self.network.step(inputs.flatten(0, 1), memory)
        raw = raw.view(*inputs.shape[:2], -1)
        action, log_prob = self.network.head.sample(raw, generator)
        return PolicyOutput(action, log_prob, memory)


@dataclass(frozen=True)
class UniformPolicy:
    """The floor: every action is as likely as every other, whatever happens."""

    action_space: spaces.Discrete | spaces.Box

    def __post_init__(self) -> None:
        space = self.action_space
        if isinstance(space, spaces.Box) and not space.is_bounded():
            raise ConfigError(f"Uniformly random actions need a bounded space; got {space}.")

    def initial_memory(self, num_tasks: int, copies: int) -> Memory:
        """None is needed."""
        return None

    def act(self, percept: Percept, memory: Memory, generator: Generator) -> PolicyOutput:
        """A uniform draw."""
        space, lanes, device = self.action_space, percept.first_of_trial.shape, percept.obs.device
        if isinstance(space, spaces.Discrete):
            low, count = int(space.start), int(space.n)
            action = torch.randint(low, low + count, lanes, generator=generator, device=device)
            return PolicyOutput(action, torch.full(lanes, -math.log(count), device=device), memory)
        low_bound, high_bound = (torch.as_tensor(b, device=device) for b in (space.low, space.high))
        uniform = torch.rand(*lanes, *space.shape, generator=generator, device=device)
        action = low_bound + (high_bound - low_bound) * uniform
        log_prob = -(high_bound - low_bound).log().sum()
        return PolicyOutput(action, log_prob.expand(lanes), memory)


@dataclass(frozen=True)
class StackedPolicy:
    """Acts with separate parameters in every task; reads the observation alone."""

    network: StackedMLP
    head: ActionHead
    params: Tensor  # [N, P]
    rule_state: tuple[Tensor, ...] = ()
    """what the inner rule carries from step to step, each [N, ...]"""
    inner_steps: int = 0
    """adaptation steps taken since the trial began"""

    def initial_memory(self, num_tasks: int, copies: int) -> Memory:
        """None is needed."""
        return None

    def act(self, percept: Percept, memory: Memory, generator: Generator) -> PolicyOutput:
        """One pass through all networks."""
        inputs = percept.obs.to(self.params.dtype).transpose(0, 1).contiguous()
        raw = self.network.outputs(self.params, inputs).transpose(0, 1)
        action, log_prob = self.head.sample(raw, generator)
        return PolicyOutput(action, log_prob, memory)
