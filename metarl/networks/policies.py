"""Policies made of networks, and the uniform random policy.

Axes: `N` tasks, `B` rollouts of each, `L` = N x B lanes, then features (`A` action).
"""

import math
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import Memory, PolicyOutput
from metarl.errors import ConfigError
from metarl.native.acting import Acting, ActingInputs
from metarl.native.library import alone
from metarl.networks.action_heads import ActionHead
from metarl.networks.actor_critic import ActorCritic
from metarl.networks.memory import MemoryState
from metarl.networks.stacked_mlp import StackedMLP
from metarl.noise import LaneNoise
from metarl.trajectory import Percept


class _CompiledMemory(NamedTuple):
    """The state of a memory, and the packed weights of the network that acts with it."""

    acting: Acting
    state: MemoryState
    value: Tensor | None = None  # [L] the return to come, as estimated by the step that led here


@dataclass(frozen=True)
class RecurrentPolicy:
    """Acts with a memory of the whole trial."""

    network: ActorCritic
    is_greedy: bool = False
    """takes the most likely action"""
    gives_values: bool = False
    """keeps values where they come with the step; an agent that learns from them saves a pass
    through its experience"""

    def greedy(self) -> "RecurrentPolicy":
        """The same policy, but it takes the most likely action."""
        return replace(self, is_greedy=True)

    @property
    def address(self) -> Hashable:
        """Where the network's parameters and buffers lie."""
        tensors = (*self.network.parameters(), *self.network.buffers())
        return self.is_greedy, self.gives_values, *(each.data_ptr() for each in tensors)

    def initial_memory(self, lanes: int, horizon: int) -> Memory:
        """The initial state of the network's memory in every lane.

        Where the compiled library acts, it does so with the weights of this moment.
        """
        state = self.network.initial_state(lanes, horizon)
        acting = self.network.acting(lanes, with_values=self.gives_values)
        return state if acting is None else _CompiledMemory(acting, state)

    def threads(self) -> AbstractContextManager[None]:
        """The compiled library has all threads where it acts."""
        weights = self.network.plain_weights
        return nullcontext() if weights is None else alone(*weights.all)

    @property
    def head(self) -> ActionHead:
        """That of the network."""
        return self.network.head

    def distribution(self, percept: Percept, memory: Memory) -> tuple[Tensor, Memory]:
        """One step of the network: parameters [L, R] and the next memory."""
        if isinstance(memory, _CompiledMemory):
            dist_params, state = self.distribution(percept, memory.state)
            return dist_params, _CompiledMemory(memory.acting, state)
        return self.network.step(self.network.encode(percept), memory)

    def act(self, percept: Percept, memory: Memory, noise: LaneNoise) -> PolicyOutput:
        """One step of the network, and a draw."""
        if isinstance(memory, _CompiledMemory) and not self.is_greedy:
            inputs = ActingInputs(
                percept.obs.to(torch.float32),
                percept.previous_action,
                percept.previous_reward,
                percept.previous_terminated,
                percept.previous_truncated,
                percept.first_of_episode,
                percept.first_of_trial,
                noise.uniform(),
            )
            if memory.acting.can_act(inputs, memory.state):
                action, log_prob, *kept = memory.acting.act(inputs, memory.state)
                return PolicyOutput(action, log_prob, _CompiledMemory(memory.acting, *kept))
        dist_params, memory = self.distribution(percept, memory)
        action, log_prob = self.head.choose(dist_params, noise, greedy=self.is_greedy)
        return PolicyOutput(action, log_prob, memory)

    def value_estimate(self, memory: Memory) -> Tensor | None:
        """That [L] of the step that returned `memory`, where it was kept."""
        return memory.value if isinstance(memory, _CompiledMemory) else None


@dataclass(frozen=True)
class UniformPolicy:
    """The floor: every action is equally likely, whatever happens."""

    action_space: spaces.Discrete | spaces.Box

    def __post_init__(self) -> None:
        space = self.action_space
        if isinstance(space, spaces.Box) and not space.is_bounded():
            raise ConfigError(f"Uniformly random actions need a bounded space; got {space}.")

    @property
    def address(self) -> Hashable:
        """It has no tensors that could move."""
        return "uniform"

    def initial_memory(self, lanes: int, horizon: int) -> Memory:
        """None is needed."""
        return None

    def act(self, percept: Percept, memory: Memory, noise: LaneNoise) -> PolicyOutput:
        """A uniform draw."""
        space, lanes, device = self.action_space, len(percept.first_of_trial), percept.obs.device
        if isinstance(space, spaces.Discrete):
            count = int(space.n)
            action = int(space.start) + noise.integers(count)
            return PolicyOutput(action, torch.full((lanes,), -math.log(count), device=device), None)
        low, high = (
            _on_device(tuple(bound.ravel().tolist()), device).view(bound.shape)
            for bound in (space.low, space.high)
        )
        action = low + (high - low) * noise.uniform(*space.shape)
        log_prob = -(high - low).log().sum()
        return PolicyOutput(action, log_prob.expand(lanes), None)


@lru_cache(maxsize=16)
def _on_device(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """A tensor of these, copied to the device once."""
    return torch.tensor(numbers, device=device)


@dataclass(frozen=True)
class StackedPolicy:
    """Acts with separate parameters in every task; reads the observation alone.

    A task has one row of parameters, or several, which equal shares of its rollouts take one each;
    of fewer rollouts each takes one. Who starts a policy need not know the rollouts: where they do
    not take the rows as they are, the memory is the parameters of each lane, [L, P].
    """

    network: StackedMLP
    head: ActionHead
    params: Tensor  # [N, P]
    policies_per_task: int | None = 1
    """rows of parameters of each task; None: one for each rollout, equal until they adapt"""
    rule_state: tuple[Tensor, ...] = ()
    """what the inner rule carries from step to step, each [N, ...]"""
    inner_steps: int = 0
    """adaptation steps taken since the trial began"""
    start_noise: Tensor | None = None
    """[N, R] random numbers that the parameters before the first step were made from"""
    hidden: slice | None = None
    """components of the observation that are read as zeros"""
    is_greedy: bool = False
    """takes the most likely action"""

    def greedy(self) -> "StackedPolicy":
        """The same policy, but it takes the most likely action."""
        return replace(self, is_greedy=True)

    def for_lanes(self, lanes: int) -> "StackedPolicy":
        """The same policy, with the rows of parameters that act, and adapt, in `lanes` lanes."""
        rows = self._rows(lanes)
        if rows is None:
            return self
        per_task = self.policies_per_task
        return replace(
            self,
            params=self.params[rows],
            policies_per_task=per_task and len(rows) * per_task // len(self.params),
            rule_state=tuple(each[rows] for each in self.rule_state),
            start_noise=None if self.start_noise is None else self.start_noise[rows],
        )

    def initial_memory(self, lanes: int, horizon: int) -> Memory:
        """The parameters of each lane [L, P]; None where lanes take the rows as they are."""
        rows = self._rows(lanes)
        return None if rows is None else self.params[rows]

    def distribution(self, percept: Percept, memory: Memory) -> tuple[Tensor, Memory]:
        """One pass through the networks of all tasks: parameters [L, R], and the memory.

        Raises:
            ConfigError: the lanes cannot be shared out evenly.
        """
        params = self.params if memory is None else memory
        obs, sets = percept.obs.to(params.dtype), len(params)
        if sets > 1 and len(obs) % sets:
            raise ConfigError(
                f"The policy has {sets} sets of parameters, one for each task, hypothesis or "
                "rollout, so the number of environments must be a multiple of it; got "
                f"{len(obs)}."
            )
        if self.hidden is not None:
            obs = obs.clone()
            obs[..., self.hidden] = 0.0
        inputs = obs.view(sets, -1, obs.shape[-1]).transpose(0, 1).contiguous()
        return self.network.outputs(params, inputs).transpose(0, 1).flatten(0, 1), memory

    def act(self, percept: Percept, memory: Memory, noise: LaneNoise) -> PolicyOutput:
        """One pass, and a draw."""
        dist_params, memory = self.distribution(percept, memory)
        action, log_prob = self.head.choose(dist_params, noise, greedy=self.is_greedy)
        return PolicyOutput(action, log_prob, memory)

    def _rows(self, lanes: int) -> Tensor | None:
        """The row of parameters of each lane, [L]; None where they are taken as they are."""
        per_task = self.policies_per_task
        rows = torch.arange(len(self.params), device=self.params.device).view(-1, per_task or 1)
        rollouts, rest = divmod(lanes, len(rows))
        if rest or rollouts == 0 or rollouts == rows.shape[1]:
            return None
        if per_task is None:
            return rows.flatten().repeat_interleave(rollouts)
        return rows[:, :rollouts].flatten() if rollouts < per_task else None
