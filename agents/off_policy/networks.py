"""The networks of PEARL: context encoder, actor, critics and their targets.

Axes: any leading ones, then features (`D` observation, `A` action in units of its bounds, `Z`
latent variables); `C` = 2 critics.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import Space, spaces
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from metarl.agents.off_policy.gaussians import NaturalGaussian, squashed_sample, standard_gaussian
from metarl.errors import ConfigError
from metarl.networks.action_heads import BoxUnits
from metarl.networks.layers import mlp
from metarl.validation import vector_size

LOG_STD_RANGE = (-5.0, 2.0)
"""of the actor's Gaussian before it is squashed"""


@dataclass(frozen=True, kw_only=True)
class PEARLNetworkOptions:
    """The shape of PEARL's networks."""

    hidden_size: int
    latent_size: int
    reads_context: bool
    """False: every factor is empty, so that the posterior stays the prior"""
    temperature: float
    """initial weight of the entropy"""


class ContextEncoder(nn.Module):
    """One Gaussian factor of the posterior over the latent variable for each transition.

    A factor depends on its own transition alone, so that their product does not depend on their
    order. The network gives mean and precision; a factor of small precision says little.
    """

    def __init__(self, inputs: int, options: PEARLNetworkOptions, generator: Generator) -> None:
        super().__init__()
        self.latent_size, hidden = options.latent_size, options.hidden_size
        self.reads_context = options.reads_context
        self.layers = mlp(
            [inputs, hidden, hidden, 2 * self.latent_size], last_gain=0.1, generator=generator
        )
        # Small precisions at first, .05: those of all transitions of a trial add up.
        with torch.no_grad():
            self.layers[-1].get_parameter("bias")[self.latent_size :].fill_(-3.0)

    def forward(self, obs: Tensor, action: Tensor, reward: Tensor) -> NaturalGaussian:
        """Factors [..., Z] of transitions: obs [..., D], action [..., A], reward [...]."""
        if not self.reads_context:
            nothing = obs.new_zeros(*obs.shape[:-1], self.latent_size)
            return NaturalGaussian(nothing, nothing)
        outputs = self.layers(torch.cat((obs, action, reward.unsqueeze(-1)), -1))
        mean, raw = outputs.chunk(2, -1)
        precision = softplus(raw)
        return NaturalGaussian(precision, precision * mean)

    def posterior(
        self, obs: Tensor, action: Tensor, reward: Tensor, observed: Tensor
    ) -> NaturalGaussian:
        """The prior times the factors of the transitions where `observed`, [M, Z].

        Args:
            obs: [M, T, D].
            action: [M, T, A].
            reward: [M, T].
            observed: [M, T] bool.
        """
        factors = self(obs, action, reward).product(1, observed.unsqueeze(-1))
        return standard_gaussian(factors.shift).times(factors)


class Actor(nn.Module):
    """A squashed Gaussian over actions, given observation and latent variable."""

    def __init__(self, inputs: int, outputs: int, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.layers = mlp([inputs, hidden, hidden, 2 * outputs], last_gain=3.0, generator=generator)
        # At first the latent variable decides the mean action, so that episodes explore in one
        # direction each; deviations are 1/e.
        with torch.no_grad():
            self.layers[-1].get_parameter("weight")[outputs:].zero_()
            self.layers[-1].get_parameter("bias")[outputs:].fill_(-1.0)

    def forward(self, obs: Tensor, latent: Tensor, standard: Tensor) -> tuple[Tensor, Tensor]:
        """An action [..., A] in units of its bounds, and its log-density [...].

        Args:
            obs: [..., D].
            latent: [..., Z].
            standard: [..., A] standard normal noise.
        """
        mean, log_std = self.layers(torch.cat((obs, latent), -1)).chunk(2, -1)
        return squashed_sample(mean, log_std.clamp(*LOG_STD_RANGE), standard)


class Critics(nn.Module):
    """Two independent estimates of the action value, whose minimum is less biased upwards."""

    def __init__(self, inputs: int, hidden: int, generator: Generator) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            mlp([inputs, hidden, hidden, 1], last_gain=1.0, generator=generator) for _ in range(2)
        )

    def forward(self, obs: Tensor, action: Tensor, latent: Tensor) -> Tensor:
        """Values [C, ...]."""
        inputs = torch.cat((obs, action, latent), -1)
        return torch.stack([critic(inputs).squeeze(-1) for critic in self.each])

    def held_fixed(self, obs: Tensor, action: Tensor, latent: Tensor) -> Tensor:
        """The same values, with a gradient for the inputs and none for the parameters."""
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        values: Tensor = functional_call(self, fixed, (obs, action, latent))
        return values


class PEARLNetwork(nn.Module):
    """All that is learned."""

    def __init__(
        self,
        observation_space: Space[Any],
        action_space: Space[Any],
        options: PEARLNetworkOptions,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.units = BoxUnits(_require_bounded(action_space))
        self.observation_size = vector_size(observation_space)
        observation, action = self.observation_size, self.units.size
        hidden, latent = options.hidden_size, options.latent_size
        self.encoder = ContextEncoder(observation + action + 1, options, generator)
        self.actor = Actor(observation + latent, action, hidden, generator)
        self.critics = Critics(observation + action + latent, hidden, generator)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(options.temperature)))


def _require_bounded(space: Space[Any]) -> spaces.Box:
    """The action space, a bounded Box vector.

    Raises:
        ConfigError: it is something else.
    """
    if (
        not isinstance(space, spaces.Box)
        or len(space.shape) != 1
        or not np.isfinite(space.low).all()
        or not np.isfinite(space.high).all()
    ):
        raise ConfigError(
            f"PEARL needs a bounded Box vector of actions [A], because its soft actor-critic "
            f"squashes a Gaussian to the bounds; got {space}. For other actions use an agent such "
            "as rl2."
        )
    return space
