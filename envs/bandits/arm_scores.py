"""What arms are worth to somebody who remembers their rewards: tallies go in, scores come out.

Axes: `N` tasks, `B` copies of each task, `A` arms. A tally [N, B, A, 2] holds the total reward and
the number of pulls of every arm. Where rewards are payouts, 0 or 1, the pulls without one are
called blanks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from metarl.trajectory import Percept

Score: TypeAlias = Callable[[Tensor, Generator], Tensor]
"""tally [N, B, A, 2] -> [N, B, A]: the first of the arms with the highest score is pulled"""


def tallied(tally: Tensor, percept: Percept) -> Tensor:
    """`tally` [N, B, A, 2] with the last pull counted in."""
    lived = (~percept.first_of_trial).to(tally.dtype)
    outcome = torch.stack([lived * percept.previous_reward.to(tally.dtype), lived], -1)
    outcome = outcome.unsqueeze(-2)
    pulled = percept.previous_action[..., None, None].expand(outcome.shape)
    return tally.scatter_add(-2, pulled, outcome)


def beta_mean(tally: Tensor, generator: Generator) -> Tensor:
    """Posterior mean of the payout probability under a uniform prior: (payouts + 1) / (pulls + 2).

    An arm that was never pulled is worth 1/2. Whoever pulls the arm with the highest is the
    'greedy' of Duan et al. 2016: it leaves an arm only once that has disappointed.
    """
    payouts, pulls = tally.unbind(-1)
    return (1 + payouts) / (2 + pulls)


def beta_draw(tally: Tensor, generator: Generator) -> Tensor:
    """Payout probabilities drawn from Beta(1 + payouts, 1 + blanks): a uniform prior."""
    payouts, pulls = tally.unbind(-1)
    # NOTE: torch.distributions takes no generator; this is what its Beta and Gamma call.
    shape = 1 + torch.stack([payouts, pulls - payouts], -1)
    gamma = torch._standard_gamma(shape, generator=generator)
    return gamma[..., 0] / gamma.sum(-1)


def normal_mean(tally: Tensor, generator: Generator) -> Tensor:
    """Posterior mean of an arm's mean reward, N(0, 1) before any pull, rewards of unit variance."""
    total, pulls = tally.unbind(-1)
    return total / (1 + pulls)


def normal_draw(tally: Tensor, generator: Generator) -> Tensor:
    """Mean rewards drawn from the posterior N(total / (1 + pulls), 1 / (1 + pulls))."""
    mean = normal_mean(tally, generator)
    noise = torch.empty_like(mean).normal_(generator=generator)
    return mean + noise / (1 + tally[..., 1]).sqrt()


@dataclass(frozen=True, kw_only=True)
class Optimistic:
    """Drawn worth, but never below what is expected: optimistic Thompson sampling.

    Source: May et al. 2012, Optimistic Bayesian sampling in contextual-bandit problems.
    """

    draw: Score
    mean: Score

    def __call__(self, tally: Tensor, generator: Generator) -> Tensor:
        """max(drawn, mean), arm by arm."""
        return torch.maximum(self.draw(tally, generator), self.mean(tally, generator))


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedy:
    """Now and then, whatever is known, any arm may be the highest."""

    mean: Score
    epsilon: float

    def __call__(self, tally: Tensor, generator: Generator) -> Tensor:
        """`mean`; in a share `epsilon` of the lanes, uniform noise."""
        mean = self.mean(tally, generator)
        noise = torch.empty_like(mean).uniform_(generator=generator)
        luck = torch.empty_like(mean[..., :1]).uniform_(generator=generator)
        return torch.where(luck < self.epsilon, noise, mean)


@dataclass(frozen=True, kw_only=True)
class UpperBound:
    """Upper confidence bound on the mean reward of every arm.

        score[a] = mean[a] + scale sqrt(2 ln(t) / (prior_pulls + pulls[a])),   t = max(sum pulls, 1)

    UCB1 of Auer et al. 2002 has the empirical mean, `prior_pulls=0` and `scale=1`, and starts by
    pulling every arm once. Here a prior counts as pulls, as in the code that Duan et al. 2016
    released: otherwise ten pulls of fifty arms would be ten arms pulled once.
    """

    mean: Score
    prior_pulls: float
    scale: float

    def __call__(self, tally: Tensor, generator: Generator) -> Tensor:
        """The bound."""
        pulls = tally[..., 1]
        log_time = pulls.sum(-1, keepdim=True).clamp(min=1).log()
        bonus = (2 * log_time / (self.prior_pulls + pulls)).sqrt()
        return self.mean(tally, generator) + self.scale * bonus


@dataclass(frozen=True, kw_only=True)
class GoalPosterior:
    """Draws the goal when one arm, any of them alike, pays with `p_goal` and the rest `p_other`."""

    p_goal: float
    p_other: float

    def log_odds(self, tally: Tensor) -> Tensor:
        """Log-probability of each arm to be the goal, [N, B, A], up to a constant per lane.

            log_odds[a] = payouts[a] (log p_goal - log p_other)
                        + blanks[a] (log(1 - p_goal) - log(1 - p_other))

        What the other arms paid cancels. Certainties are plus and minus infinity.
        """
        payouts, pulls = tally.unbind(-1)
        counts = torch.stack([payouts, pulls - payouts], -1)
        goal = tally.new_tensor([self.p_goal, 1 - self.p_goal])
        other = tally.new_tensor([self.p_other, 1 - self.p_other])
        return (torch.xlogy(counts, goal) - torch.xlogy(counts, other)).sum(-1)

    def __call__(self, tally: Tensor, generator: Generator) -> Tensor:
        """Scores whose largest is at a goal drawn from the posterior (Gumbel's trick)."""
        log_odds = self.log_odds(tally)
        return log_odds - torch.empty_like(log_odds).exponential_(generator=generator).log()


@dataclass(frozen=True, kw_only=True)
class PairPosterior:
    """What is known of `p` when one arm pays with probability p and the other with 1 - p.

    A blank of one arm says what a payout of the other would: both count alike, as `hits` (first
    arm paid, or second did not) and `misses`.
    """

    low: float | None = None
    """p is `low` or 1 - `low`, equally likely; None for p ~ U[0, 1]"""

    def expected(self, hits: Tensor, misses: Tensor) -> Tensor:
        """Posterior mean of p; any shape."""
        if self.low is None:
            return (1 + hits) / (2 + hits + misses)
        return self.low + (1 - 2 * self.low) * self._high(hits, misses)

    def mean(self, tally: Tensor, generator: Generator) -> Tensor:
        """Expected payouts of both arms, [N, B, 2]."""
        return _both_arms(self.expected(*self._evidence(tally)))

    def draw(self, tally: Tensor, generator: Generator) -> Tensor:
        """Payout probabilities of both arms in a world drawn from the posterior, [N, B, 2]."""
        hits, misses = self._evidence(tally)
        if self.low is None:
            evidence = torch.stack([hits, hits + misses], -1)
            return _both_arms(beta_draw(evidence, generator))
        luck = torch.empty_like(hits).uniform_(generator=generator)
        return _both_arms(torch.where(luck < self._high(hits, misses), 1 - self.low, self.low))

    def _high(self, hits: Tensor, misses: Tensor) -> Tensor:
        """Probability that p = 1 - low."""
        assert self.low is not None
        return torch.sigmoid((hits - misses) * math.log((1 - self.low) / self.low))

    def _evidence(self, tally: Tensor) -> tuple[Tensor, Tensor]:
        payouts, pulls = tally.unbind(-1)
        blanks = pulls - payouts
        return payouts[..., 0] + blanks[..., 1], blanks[..., 0] + payouts[..., 1]


def _both_arms(p: Tensor) -> Tensor:
    """[N, B] -> [N, B, 2]."""
    return torch.stack([p, 1 - p], -1)
