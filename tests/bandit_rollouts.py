"""Bandit rollouts, step by step and enumerated over all outcomes."""

import itertools

import torch

from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.trajectory import Percept


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def noise_of(seed, lanes):
    """Streams of this many lanes; a lane's stream depends on seed and lane only."""
    return LaneNoise.of(Seeds(seed), "noise", lanes)


def percept_of(action, reward, *, first_of_trial):
    """The percept of a policy after `action` [L] paid `reward` [L]."""
    flags = torch.full(action.shape, first_of_trial)
    return Percept(
        obs=torch.zeros(*action.shape, 1),
        previous_action=action,
        previous_reward=reward,
        previous_terminated=~flags,
        previous_truncated=torch.zeros_like(flags),
        first_of_episode=torch.ones_like(flags),
        first_of_trial=flags,
    )


def exact_return(policy, arms, pulls):
    """Expected total reward of a deterministic policy on arms with U[0, 1] priors.

    One lane for each of the 2^n outcome sequences, weighted by its predictive probability.
    """
    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=pulls)))
    lanes = torch.arange(len(outcomes))
    memory = policy.initial_memory(len(lanes), pulls)
    weight = torch.ones(len(lanes), dtype=torch.float64)
    tally = torch.zeros(len(lanes), arms, 2, dtype=torch.float64)  # payouts, blanks
    action, reward = torch.zeros_like(lanes), torch.zeros(len(lanes))
    for t in range(pulls):
        percept = percept_of(action, reward, first_of_trial=t == 0)
        action, log_prob, memory = policy.act(percept, memory, noise_of(0, len(lanes)))
        assert not log_prob.any()
        payouts, blanks = tally[lanes, action].T
        p = (1 + payouts) / (2 + payouts + blanks)
        weight = weight * torch.where(outcomes[:, t] > 0, p, 1 - p)
        tally[lanes, action, (outcomes[:, t] == 0).long()] += 1
        reward = outcomes[:, t]
    assert abs(float(weight.sum()) - 1) < 1e-9
    return float((weight * outcomes.sum(1)).sum())


def best_by_definition(tallies, pulls):
    """Expectimax over ordered arms, without memoisation or symmetry."""
    if not pulls:
        return 0.0
    values = []
    for arm, (payouts, blanks) in enumerate(tallies):
        p = (1 + payouts) / (2 + payouts + blanks)
        paid = [*tallies[:arm], (payouts + 1, blanks), *tallies[arm + 1 :]]
        blank = [*tallies[:arm], (payouts, blanks + 1), *tallies[arm + 1 :]]
        values.append(
            p * (1 + best_by_definition(paid, pulls - 1))
            + (1 - p) * best_by_definition(blank, pulls - 1)
        )
    return max(values)
