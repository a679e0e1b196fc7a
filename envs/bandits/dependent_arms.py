"""Two-armed bandits whose payout probabilities sum to one.

Axes: `L` lanes, `N` tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.envs.bandits import references
from metarl.envs.bandits.arm_scores import PairPosterior
from metarl.envs.bandits.multi_armed import Bandit, pay_one_or_nothing
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, Split

Difficulty: TypeAlias = Literal["uniform", "easy", "medium", "hard"]
LOW: Mapping[str, float | None] = {"uniform": None, "easy": 0.1, "medium": 0.25, "hard": 0.4}


@dataclass(frozen=True, kw_only=True)
class DependentBandit(Bandit):
    """One arm pays 1 with probability p, the other with 1 - p, else 0. A task is p, as [p].

    When `difficulty` is "uniform", p is drawn from U[0, 1] in both splits, and tasks never repeat.
    Otherwise there are only two tasks, equally likely, and both splits share them: the test split
    then measures adaptation, but not generalisation to unseen tasks.

    Source: Wang et al. 2016, arXiv:1611.05763, section 3.1.2.
    """

    pulls: int = 100
    """pulls per trial; each pull is an episode of one step"""
    difficulty: Difficulty = "uniform"
    """p from U[0, 1]; or from {.1, .9} (easy), {.25, .75} (medium), {.4, .6} (hard)"""

    @property
    def arms(self) -> int:
        """Two arms."""
        return 2

    @property
    def task_space(self) -> spaces.Box:
        """The probability that the first arm pays."""
        return spaces.Box(0.0, 1.0, (1,), np.float32)

    @property
    def splits_share_tasks(self) -> bool:
        """True where there are only two tasks."""
        return self.difficulty != "uniform"

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Payout probabilities of the first arm, [N, 1]."""
        p = torch.rand(num_tasks, 1, generator=generator, device=generator.device)
        low = LOW[self.difficulty]
        return p if low is None else torch.where(p < 0.5, low, 1 - low)

    def arm_means(self, task: Tensor) -> Tensor:
        """Payout probabilities p and 1 - p, [L, 2]."""
        return torch.cat([task, 1 - task], 1)

    def pay(self, mean: Tensor, noise: LaneNoise) -> Tensor:
        """1 with probability `mean`, else 0."""
        return pay_one_or_nothing(mean, noise)

    def optimal_return(self) -> float:
        """Expected reward of a whole trial under the exact Bayes optimum.

        The optimal policy pulls the arm with the higher posterior mean. Its expected reward is
        summed over pulls and over the number of hits before each pull.
        """
        posterior = PairPosterior(low=LOW[self.difficulty])
        value, chance = 0.0, torch.ones(1, dtype=torch.float64)  # probability of each hit count
        for past in range(self.pulls):
            hits = torch.arange(past + 1, dtype=torch.float64)
            p = posterior.expected(hits, past - hits)
            value += float((chance * torch.maximum(p, 1 - p)).sum())
            zero = torch.zeros(1, dtype=torch.float64)
            chance = torch.cat([chance * (1 - p), zero]) + torch.cat([zero, chance * p])
        return value

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, Thompson sampling, the exact Bayes optimum, the best arm."""
        return references.pair(self.arm_means, PairPosterior(low=LOW[self.difficulty]))
