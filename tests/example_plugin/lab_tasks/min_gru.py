"""A memory: minGRU (Feng et al. 2024, arXiv:2410.01201), whose gates do not read the state.

h[t] = (1 - z[t]) * h[t - 1] + z[t] * c[t],   z = sigmoid(W_z x + b_z),   c = W_c x + b_c
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from metarl.networks.layers import linear
from metarl.networks.memory import InputSizes, MemoryCore, MemoryOptions, PolicyInputs


@dataclass(frozen=True, kw_only=True)
class MinGRUOptions(MemoryOptions):
    """Minimal gated recurrent unit (Feng et al. 2024, arXiv:2410.01201)."""

    forget: float = 1.0
    """how much the state is kept at first: minus the initial bias of the update gate"""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """A new memory."""
        return MinGRU(sizes, hidden_size, self.forget, generator)


class MinGRU(MemoryCore):
    """Embeds the observation and the outcome of the previous step apart, then adds them up."""

    def __init__(
        self, sizes: InputSizes, hidden_size: int, forget: float, generator: Generator
    ) -> None:
        super().__init__()
        outcome = sizes.total - sizes.observation
        self.observation = linear(sizes.observation, hidden_size, gain=1.0, generator=generator)
        self.outcome = linear(outcome, hidden_size, gain=1.0, generator=generator)
        self.update = linear(hidden_size, hidden_size, gain=1.0, generator=generator)
        self.candidate = linear(hidden_size, hidden_size, gain=1.0, generator=generator)
        nn.init.constant_(self.update.bias, -forget)

    def initial_state(self, lanes: int, horizon: int) -> Tensor:
        """Zeros [L, H]."""
        return self.update.weight.new_zeros(lanes, self.update.out_features)

    def step(self, inputs: PolicyInputs, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        gate, candidate = self._gates(inputs)
        state = torch.lerp(state, candidate, gate)
        return state, state

    def sequence(self, inputs: PolicyInputs, state: Tensor) -> tuple[Tensor, Tensor]:
        """All gates at once, then the recurrence."""
        states = []
        for gate, candidate in zip(*(part.unbind(0) for part in self._gates(inputs)), strict=True):
            state = torch.lerp(state, candidate, gate)
            states.append(state)
        return torch.stack(states), state

    def _gates(self, inputs: PolicyInputs) -> tuple[Tensor, Tensor]:
        reward = inputs.previous_reward.unsqueeze(-1)
        outcome = torch.cat((inputs.previous_action, reward, inputs.flags), -1)
        features = torch.relu(self.observation(inputs.observation) + self.outcome(outcome))
        return torch.sigmoid(self.update(features)), torch.tanh(self.candidate(features))
