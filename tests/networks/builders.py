"""Percepts of random numbers, and small actor-critic networks."""

import torch
from gymnasium import spaces

from metarl.networks.actor_critic import ActorCritic, NetworkOptions
from metarl.networks.amortised import AmortisedOptions
from metarl.networks.belief import BeliefOptions
from metarl.networks.episodic import MatchingOptions, PrototypicalOptions
from metarl.networks.memory import MemoryOptions
from metarl.networks.recurrent import (
    AttentionOptions,
    GRUOptions,
    LSTMOptions,
    NoMemoryOptions,
)
from metarl.networks.transformer import TransformerOptions
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.trajectory import Percept

BUILT_IN = (
    "gru",
    "lstm",
    "attention",
    "transformer",
    "matching",
    "prototypical",
    "amortised",
    "belief",
    "none",
)
"""names of all memories of this package, in the order of registration"""

MEMORIES: dict[str, MemoryOptions] = {
    "gru": GRUOptions(),
    "lstm": LSTMOptions(),
    "attention": AttentionOptions(),
    "attention of 2 heads": AttentionOptions(heads=2),
    "transformer": TransformerOptions(),
    "transformer of 3 layers": TransformerOptions(layers=3, heads=1, context=700),
    "matching": MatchingOptions(),
    "prototypical": PrototypicalOptions(),
    "amortised": AmortisedOptions(),
    "belief": BeliefOptions(latent_size=2),
    "none": NoMemoryOptions(),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(lanes: int, seed: int = 0) -> LaneNoise:
    return LaneNoise.of(Seeds(seed), "noise", lanes)


def percept(lanes: int = 6, *, first: bool = False, seed: int = 0) -> Percept:
    shape = (lanes,)
    return Percept(
        obs=torch.randn(*shape, 2, generator=generator(seed)),
        previous_action=torch.full(shape, 1),
        previous_reward=torch.full(shape, 0.5),
        previous_terminated=torch.ones(shape, dtype=torch.bool),
        previous_truncated=torch.zeros(shape, dtype=torch.bool),
        first_of_episode=torch.ones(shape, dtype=torch.bool),
        first_of_trial=torch.full(shape, first),
    )


def network(
    memory: str = "gru", *, action_space: spaces.Space | None = None, **options: object
) -> ActorCritic:
    """For observations of size 2; by default with 3 discrete actions, 8 features."""
    return ActorCritic(
        spaces.Box(-1.0, 1.0, (2,)),
        action_space or spaces.Discrete(3),
        NetworkOptions(**{"memory": MEMORIES[memory], "hidden_size": 8} | options),
        generator(),
    )
