"""Eleven arms of which the last tells where the target is: pulls go in, fixed payouts come out.

Axes: `L` lanes, `N` tasks, `B` copies of each task, `A` arms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.envs.bandits import references
from metarl.envs.bandits.multi_armed import Bandit
from metarl.tasks.family import Reference, Split

CANDIDATES = 10
"""arms that may be the target; the informative arm comes after them"""
TARGET_PAYS = 5.0
OTHERS_PAY = 1.0
PAYS_PER_INDEX = 0.1
"""the informative arm pays this much for each place of the target, counted from 1"""


@dataclass(frozen=True, kw_only=True)
class InformativeArmBandit(Bandit):
    """The last arm pays least, and its payout names the arm that pays most. A task is that arm.

        payout of the target  = 5
        payout of arm 11      = (index of the target) / 10,   index = 1, ..., 10
        payout of the others  = 1

    Nothing is drawn but the target, so the payout of arm 11 says everything. Whoever asks it first
    gives up reward now for reward later: an agent that only repeats what has paid never finds it.
    There are ten tasks, equally likely, and both splits share them: the test split measures
    adaptation, but not generalisation to unseen tasks. A task counts from 0.

    Source: Wang et al. 2016, arXiv:1611.05763, section 3.1 (bandits with dependent arms, II).
    """

    pulls: int = 5
    """pulls that a trial lasts, each of them an episode of one step"""

    splits_share_tasks: ClassVar[bool] = True

    @property
    def arms(self) -> int:
        """Ten that may be the target, and the informative one."""
        return CANDIDATES + 1

    @property
    def task_space(self) -> spaces.Discrete:
        """The target, counted from 0."""
        return spaces.Discrete(CANDIDATES)

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Targets [N] int64."""
        return torch.randint(CANDIDATES, (num_tasks,), generator=generator, device=generator.device)

    def arm_means(self, task: Tensor) -> Tensor:
        """The payouts themselves: nothing is left to luck."""
        arm = torch.arange(self.arms, device=task.device)
        payout = torch.where(arm == task.unsqueeze(1), TARGET_PAYS, OTHERS_PAY)
        payout[:, CANDIDATES] = PAYS_PER_INDEX * (task + 1)
        return payout

    def pay(self, mean: Tensor, generator: Generator) -> Tensor:
        """`mean`; draws nothing."""
        return mean

    def optimal_return(self) -> float:
        """Expected reward of a whole trial under the exact Bayes optimum.

            .55 + 5 (pulls - 1)       (1.4 where there is one pull)

        It asks, and then pulls the target. Whoever pulls a candidate first hits it with 1/10 and
        next with 1/9, so of n >= 2 pulls it earns at most
        5 n / 10 + (9/10) (1 + 13/9 + 5 (n - 2)) = 5 n - 6.8, and asking earns 5 n - 4.45. The last
        pull alone is too late to ask: any candidate pays (5 + 9) / 10 then.
        """
        if self.pulls == 1:
            return (TARGET_PAYS + (CANDIDATES - 1) * OTHERS_PAY) / CANDIDATES
        return PAYS_PER_INDEX * (CANDIDATES + 1) / 2 + TARGET_PAYS * (self.pulls - 1)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, Thompson sampling, the exact Bayes optimum, the best arm."""
        optimum = asks_first if episodes > 1 else never_asks
        return references.informative(
            self.arms, self.arm_means, thompson=never_asks, optimum=optimum
        )


def never_asks(tally: Tensor, generator: Generator) -> Tensor:
    """Scores [N, B, A] that are highest for the target once it was hit, before for any untried arm.

    This is Thompson sampling: of arms drawn from the posterior the informative one never is best.

    Args:
        tally: [N, B, A, 2] total reward and pulls of every arm.
        generator: draws the order in which candidates are tried.
    """
    total, pulls = tally[..., :CANDIDATES, :].unbind(-1)
    untried = torch.rand(pulls.shape, generator=generator, device=pulls.device)
    candidates = torch.where(pulls > 0, -1.0, untried)
    candidates = torch.where(total > pulls * OTHERS_PAY, 2.0, candidates)
    return torch.cat([candidates, torch.full_like(candidates[..., :1], -2.0)], -1)


def asks_first(tally: Tensor, generator: Generator) -> Tensor:
    """Scores [N, B, A] that are highest for the informative arm, and then for the arm it names.

    Args:
        tally: [N, B, A, 2] total reward and pulls of every arm.
        generator: not used.
    """
    total, pulls = tally[..., CANDIDATES, :].unbind(-1)
    named = (total / pulls.clamp(min=1) / PAYS_PER_INDEX).round().long() - 1
    chosen = torch.where(pulls > 0, named, CANDIDATES)
    return (torch.arange(CANDIDATES + 1, device=tally.device) == chosen.unsqueeze(-1)).float()
