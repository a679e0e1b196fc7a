"""Eleven-armed bandits whose last arm reveals the target arm.

Axes: `L` lanes, `N` tasks, `A` arms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.envs.bandits import references
from metarl.envs.bandits.multi_armed import Bandit
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, Split

CANDIDATES = 10
"""arms that may be the target; the informative arm comes after them"""
TARGET_PAYS = 5.0
OTHERS_PAY = 1.0
PAYS_PER_INDEX = 0.1
"""payout of the informative arm per index of the target, counted from 1"""


@dataclass(frozen=True, kw_only=True)
class InformativeArmBandit(Bandit):
    """The last arm pays least, but its payout identifies the best arm. A task is the best arm.

        payout of the target  = 5
        payout of arm 11      = (index of the target) / 10,   index = 1, ..., 10
        payout of the others  = 1

    Payouts are deterministic given the target, so one pull of arm 11 identifies the task. Pulling
    it first trades immediate reward for information: an agent that only repeats rewarded actions
    never learns to. There are ten tasks, equally likely, and both splits share them: the test
    split measures adaptation, but not generalisation to unseen tasks. Tasks are counted from 0.

    Source: Wang et al. 2016, arXiv:1611.05763, section 3.1 (bandits with dependent arms, II).
    """

    pulls: int = 5
    """pulls per trial; each pull is an episode of one step"""

    splits_share_tasks: ClassVar[bool] = True

    @property
    def arms(self) -> int:
        """Ten candidates for the target, and the informative arm."""
        return CANDIDATES + 1

    @property
    def task_space(self) -> spaces.Discrete:
        """The target, counted from 0."""
        return spaces.Discrete(CANDIDATES)

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Targets [N] int64."""
        return torch.randint(CANDIDATES, (num_tasks,), generator=generator, device=generator.device)

    def arm_means(self, task: Tensor) -> Tensor:
        """The payouts themselves, which are deterministic."""
        arm = torch.arange(self.arms, device=task.device)
        payout = torch.where(arm == task.unsqueeze(1), TARGET_PAYS, OTHERS_PAY)
        payout[:, CANDIDATES] = PAYS_PER_INDEX * (task + 1)
        return payout

    def pay(self, mean: Tensor, noise: LaneNoise) -> Tensor:
        """`mean`; draws nothing."""
        return mean

    def optimal_return(self) -> float:
        """Expected reward of a whole trial under the exact Bayes optimum.

            .55 + 5 (pulls - 1)       (1.4 for a single pull)

        The optimal policy pulls the informative arm and then the target: 5 n - 4.45 in n pulls.
        Pulling a candidate first hits the target with probability 1/10, then 1/9, so for n >= 2 it
        earns at most 5 n / 10 + (9/10) (1 + 13/9 + 5 (n - 2)) = 5 n - 6.8. With one pull left,
        information has no value, and any candidate pays (5 + 9) / 10 on average.
        """
        if self.pulls == 1:
            return (TARGET_PAYS + (CANDIDATES - 1) * OTHERS_PAY) / CANDIDATES
        return PAYS_PER_INDEX * (CANDIDATES + 1) / 2 + TARGET_PAYS * (self.pulls - 1)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, Thompson sampling, the exact Bayes optimum, the best arm."""
        optimum = probe_first if episodes > 1 else never_probe
        return references.informative(
            self.arms, self.arm_means, thompson=never_probe, optimum=optimum
        )


def never_probe(tally: Tensor, noise: LaneNoise) -> Tensor:
    """Scores [L, A], highest for an untried candidate until the target is hit, then for it.

    This is Thompson sampling: the informative arm is never the best arm of a posterior draw.

    Args:
        tally: [L, A, 2] total reward and pulls of every arm.
        noise: source of the order in which candidates are tried.
    """
    total, pulls = tally[..., :CANDIDATES, :].unbind(-1)
    candidates = torch.where(pulls > 0, -1.0, noise.uniform(CANDIDATES))
    candidates = torch.where(total > pulls * OTHERS_PAY, 2.0, candidates)
    return torch.cat([candidates, torch.full_like(candidates[..., :1], -2.0)], -1)


def probe_first(tally: Tensor, noise: LaneNoise) -> Tensor:
    """Scores [L, A], highest for the informative arm first, then for the arm that it reveals.

    Args:
        tally: [L, A, 2] total reward and pulls of every arm.
        noise: not used.
    """
    total, pulls = tally[..., CANDIDATES, :].unbind(-1)
    revealed = (total / pulls.clamp(min=1) / PAYS_PER_INDEX).round().long() - 1
    chosen = torch.where(pulls > 0, revealed, CANDIDATES)
    return (torch.arange(CANDIDATES + 1, device=tally.device) == chosen.unsqueeze(-1)).float()
