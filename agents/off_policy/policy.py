"""Posterior sampling over whole trials: the policy that PEARL trains and is tested with.

Axes: `L` lanes, then features (`D` observation, `A` action, `Z` latent variables).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.agents.off_policy.gaussians import NaturalGaussian, standard_gaussian
from metarl.agents.off_policy.networks import PEARLNetwork
from metarl.noise import LaneNoise
from metarl.trajectory import Percept


class PosteriorMemory(NamedTuple):
    """What the policy carries from step to step."""

    posterior: NaturalGaussian  # [L, Z] given all transitions of the trial so far
    latent: Tensor  # [L, Z] drawn at the start of the episode
    obs: Tensor  # [L, D] of the previous step


@dataclass(frozen=True)
class PosteriorSamplingPolicy:
    """Draws a latent variable from the posterior at the start of each episode, and keeps it."""

    network: PEARLNetwork
    is_greedy: bool = False
    """takes the median action, given observation and latent variable; the latter is still drawn"""

    def greedy(self) -> "PosteriorSamplingPolicy":
        """The same policy, but it takes the median action of its latent variable."""
        return replace(self, is_greedy=True)

    def initial_memory(self, lanes: int, horizon: int) -> PosteriorMemory:
        """The prior; nothing was observed, and the first step draws the latent variable."""
        zeros = self.network.units.centre.new_zeros
        latent = zeros(lanes, self.network.encoder.latent_size)
        return PosteriorMemory(
            standard_gaussian(latent), latent, zeros(lanes, self.network.observation_size)
        )

    def act(self, percept: Percept, memory: PosteriorMemory, noise: LaneNoise) -> PolicyOutput:
        """Multiplies the factor of the previous transition into the posterior, then acts."""
        network, obs = self.network, percept.obs.to(torch.float32)
        factor = network.encoder(
            memory.obs, network.units.encode(percept.previous_action), percept.previous_reward
        )
        known = ~percept.first_of_trial.unsqueeze(-1)
        posterior = memory.posterior.times(NaturalGaussian(*(known * each for each in factor)))
        drawn = posterior.sample(noise.normal(network.encoder.latent_size))
        latent = torch.where(percept.first_of_episode.unsqueeze(-1), drawn, memory.latent)
        standard = noise.normal(network.units.size)
        if self.is_greedy:
            standard = torch.zeros_like(standard)
        unit, log_prob = network.actor(obs, latent, standard)
        action = network.units.decode(unit)
        return PolicyOutput(action, log_prob, PosteriorMemory(posterior, latent, obs))
