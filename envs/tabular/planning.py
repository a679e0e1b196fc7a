"""Posteriors over tabular MDPs, and finite-horizon value iteration.

Axes: `...` any lanes, `S` states, `A` actions, `H` steps of an episode.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.noise import LaneNoise


@dataclass(frozen=True, kw_only=True)
class MDPSize:
    """Dimensions of a tabular MDP."""

    states: int  # S
    actions: int  # A
    steps: int  # H


class MDP(NamedTuple):
    """Tables of MDPs."""

    transitions: Tensor  # [..., S, A, S] probability of every next state
    rewards: Tensor  # [..., S, A] mean reward

    def packed(self) -> Tensor:
        """Both tables in one row, [..., S A S + S A]: a task of `TabularMDP`."""
        return torch.cat([self.transitions.flatten(-3), self.rewards.flatten(-2)], -1)


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Prior of the mean rewards; rewards have unit variance."""

    mean_reward: float = 1.0
    """mean rewards are N(mean_reward, 1)"""


class ExperienceCounts(NamedTuple):
    """Sufficient statistics of the steps taken so far."""

    transitions: Tensor  # [..., S, A, S] number of transitions to each state
    reward_sum: Tensor  # [..., S, A] sum of rewards
    visits: Tensor  # [..., S, A] number of these rewards

    def with_step(
        self,
        state: Tensor,
        action: Tensor,
        next_state: Tensor,
        reward: Tensor,
        *,
        has_reward: Tensor,
        has_transition: Tensor,
    ) -> "ExperienceCounts":
        """The counts after one more step.

        Args:
            state: [...] int64, state before the step.
            action: [...] int64.
            next_state: [...] int64, the state observed next.
            reward: [...] reward of the step.
            has_reward: [...] bool, whether there was a step: false at the start of a trial.
            has_transition: [...] bool, whether `next_state` followed from the step: false after the
                last step of an episode, where the next episode's initial state is observed instead.
        """
        actions, states = self.transitions.shape[-2:]
        pair = state * actions + action
        return ExperienceCounts(
            _added(
                self.transitions.flatten(-3), pair * states + next_state, has_transition
            ).view_as(self.transitions),
            _added(self.reward_sum.flatten(-2), pair, reward * has_reward).view_as(self.reward_sum),
            _added(self.visits.flatten(-2), pair, has_reward).view_as(self.visits),
        )


def _added(table: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """A new table [..., F] with `value` [...] added at `index` [...]."""
    return table.scatter_add(-1, index.unsqueeze(-1), value.to(table.dtype).unsqueeze(-1))


def zero_counts(lead: tuple[int, ...], size: MDPSize, device: torch.device) -> ExperienceCounts:
    """Counts before the first step, with the leading axes `lead`."""
    pairs = (*lead, size.states, size.actions)
    transitions = torch.zeros(*pairs, size.states, device=device)
    return ExperienceCounts(
        transitions, torch.zeros(pairs, device=device), torch.zeros(pairs, device=device)
    )


def posterior_mean_mdp(counts: ExperienceCounts, prior: Prior, weight: float = 1.0) -> MDP:
    """Posterior means.

        P[s, a, s'] = (weight + transitions) / (S weight + sum of transitions)
        R[s, a]     = (weight mean_reward + reward_sum) / (weight + visits)

    Args:
        counts: experience so far.
        prior: prior of the mean rewards.
        weight: number of visits that the prior counts as; 1 for the prior of the tasks.
    """
    transitions = weight + counts.transitions
    return MDP(
        transitions / transitions.sum(-1, keepdim=True),
        _posterior_mean_rewards(counts, prior, weight),
    )


def posterior_sample_mdp(counts: ExperienceCounts, prior: Prior, noise: LaneNoise) -> MDP:
    """One sample from the posterior for every lane; the leading axis of the counts is the lane.

    P[s, a] ~ Dirichlet(1 + transitions[s, a]),   R[s, a] ~ N(posterior mean, 1 / (1 + visits))
    """
    weight = noise.gamma(1 + counts.transitions)
    error = noise.normal(*counts.visits.shape[1:]) / (1 + counts.visits).sqrt()
    return MDP(
        weight / weight.sum(-1, keepdim=True), _posterior_mean_rewards(counts, prior) + error
    )


def _posterior_mean_rewards(counts: ExperienceCounts, prior: Prior, weight: float = 1.0) -> Tensor:
    return (weight * prior.mean_reward + counts.reward_sum) / (weight + counts.visits)


def action_values(mdp: MDP, steps: int) -> Tensor:
    """Value of every action at every step of an episode of `steps` steps, [..., H, S, A].

    Q[h, s, a] = R[s, a] + sum over s' of P[s, a, s'] max over a' of Q[h + 1, s', a'],   Q[H] = 0
    """
    values = [mdp.rewards]
    for _ in range(steps - 1):
        next_value = values[-1].amax(-1).unsqueeze(-1)
        future = (mdp.transitions.flatten(-3, -2) @ next_value).view(mdp.rewards.shape)
        values.append(mdp.rewards + future)
    return torch.stack(values[::-1], -3)
