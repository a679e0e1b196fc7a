"""Multi-armed bandits with Bernoulli, Gaussian and goal arms.

Axes: `L` lanes, `N` tasks. One pull is one whole episode, and the observation is constant: an
agent can only use its memory of earlier episodes in the same task.
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
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_between, require_positive


@dataclass(frozen=True, kw_only=True)
class Bandit(TaskFamily):
    """Base class of bandits; subclasses define tasks, mean payouts and payout noise."""

    pulls: int = 10
    """pulls per trial; each pull is an episode of one step"""

    can_render: ClassVar[bool] = True
    fixed_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("arms", self.arms)
        require_positive("pulls", self.pulls)

    @property
    @abstractmethod
    def arms(self) -> int:
        """Number of arms."""

    @property
    def observation_space(self) -> spaces.Box:
        """One constant zero."""
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
        """One episode per pull."""
        return self.pulls

    @abstractmethod
    def arm_means(self, task: Tensor) -> Tensor:
        """Expected reward of every arm, [L, arms], in tasks [L, ...]."""

    @abstractmethod
    def pay(self, mean: Tensor, noise: LaneNoise) -> Tensor:
        """Reward [L] of arms with expected rewards `mean` [L]; draws do not depend on the arm."""

    def expected_rewards(self, task: Tensor) -> Tensor:
        """Expected reward of every arm, [L, arms]."""
        return self.arm_means(task)

    def reset(self, task: Tensor, noise: LaneNoise) -> Tensor:
        """Zeros [L, 1]: a bandit has no state."""
        return torch.zeros(len(task), 1, device=task.device)

    def observe(self, task: Tensor, state: Tensor) -> Tensor:
        """Zeros [L, 1]."""
        return torch.zeros_like(state)

    def step(
        self, task: Tensor, state: Tensor, action: Tensor, noise: LaneNoise
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pulls an arm, which ends the episode."""
        mean = self.arm_means(task).gather(1, action.unsqueeze(1)).squeeze(1)
        return state, self.pay(mean, noise), torch.ones_like(action, dtype=torch.bool)

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """Mean payout and number of pulls of each arm, and the latest pull."""
        pulls = [
            Pull(int(frame.action), frame.reward) for frame in history if frame.action is not None
        ]
        counts = np.bincount([pull.arm for pull in pulls], minlength=self.arms)
        return draw_arms(self.arm_means(task)[0].numpy(), counts, pulls[-1] if pulls else None)


@dataclass(frozen=True, kw_only=True)
class BernoulliBandit(Bandit):
    """Each arm pays 1 with a fixed probability, else 0. A task is the vector of probabilities.

    Every probability is drawn from U[0, 1] in both splits; tasks never repeat.
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

    def pay(self, mean: Tensor, noise: LaneNoise) -> Tensor:
        """1 with probability `mean`, else 0."""
        return pay_one_or_nothing(mean, noise)

    def optimal_return(self) -> float:
        """Expected reward of a whole trial under the exact Bayes optimum.

        Raises:
            ConfigError: the bandit is too large to be solved.
        """
        return bayes_optimal_value(self.arms, self.pulls)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """From random to the best arm, with the exact Bayes optimum where it can be computed."""
        return references.bernoulli(self.arms, episodes, self.arm_means)


@dataclass(frozen=True, kw_only=True)
class GaussianBandit(Bandit):
    """Each arm pays its mean plus noise of unit variance. A task is the vector of means.

    Every mean is drawn from N(0, 1) in both splits; tasks never repeat.
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

    def pay(self, mean: Tensor, noise: LaneNoise) -> Tensor:
        """`mean` plus one standard normal draw per lane, whichever arm is pulled."""
        return mean + noise.normal()

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """From random to the best arm; Bayesian policies use the true prior."""
        return references.gaussian(self.arms, self.arm_means)


@dataclass(frozen=True, kw_only=True)
class GoalBandit(Bandit):
    """One arm, the goal, pays more often than all the others. A task is the index of that arm.

    With `held_out_arms`, the goals of the test split are never goals in training: an agent that
    only learnt which arms are likely goals fails there. With `held_out_arms=0` both splits share
    all tasks.

    Source: no paper; the smallest task in which memory helps.
    """

    arms: int = 5
    """arms to choose from"""
    p_goal: float = 0.9
    """probability that the goal arm pays 1"""
    p_other: float = 0.1
    """probability that any other arm pays 1"""
    held_out_arms: int = 0
    """this many arms, counted from the last, are goals in the test split only"""

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
                f"arms={self.arms} at least one must remain as a training goal."
            )

    @property
    def task_space(self) -> spaces.Discrete:
        """The arm that is the goal."""
        return spaces.Discrete(self.arms)

    @property
    def splits_share_tasks(self) -> bool:
        """True unless arms are held out."""
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

    def pay(self, mean: Tensor, noise: LaneNoise) -> Tensor:
        """1 with probability `mean`, else 0."""
        return pay_one_or_nothing(mean, noise)

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, Thompson sampling with any arm equally likely to be the goal, the best arm."""
        posterior = GoalPosterior(p_goal=self.p_goal, p_other=self.p_other)
        return references.goal(self.arms, self.arm_means, posterior)


def pay_one_or_nothing(mean: Tensor, noise: LaneNoise) -> Tensor:
    """1 with probability `mean` [L], else 0; one uniform draw per lane, whatever `mean` is.

    Policies with equal seeds therefore get common random numbers.
    """
    return (noise.uniform() < mean).float()
