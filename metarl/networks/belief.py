"""A memory that is a belief: a Gaussian over latent numbers that stand for the hidden task.

A GRU maps the trial so far to the mean and deviation of each latent number. What they mean is
learned by an auxiliary loss, such as VariBAD's (Zintgraf et al. 2020, arXiv:1910.08348), from
decoders that predict the trial from a sample of the belief.

Axes: `T` steps, `L` lanes, `S` samples, `Z` latent numbers, `H` features. A belief, [..., 2 Z], is
the means, then the logarithms of the deviations; zeros are the prior N(0, I).
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from metarl.errors import ConfigError
from metarl.networks.gru import GRUCore
from metarl.networks.layers import linear, mlp
from metarl.networks.memory import (
    InputSizes,
    MemoryCore,
    MemoryOptions,
    MemoryState,
    PolicyInputs,
)

SMALLEST_DEVIATION = 0.1
"""of a latent number; where deviations could vanish, small changes of the encoder would change what
decoders and policy read, and the divergence of a belief from the one before would explode"""


@dataclass(frozen=True, kw_only=True)
class BeliefOptions(MemoryOptions):
    """Gaussian belief over the task, by a GRU (Zintgraf et al. 2020, arXiv:1910.08348)."""

    latent_size: int = 5
    """latent numbers (Z) that stand for the task"""

    def build(self, sizes: InputSizes, hidden_size: int, generator: Generator) -> MemoryCore:
        """Reads the whole percept."""
        if not 0 < 2 * self.latent_size < hidden_size:
            raise ConfigError(
                f"latent_size={self.latent_size} of the memory 'belief' must lie between 1 and "
                f"{(hidden_size - 1) // 2}: of hidden_size={hidden_size} features it takes two for "
                "each latent number, and the observation needs the rest."
            )
        return BeliefCore(sizes, hidden_size, self.latent_size, generator=generator)


class BeliefCore(MemoryCore):
    """Features are those of the present observation, [..., H - 2 Z], then the belief, [..., 2 Z].

    Policy and value read the belief, but their gradients do not reach it.
    """

    needs_auxiliary_loss = True

    def __init__(
        self, sizes: InputSizes, hidden_size: int, latent_size: int, *, generator: Generator
    ) -> None:
        super().__init__()
        self._belief_size = 2 * latent_size
        self.embedding = linear(sizes.total, hidden_size, gain=2**0.5, generator=generator)
        self.gru = GRUCore(hidden_size, hidden_size, generator=generator)
        self.emit = linear(hidden_size, self._belief_size, gain=1.0, generator=generator)
        self.observation = linear(
            sizes.observation, hidden_size - self._belief_size, gain=2**0.5, generator=generator
        )

    def decision_features(self, features: Tensor) -> Tensor:
        """The belief is read as it is, and not trained."""
        observation, belief = (
            features[..., : -self._belief_size],
            features[..., -self._belief_size :],
        )
        return torch.cat((observation, belief.detach()), -1)

    def initial_state(self, lanes: int, horizon: int) -> MemoryState:
        """That of the GRU."""
        return self.gru.initial_state(lanes, horizon)

    def step(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """One step of the GRU."""
        hidden, state = self.gru.step(self._embed(inputs), state)
        return self._features(inputs, hidden), state

    def sequence(self, inputs: PolicyInputs, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """All steps of the GRU."""
        hidden, state = self.gru.sequence(self._embed(inputs), state)
        return self._features(inputs, hidden), state

    def _embed(self, inputs: PolicyInputs) -> Tensor:
        return torch.relu(self.embedding(inputs.values))

    def _features(self, inputs: PolicyInputs, hidden: Tensor) -> Tensor:
        observation = torch.relu(self.observation(inputs.observation))
        mean, log_std = self.emit(hidden).chunk(2, -1)
        floor = math.log(SMALLEST_DEVIATION)
        log_std = floor + nn.functional.softplus(log_std - floor)
        return torch.cat((observation, mean, log_std), -1)


def sample_belief(belief: Tensor, noise: Tensor) -> Tensor:
    """A sample of each belief [..., 2 Z], given standard normal noise [..., Z]: [..., Z]."""
    mean, log_std = belief.chunk(2, -1)
    return mean + log_std.exp() * noise


class BeliefDecoder(nn.Module):
    """Predicts something of each step from latent numbers and what is known of the step.

    A multilayer perceptron with two hidden layers. The first is a sum of two linear maps, so that
    each is computed once, not for every pair of a latent sample and a step.
    """

    def __init__(
        self, latent_size: int, inputs: int, hidden_size: int, outputs: int, *, generator: Generator
    ) -> None:
        super().__init__()
        self.latent = linear(latent_size, hidden_size, gain=1.0, generator=generator)
        self.known = linear(inputs, hidden_size, gain=1.0, generator=generator)
        self.rest = mlp([hidden_size, hidden_size, outputs], last_gain=0.1, generator=generator)

    def forward(self, latent: Tensor, known: Tensor) -> Tensor:
        """Latent numbers [S, L, Z] and known parts of steps [T, L or 1, F]: [S, T, L, outputs]."""
        hidden = self.latent(latent).unsqueeze(1) + self.known(known)
        outputs: Tensor = self.rest(torch.relu(hidden))
        return outputs
