"""Multi-armed bandits: payouts of the arms go in, one reward per pull comes out.

Axes: `L` lanes, `N` tasks. One pull is one whole episode, and the observation says nothing: all
that an agent can know is what it remembers of its earlier episodes in the same task.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.bandits import references
from metarl.envs.bandits.arm_scores import GoalPosterior
from metarl.envs.bandits.bayes_optimum import bayes_optimal_value
from metarl.envs.drawing.canvas import Pull, draw_arms
from metarl.errors import ConfigError
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class Bandit(TaskFamily):
    """What all bandits share; a kind of bandit adds its tasks, mean payouts and payout noise."""

    pulls: int = 10
    """pulls that a trial lasts, each of them an episode of one step"""

    can_render: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("arms", self.arms)
        require_positive("pulls", self.pulls)

    @property
    @abstractmethod
    def arms(self) -> int:
        """Arms to choose from."""

    @property
    def observation_space(self) -> spaces.Box:
        """A constant zero."""
        return spaces.Box(0.0, 1.0, (1,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The arm to pull."""
        return spaces.Discrete(self.arms)

    @property
    def episode_steps(self) -> int:
        """One pull."""
        return 1

    @property
    def trial_episodes(self) -> int:
        """As many as there are pulls."""
        return self.pulls

    @abstractmethod
    def arm_means(self, task: Tensor) -> Tensor:
        """Expected reward of every arm, [L, arms], in the tasks [L, ...]."""

    @abstractmethod
    def pay(self, mean: Tensor, generator: Generator) -> Tensor:
        """Reward [L] of arms with expected rewards `mean` [L]; equal draws whichever is pulled."""

    def expected_rewards(self, task: Tensor) -> Tensor:
        """Those of the arms."""
        return self.arm_means(task)

    def reset(self, task: Tensor, generator: Generator) -> Tensor:
        """A bandit has no state: zeros [L, 1]."""
        return torch.zeros(len(task), 1, device=task.device)

    def observe(self, task: Tensor, state: Tensor) -> Tensor:
        """Zeros [L, 1]."""
        return torch.zeros_like(state)

    def step(
        self, task: Tensor, state: Tensor, action: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pulls an arm, which ends the episode."""
        mean = self.arm_means(task).gather(1, action.unsqueeze(1)).squeeze(1)
        return state, self.pay(mean, generator), torch.ones_like(action, dtype=torch.bool)

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """What the arms pay, how often each has been pulled, and the latest pull."""
        pulls = [
            Pull(int(moment.action), moment.reward) for moment in life if moment.action is not None
        ]
        counts = np.bincount([pull.arm for pull in pulls], minlength=self.arms)
        return draw_arms(self.arm_means(task)[0].numpy(), counts, pulls[-1] if pulls else None)


@dataclass(frozen=True, kw_only=True)
class BernoulliBandit(Bandit):
    """Arms that pay 1 with a probability of their own, else 0. A task is those probabilities.

    Every probability is drawn from U[0, 1], in both splits: tasks are never drawn twice.
    Source: Duan et al. 2016, arXiv:1611.02779, section 3.1.
    """

    arms: int = 5
    """arms to choose from"""

    @property
    def task_space(self) -> spaces.Box:
        """The probability that each arm pays."""
        return spaces.Box(0.0, 1.0, (self.arms,), np.float32)

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Payout probabilities [N, arms]."""
        return torch.rand(num_tasks, self.arms, generator=generator, device=generator.device)

    def arm_means(self, task: Tensor) -> Tensor:
        """The task itself."""
        return task

    def pay(self, mean: Tensor, generator: Generator) -> Tensor:
        """1 with probability `mean`, else 0."""
        return pay_one_or_nothing(mean, generator)

    def optimal_return(self) -> float:
        """Expected reward of a whole trial under the exact Bayes optimum.

        Raises:
            ConfigError: the bandit is too large to be solved.
        """
        return bayes_optimal_value(self.arms, self.pulls)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """From random to the best arm; the exact Bayes optimum where it can be computed."""
        return references.bernoulli(self.arms, episodes, self.arm_means)


@dataclass(frozen=True, kw_only=True)
class GaussianBandit(Bandit):
    """Arms that pay a mean of their own plus noise of unit variance. A task is those means.

    Every mean is drawn from N(0, 1), in both splits: tasks are never drawn twice.
    Source: the testbed of Sutton and Barto 2018, section 2.3 (which has 10 arms).
    """

    arms: int = 5
    """arms to choose from"""

    @property
    def task_space(self) -> spaces.Box:
        """The mean reward of each arm."""
        return spaces.Box(-np.inf, np.inf, (self.arms,), np.float32)

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Mean rewards [N, arms]."""
        return torch.randn(num_tasks, self.arms, generator=generator, device=generator.device)

    def arm_means(self, task: Tensor) -> Tensor:
        """The task itself."""
        return task

    def pay(self, mean: Tensor, generator: Generator) -> Tensor:
        """`mean` plus one standard normal number per lane, whichever arm is pulled."""
        return mean + torch.randn(mean.shape, generator=generator, device=mean.device)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """From random to the best arm, all with the prior that tasks are drawn from."""
        return references.gaussian(self.arms, self.arm_means)


@dataclass(frozen=True, kw_only=True)
class GoalBandit(Bandit):
    """One arm, the goal, pays more often than all the others. A task is the index of that arm.

    With `held_out_arms` the goals of the test split never are goals in training: an agent that
    only learnt where the goal tends to be fails there. With `held_out_arms=0` the finitely many
    tasks are shared by both splits.

    Source: no paper; the smallest task in which memory pays.
    """

    arms: int = 5
    """arms to choose from"""
    p_goal: float = 0.9
    """probability that the goal arm pays 1"""
    p_other: float = 0.1
    """probability that any other arm pays 1"""
    held_out_arms: int = 0
    """the last so many arms are goals in the test split only"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between("p_goal", self.p_goal, 0.0, 1.0)
        require_between("p_other", self.p_other, 0.0, 1.0)
        if self.p_other >= self.p_goal:
            raise ConfigError(
                f"p_other={self.p_other} must be below p_goal={self.p_goal}: the goal is the arm "
                "that pays most."
            )
        if not 0 <= self.held_out_arms < self.arms:
            raise ConfigError(
                f"held_out_arms={self.held_out_arms} must lie between 0 and {self.arms - 1}: with "
                f"arms={self.arms} at least one must be left to be the goal in training."
            )

    @property
    def task_space(self) -> spaces.Discrete:
        """The arm that is the goal."""
        return spaces.Discrete(self.arms)

    @property
    def splits_share_tasks(self) -> bool:
        """Unless arms are held out."""
        return self.held_out_arms == 0

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Goal arms [N] int64."""
        low, high = 0, self.arms - self.held_out_arms
        if split == "test" and self.held_out_arms:
            low, high = high, self.arms
        return torch.randint(low, high, (num_tasks,), generator=generator, device=generator.device)

    def arm_means(self, task: Tensor) -> Tensor:
        """`p_goal` for the goal, `p_other` for the rest."""
        is_goal = torch.arange(self.arms, device=task.device) == task.unsqueeze(1)
        return torch.where(is_goal, self.p_goal, self.p_other)

    def pay(self, mean: Tensor, generator: Generator) -> Tensor:
        """1 with probability `mean`, else 0."""
        return pay_one_or_nothing(mean, generator)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, Thompson sampling with any arm equally likely to be the goal, the best arm."""
        posterior = GoalPosterior(p_goal=self.p_goal, p_other=self.p_other)
        return references.goal(self.arms, self.arm_means, posterior)


def pay_one_or_nothing(mean: Tensor, generator: Generator) -> Tensor:
    """1 with probability `mean` [L], else 0; one uniform per lane, whatever `mean` is.

    So policies that are given equal seeds meet common random numbers.
    """
    luck = torch.rand(mean.shape, generator=generator, device=mean.device)
    return (luck < mean).float()
