"""Scores of bandit arms, computed from tallies of their past rewards.

Axes: `L` lanes, `A` arms. A tally [L, A, 2] holds the total reward and the number of pulls of every
arm. Where rewards are payouts of 0 or 1, a pull that pays 0 is called a blank.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from metarl.noise import LaneNoise
from metarl.trajectory import Percept

Score: TypeAlias = Callable[[Tensor, LaneNoise], Tensor]
"""tally [L, A, 2] -> scores [L, A]; a policy pulls the first arm with the highest score"""


def updated_tally(tally: Tensor, percept: Percept) -> Tensor:
    """`tally` [L, A, 2] with the last pull added."""
    pulls = (~percept.first_of_trial).to(tally.dtype)
    outcome = torch.stack([pulls * percept.previous_reward.to(tally.dtype), pulls], -1)
    outcome = outcome.unsqueeze(-2)
    pulled = percept.previous_action[..., None, None].expand(outcome.shape)
    return tally.scatter_add(-2, pulled, outcome)


def beta_mean(tally: Tensor, noise: LaneNoise) -> Tensor:
    """Posterior mean of the payout probability under a uniform prior: (payouts + 1) / (pulls + 2).

    An arm that was never pulled scores 1/2. Pulling the arm with the highest score is the
    'greedy' policy of Duan et al. 2016, which leaves an arm only after a low payout.
    """
    payouts, pulls = tally.unbind(-1)
    return (1 + payouts) / (2 + pulls)


def beta_draw(tally: Tensor, noise: LaneNoise) -> Tensor:
    """Payout probabilities drawn from the posterior Beta(1 + payouts, 1 + blanks)."""
    payouts, pulls = tally.unbind(-1)
    gamma = noise.gamma(1 + torch.stack([payouts, pulls - payouts], -1))
    return gamma[..., 0] / gamma.sum(-1)


def normal_mean(tally: Tensor, noise: LaneNoise) -> Tensor:
    """Posterior mean of each arm's mean reward: prior N(0, 1), rewards of unit variance."""
    total, pulls = tally.unbind(-1)
    return total / (1 + pulls)


def normal_draw(tally: Tensor, noise: LaneNoise) -> Tensor:
    """Mean rewards drawn from the posterior N(total / (1 + pulls), 1 / (1 + pulls))."""
    mean = normal_mean(tally, noise)
    return mean + noise.normal(mean.shape[-1]) / (1 + tally[..., 1]).sqrt()


@dataclass(frozen=True, kw_only=True)
class Optimistic:
    """Posterior draws, but never below the posterior mean: optimistic Thompson sampling.

    Source: May et al. 2012, Optimistic Bayesian sampling in contextual-bandit problems.
    """

    draw: Score
    mean: Score

    def __call__(self, tally: Tensor, noise: LaneNoise) -> Tensor:
        """max(draw, mean) of each arm."""
        return torch.maximum(self.draw(tally, noise), self.mean(tally, noise))


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedy:
    """Epsilon-greedy: with probability `epsilon`, scores are uniform noise."""

    mean: Score
    epsilon: float

    def __call__(self, tally: Tensor, noise: LaneNoise) -> Tensor:
        """`mean`; uniform noise in a fraction `epsilon` of the lanes."""
        mean = self.mean(tally, noise)
        explores = noise.uniform(1) < self.epsilon
        return torch.where(explores, noise.uniform(mean.shape[-1]), mean)


@dataclass(frozen=True, kw_only=True)
class UpperBound:
    """Upper confidence bound on the mean reward of every arm.

        score[a] = mean[a] + scale sqrt(2 ln(t) / (prior_pulls + pulls[a])),   t = max(sum pulls, 1)

    UCB1 of Auer et al. 2002 uses the empirical mean, `prior_pulls=0` and `scale=1`, and starts by
    pulling every arm once. Here the prior counts as pulls, as in the code that Duan et al. 2016
    released: otherwise ten pulls of fifty arms would be ten different arms pulled once.
    """

    mean: Score
    prior_pulls: float
    scale: float

    def __call__(self, tally: Tensor, noise: LaneNoise) -> Tensor:
        """The upper bound of every arm, [L, A]."""
        pulls = tally[..., 1]
        log_time = pulls.sum(-1, keepdim=True).clamp(min=1).log()
        bonus = (2 * log_time / (self.prior_pulls + pulls)).sqrt()
        return self.mean(tally, noise) + self.scale * bonus


@dataclass(frozen=True, kw_only=True)
class GoalPosterior:
    """Posterior of the goal: it pays with `p_goal`, other arms with `p_other`; uniform prior."""

    p_goal: float
    p_other: float

    def log_odds(self, tally: Tensor) -> Tensor:
        """Log-probability that each arm is the goal, [L, A], up to a constant per lane.

            log_odds[a] = payouts[a] (log p_goal - log p_other)
                        + blanks[a] (log(1 - p_goal) - log(1 - p_other))

        The payouts of the other arms cancel. Probabilities 1 and 0 give plus and minus infinity.
        """
        payouts, pulls = tally.unbind(-1)
        counts = torch.stack([payouts, pulls - payouts], -1)
        goal = tally.new_tensor([self.p_goal, 1 - self.p_goal])
        other = tally.new_tensor([self.p_other, 1 - self.p_other])
        return (torch.xlogy(counts, goal) - torch.xlogy(counts, other)).sum(-1)

    def __call__(self, tally: Tensor, noise: LaneNoise) -> Tensor:
        """Scores whose argmax is a goal drawn from the posterior (Gumbel-max trick)."""
        log_odds = self.log_odds(tally)
        return log_odds - noise.exponential(log_odds.shape[-1]).log()  # which is never 0


@dataclass(frozen=True, kw_only=True)
class PairPosterior:
    """Posterior of `p` when one arm pays with probability p and the other with 1 - p.

    A blank of one arm is the same evidence as a payout of the other: both count as `hits` (first
    arm paid, or second did not) or `misses`.
    """

    low: float | None = None
    """p is `low` or 1 - `low`, equally likely; None: p ~ U[0, 1]"""

    def expected(self, hits: Tensor, misses: Tensor) -> Tensor:
        """Posterior mean of p, elementwise."""
        if self.low is None:
            return (1 + hits) / (2 + hits + misses)
        return self.low + (1 - 2 * self.low) * self._high(hits, misses)

    def mean(self, tally: Tensor, noise: LaneNoise) -> Tensor:
        """Expected payouts of both arms, [L, 2]."""
        return _both_arms(self.expected(*self._evidence(tally)))

    def draw(self, tally: Tensor, noise: LaneNoise) -> Tensor:
        """Payout probabilities of both arms, drawn from the posterior, [L, 2]."""
        hits, misses = self._evidence(tally)
        if self.low is None:
            evidence = torch.stack([hits, hits + misses], -1)
            return _both_arms(beta_draw(evidence, noise))
        is_high = noise.uniform() < self._high(hits, misses)
        return _both_arms(torch.where(is_high, 1 - self.low, self.low))

    def _high(self, hits: Tensor, misses: Tensor) -> Tensor:
        """Probability that p = 1 - low."""
        assert self.low is not None
        return torch.sigmoid((hits - misses) * math.log((1 - self.low) / self.low))

    def _evidence(self, tally: Tensor) -> tuple[Tensor, Tensor]:
        """Hits and misses, [L] each."""
        payouts, pulls = tally.unbind(-1)
        blanks = pulls - payouts
        return payouts[..., 0] + blanks[..., 1], blanks[..., 0] + payouts[..., 1]


def _both_arms(p: Tensor) -> Tensor:
    """Payout probabilities of both arms: p [L] -> [p, 1 - p] [L, 2]."""
    return torch.stack([p, 1 - p], -1)
