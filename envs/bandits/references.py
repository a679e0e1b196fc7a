"""Reference policies for bandits, from floor to ceiling.

Axes: `L` lanes, `N` tasks, `A` arms.
"""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import Policy, PolicyOutput
from metarl.envs.bandits import arm_scores as scores
from metarl.envs.bandits.arm_scores import Score, updated_tally
from metarl.envs.bandits.bayes_optimum import BayesOptimal, solvable
from metarl.envs.bandits.gittins_index import GittinsIndex, tabulable
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

EPSILON = 0.1
"""fraction of random pulls of epsilon-greedy; Sutton and Barto 2018, section 2.3

Duan et al. 2016 select the best of 0, 0.1, ..., 1 for each size of bandit, on the tasks that they
report. With up to 100 pulls the best value is 0, which is 'greedy'."""
BERNOULLI_BOUND_SCALE = 0.2
"""scale of the UCB1 bonus where payouts are 0 or 1

Duan et al. 2016 select the best of 0, 0.1, ..., 1 in the same way. For 5, 10 and 50 arms this
value is best at 100 pulls, and not significantly different from the best, 0.1, at 10. The 1 of
Auer et al. 2002 explores far too much in trials this short."""
GAUSSIAN_BOUND_SCALE = 0.5
"""the same for rewards of unit variance: best at 100 pulls, not significantly below 0.4 at 10"""

Role: TypeAlias = Literal["floor", "baseline", "ceiling"]
References: TypeAlias = Mapping[str, Reference]
ArmMeans: TypeAlias = Callable[[Tensor], Tensor]
"""tasks [N, ...] -> mean reward of every arm [N, A]"""


def bernoulli(arms: int, pulls: int, arm_means: ArmMeans) -> References:
    """References for arms with payout probabilities from U[0, 1]."""
    mean, draw = scores.beta_mean, scores.beta_draw
    return {
        "random": _random(arms),
        "greedy": _scored("greedy", arms, mean, by_default=False),
        "epsilon_greedy": _epsilon_greedy(arms, mean),
        "ucb1": _scored(
            f"UCB1 (bonus x {BERNOULLI_BOUND_SCALE})",
            arms,
            scores.UpperBound(mean=mean, prior_pulls=2, scale=BERNOULLI_BOUND_SCALE),
            by_default=False,
        ),
        "thompson": _scored("Thompson sampling", arms, draw),
        "optimistic_thompson": _scored(
            "optimistic Thompson sampling",
            arms,
            scores.Optimistic(draw=draw, mean=mean),
            by_default=False,
        ),
        **_gittins(arms, pulls),
        **_bayes_optimal(arms, pulls),
        "best_arm": _best_arm(arm_means),
    }


def gaussian(arms: int, arm_means: ArmMeans) -> References:
    """References for arms with means from N(0, 1) and rewards of unit variance."""
    mean, draw = scores.normal_mean, scores.normal_draw
    return {
        "random": _random(arms),
        "greedy": _scored("greedy", arms, mean, by_default=False),
        "epsilon_greedy": _epsilon_greedy(arms, mean),
        "ucb": _scored(
            f"UCB (bonus x {GAUSSIAN_BOUND_SCALE})",
            arms,
            scores.UpperBound(mean=mean, prior_pulls=1, scale=GAUSSIAN_BOUND_SCALE),
        ),
        "thompson": _scored("Thompson sampling", arms, draw),
        "best_arm": _best_arm(arm_means),
    }


def goal(arms: int, arm_means: ArmMeans, posterior: scores.GoalPosterior) -> References:
    """References for arms of which one pays more often; each is equally likely to be that one."""
    return {
        "random": _random(arms),
        "thompson": _scored("Thompson sampling", arms, posterior),
        "best_arm": _best_arm(arm_means),
    }


def pair(arm_means: ArmMeans, posterior: scores.PairPosterior) -> References:
    """References for two arms that pay with p and 1 - p.

    Both arms give the same information about p, so exploration gains nothing: pulling the arm with
    the higher posterior mean is optimal.
    """
    return {
        "random": _random(2),
        "thompson": _scored("Thompson sampling", 2, posterior.draw),
        "bayes_optimal": _scored("exact Bayes optimum", 2, posterior.mean, role="ceiling"),
        "best_arm": _best_arm(arm_means),
    }


def informative(arms: int, arm_means: ArmMeans, *, thompson: Score, optimum: Score) -> References:
    """References for arms of which one reveals the best arm by its payout."""
    return {
        "random": _random(arms),
        "thompson": _scored("Thompson sampling", arms, thompson),
        "bayes_optimal": _scored("exact Bayes optimum", arms, optimum, role="ceiling"),
        "best_arm": _best_arm(arm_means),
    }


def _epsilon_greedy(arms: int, mean: Score) -> Reference:
    score = scores.EpsilonGreedy(mean=mean, epsilon=EPSILON)
    return _scored(f"epsilon-greedy ({EPSILON})", arms, score, by_default=False)


def _gittins(arms: int, pulls: int) -> References:
    if not tabulable(pulls):
        return {}

    def build(tasks: Tensor) -> Policy:
        return PullsHighest(arms, GittinsIndex(pulls, tasks.device), tasks.device)

    reference = Reference(
        role="baseline",
        label="Gittins index (finite horizon)",
        build=build,
        # Redundant where the exact optimum is known; the largest tables are slow to compute.
        by_default=pulls <= 200 and not solvable(arms, pulls),
    )
    return {"gittins": reference}


def _bayes_optimal(arms: int, pulls: int) -> References:
    """The ceiling for agents that do not know the task; empty if too large to solve."""
    if not solvable(arms, pulls):
        return {}
    reference = Reference(
        role="ceiling",
        label="exact Bayes optimum",
        build=lambda tasks: BayesOptimal(arms, pulls, tasks.device),
    )
    return {"bayes_optimal": reference}


def _random(arms: int) -> Reference:
    """The floor: pulls arms uniformly at random."""
    policy = UniformPolicy(spaces.Discrete(arms))
    return Reference(role="floor", label="random", build=lambda _: policy)


def _best_arm(arm_means: ArmMeans) -> Reference:
    """The ceiling for agents that know the task."""
    return Reference(
        role="ceiling",
        label="best arm (knows the task)",
        build=lambda tasks: BestArm(arm_means(tasks)),
    )


def _scored(
    label: str, arms: int, score: Score, *, role: Role = "baseline", by_default: bool = True
) -> Reference:
    return Reference(
        role=role,
        label=label,
        build=lambda tasks: PullsHighest(arms, score, tasks.device),
        by_default=by_default,
    )


class PullsHighest:
    """Pulls the arm with the highest score; ties go to the first arm.

    Scores may be random, but the probability of the pulled arm is not computed: `log_prob` is zero.
    """

    def __init__(self, arms: int, score: Score, device: torch.device | str = "cpu") -> None:
        self._arms, self._score, self._device = arms, score, device

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        """An empty tally [L, A, 2]."""
        return torch.zeros(lanes, self._arms, 2, device=self._device)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        """The arm with the highest score."""
        tally = updated_tally(memory, percept)
        action = self._score(tally, noise).argmax(-1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), tally)


class BestArm:
    """Pulls the arm with the highest mean in every task."""

    def __init__(self, means: Tensor) -> None:
        """`means` [N, A]: mean reward of every arm in every task."""
        self._best = means.argmax(1)

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        """The best arm of each lane's task, [L]."""
        return self._best.repeat_interleave(lanes // len(self._best), 0)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        """The best arm."""
        return PolicyOutput(memory, torch.zeros_like(percept.previous_reward), memory)
