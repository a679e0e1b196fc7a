"""What to do in an MDP that is known, and what is known of one: experience in, plans out.

Axes: `...` any lanes, `S` states, `A` actions, `H` steps of an episode.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large an MDP is."""

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
    """What is believed of an MDP before it was seen; rewards have unit variance."""

    mean_reward: float = 1.0
    """mean rewards are N(mean_reward, 1)"""


class Knowledge(NamedTuple):
    """All that matters of what was lived."""

    moves: Tensor  # [..., S, A, S] how often each state followed
    total: Tensor  # [..., S, A] sum of rewards
    visits: Tensor  # [..., S, A] how many rewards that were

    def counted(
        self,
        state: Tensor,
        action: Tensor,
        next_state: Tensor,
        reward: Tensor,
        *,
        paid: Tensor,
        moved: Tensor,
    ) -> "Knowledge":
        """With one more step counted in.

        Args:
            state: [...] int64, where it was taken.
            action: [...] int64.
            next_state: [...] int64, what was seen afterwards.
            reward: [...] what it paid.
            paid: [...] bool, whether there was such a step: before the first of a trial not.
            moved: [...] bool, whether `next_state` followed from it: after the last of an episode
                the state in which the next one opens is seen instead.
        """
        actions, states = self.moves.shape[-2:]
        pair = state * actions + action
        return Knowledge(
            _added(self.moves.flatten(-3), pair * states + next_state, moved).view_as(self.moves),
            _added(self.total.flatten(-2), pair, reward * paid).view_as(self.total),
            _added(self.visits.flatten(-2), pair, paid).view_as(self.visits),
        )


def _added(table: Tensor, place: Tensor, value: Tensor) -> Tensor:
    """A new table [..., F] with `value` [...] added at `place` [...]."""
    return table.scatter_add(-1, place.unsqueeze(-1), value.to(table.dtype).unsqueeze(-1))


def nothing_known(lead: tuple[int, ...], size: Size, device: torch.device) -> Knowledge:
    """Zeros of the leading axes `lead`."""
    pairs = (*lead, size.states, size.actions)
    moves = torch.zeros(*pairs, size.states, device=device)
    return Knowledge(moves, torch.zeros(pairs, device=device), torch.zeros(pairs, device=device))


def expected_mdp(known: Knowledge, prior: Prior, weight: float = 1.0) -> MDP:
    """Posterior means.

        P[s, a, s'] = (weight + moves) / (S weight + sum of moves)
        R[s, a]     = (weight mean_reward + total) / (weight + visits)

    Args:
        known: what was lived.
        prior: what was believed before.
        weight: how many visits that counts as; of the priors that tasks are drawn from, one.
    """
    moves = weight + known.moves
    return MDP(moves / moves.sum(-1, keepdim=True), _expected_rewards(known, prior, weight))


def drawn_mdp(known: Knowledge, prior: Prior, generator: Generator) -> MDP:
    """Drawn from the posterior, in every lane.

    P[s, a] ~ Dirichlet(1 + moves[s, a]),   R[s, a] ~ N(posterior mean, 1 / (1 + visits))
    """
    weight = _gamma_drawn(known.moves, generator)
    noise = torch.empty_like(known.total).normal_(generator=generator)
    reward = _expected_rewards(known, prior) + noise / (1 + known.visits).sqrt()
    return MDP(weight / weight.sum(-1, keepdim=True), reward)


def _gamma_drawn(count: Tensor, generator: Generator) -> Tensor:
    """Gamma(1 + count) for every entry; all above zero.

    Gamma(1), which is exponential, plus Gamma(count): most counts are zero, and an exponential
    number takes a tenth of the time.
    """
    luck = torch.empty_like(count).uniform_(generator=generator)
    drawn = -torch.log1p(-luck.clamp(min=2**-25))
    seen = count > 0
    # NOTE: torch.distributions takes no generator; this is what its Gamma and Dirichlet call.
    drawn[seen] += torch._standard_gamma(count[seen], generator=generator)
    return drawn


def _expected_rewards(known: Knowledge, prior: Prior, weight: float = 1.0) -> Tensor:
    return (weight * prior.mean_reward + known.total) / (weight + known.visits)


def action_values(mdp: MDP, steps: int) -> Tensor:
    """Value of every action at every step of an episode of `steps` steps, [..., H, S, A].

    Q[h, s, a] = R[s, a] + sum over s' of P[s, a, s'] max over a' of Q[h + 1, s', a'],   Q[H] = 0
    """
    values = [mdp.rewards]
    for _ in range(steps - 1):
        future = values[-1].amax(-1).unsqueeze(-1)
        later = (mdp.transitions.flatten(-3, -2) @ future).view(mdp.rewards.shape)
        values.append(mdp.rewards + later)
    return torch.stack(values[::-1], -3)
