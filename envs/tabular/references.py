"""Reference policies for tabular MDPs: a floor, planning baselines and an oracle.

All but the floor solve an MDP by finite-horizon value iteration and follow the plan. The baselines
use the prior of the tasks, or a wrong prior under which mean rewards are N(0, 1).

Axes: `L` lanes, `N` tasks, `S` states, `A` actions, `H` steps of an episode.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.envs.tabular import planning
from metarl.envs.tabular.planning import MDP, ExperienceCounts, MDPSize, Prior
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

EPSILON = 0.1
"""share of random actions of epsilon-greedy, as in the code of Osband (TabulaRL)"""
OPSRL_SAMPLES = 10
"""MDPs that OPSRL samples for each episode, as in the code of Osband (TabulaRL)"""
TIE_NOISE = 1e-4
"""amplitude of the noise that breaks ties between values, above their rounding error"""
FLAT_PRIOR_WEIGHT = 1e-4
"""visits that the wrong prior of greedy counts as, as in the code of Osband (TabulaRL)"""

ValueEstimate: TypeAlias = Callable[[ExperienceCounts, LaneNoise], Tensor]
"""counts -> estimated value of every action at every step, [L, H, S, A]"""


def references(
    size: MDPSize, prior: Prior, mdp: Callable[[Tensor], MDP]
) -> Mapping[str, Reference]:
    """All references, from the floor to the ceiling.

    Args:
        size: dimensions of the MDPs.
        prior: prior that the MDPs are drawn from.
        mdp: tasks [N, ...] -> their MDPs.
    """
    known = {
        "random": Reference(
            role="floor",
            label="random",
            build=lambda _: UniformPolicy(spaces.Discrete(size.actions)),
        ),
        "greedy": _planner("greedy", size, PosteriorMeanValues(prior, size.steps)),
        "greedy_replanning": _planner(
            "greedy, replanning",
            size,
            PosteriorMeanValues(prior, size.steps),
            replan_every_step=True,
        ),
        "epsilon_greedy": _planner(
            f"epsilon-greedy ({EPSILON})",
            size,
            PosteriorMeanValues(prior, size.steps),
            epsilon=EPSILON,
            by_default=False,
        ),
        "psrl": _planner("PSRL", size, PosteriorSampleValues(prior, size.steps, samples=1)),
        "opsrl": _planner(
            f"OPSRL ({OPSRL_SAMPLES} draws)",
            size,
            PosteriorSampleValues(prior, size.steps, samples=OPSRL_SAMPLES),
        ),
    }
    if prior.mean_reward:
        known |= _with_wrong_prior(size, replace(prior, mean_reward=0.0))
    known["oracle"] = Reference(
        role="ceiling",
        label="oracle, MDP known",
        build=lambda tasks: Oracle(mdp(tasks), size.steps),
    )
    return known


def _with_wrong_prior(size: MDPSize, prior: Prior) -> Mapping[str, Reference]:
    """Baselines that assume mean rewards around zero.

    The returns published by Duan et al. 2016 are reproduced with this prior, not with the true one.
    It is the default of Osband's code (TabulaRL), where greedy also gives the prior next to no
    weight, so that the first visit overrides it.
    """
    steps, wrong = size.steps, "prior mean 0"
    return {
        "greedy_at_zero": _planner(
            f"greedy ({wrong}, flat)",
            size,
            PosteriorMeanValues(prior, steps, FLAT_PRIOR_WEIGHT),
            by_default=False,
        ),
        "epsilon_greedy_at_zero": _planner(
            f"epsilon-greedy ({EPSILON}, {wrong}, flat)",
            size,
            PosteriorMeanValues(prior, steps, FLAT_PRIOR_WEIGHT),
            epsilon=EPSILON,
            by_default=False,
        ),
        "psrl_at_zero": _planner(
            f"PSRL ({wrong})",
            size,
            PosteriorSampleValues(prior, steps, samples=1),
            by_default=False,
        ),
        "opsrl_at_zero": _planner(
            f"OPSRL ({OPSRL_SAMPLES} draws, {wrong})",
            size,
            PosteriorSampleValues(prior, steps, samples=OPSRL_SAMPLES),
            by_default=False,
        ),
    }


def _planner(
    label: str,
    size: MDPSize,
    values: ValueEstimate,
    *,
    epsilon: float = 0.0,
    replan_every_step: bool = False,
    by_default: bool = True,
) -> Reference:
    return Reference(
        role="baseline",
        label=label,
        build=lambda tasks: Planner(
            size, values, tasks.device, epsilon=epsilon, replan_every_step=replan_every_step
        ),
        by_default=by_default,
    )


@dataclass(frozen=True)
class PosteriorMeanValues:
    """Values in the posterior mean MDP, with ties broken at random.

    Random ties matter where a plan is kept for an episode: on returning to a state, the policy
    tries another of its unvisited actions. Always taking the first one lowers the return by 5 of
    155.
    """

    prior: Prior
    steps: int  # H
    weight: float = 1.0
    """number of visits that the prior counts as"""

    def __call__(self, counts: ExperienceCounts, noise: LaneNoise) -> Tensor:
        """Values [L, H, S, A]."""
        mdp = planning.posterior_mean_mdp(counts, self.prior, self.weight)
        values = planning.action_values(mdp, self.steps)
        return values + TIE_NOISE * noise.uniform(*values.shape[1:])


@dataclass(frozen=True)
class PosteriorSampleValues:
    """The largest values over some MDPs sampled from the posterior.

    One sample is PSRL (Strens 2000; Osband et al. 2013, arXiv:1306.0940); several are OPSRL
    (Osband and Van Roy 2016, arXiv:1607.00215).
    """

    prior: Prior
    steps: int  # H
    samples: int

    def __call__(self, counts: ExperienceCounts, noise: LaneNoise) -> Tensor:
        """Values [L, H, S, A]."""
        best = self._sampled_values(counts, noise)
        for _ in range(self.samples - 1):
            best = torch.maximum(best, self._sampled_values(counts, noise))
        return best

    def _sampled_values(self, counts: ExperienceCounts, noise: LaneNoise) -> Tensor:
        mdp = planning.posterior_sample_mdp(counts, self.prior, noise)
        return planning.action_values(mdp, self.steps)


class _PlannerMemory(NamedTuple):
    counts: ExperienceCounts
    plan: Tensor  # [L, H, S] int64  the action to take
    state: Tensor  # [L] int64  state before the last action
    step: Tensor  # [L] int64  step of the episode at the last action


class Planner:
    """Counts its experience, plans at the start of each episode, and follows that plan.

    Plans ignore the value of information. The last step of an episode adds its reward but no
    transition to the counts, because the state that follows it is never observed.
    """

    def __init__(
        self,
        size: MDPSize,
        values: ValueEstimate,
        device: torch.device,
        *,
        epsilon: float = 0.0,
        replan_every_step: bool = False,
    ) -> None:
        """Takes a random action with probability `epsilon`; may replan at every step."""
        self._size, self._values, self._device = size, values, device
        self._epsilon, self._replan_every_step = epsilon, replan_every_step

    def initial_memory(self, lanes: int, horizon: int) -> _PlannerMemory:
        """Zero counts, and no plan yet."""
        zero = torch.zeros(lanes, dtype=torch.int64, device=self._device)
        plan = zero.new_zeros(lanes, self._size.steps, self._size.states)
        counts = planning.zero_counts((lanes,), self._size, self._device)
        return _PlannerMemory(counts, plan, zero, zero)

    def act(self, percept: Percept, memory: _PlannerMemory, noise: LaneNoise) -> PolicyOutput:
        """The planned action; with probability `epsilon`, a uniformly random one."""
        state, starts = percept.obs.argmax(-1), percept.first_of_episode
        counts = memory.counts.with_step(
            memory.state,
            percept.previous_action,
            state,
            percept.previous_reward,
            has_reward=~percept.first_of_trial,
            has_transition=~starts,
        )
        # Drawn first, because whether any lane plans now depends on the other lanes.
        explores = noise.uniform() < self._epsilon
        random_action = noise.integers(self._size.actions)
        step, plan = torch.where(starts, 0, memory.step + 1), memory.plan
        replans = torch.ones_like(starts) if self._replan_every_step else starts
        if bool(replans.any()):
            new_plan = self._values(counts, noise).argmax(-1)
            plan = torch.where(replans[..., None, None], new_plan, plan)
        action = torch.where(explores, random_action, _planned_action(plan, step, state))
        log_prob = torch.zeros_like(percept.previous_reward)  # not computed
        return PolicyOutput(action, log_prob, _PlannerMemory(counts, plan, state, step))


class _OracleMemory(NamedTuple):
    plan: Tensor  # [L, H, S] int64  the action to take
    step: Tensor  # [L] int64  steps of the episode taken so far


class Oracle:
    """Optimal policy of the true MDP: no policy has a higher expected return in any task."""

    def __init__(self, mdp: MDP, steps: int) -> None:
        """Plans for the MDP of every task, tables [N, ...]."""
        self._plan = planning.action_values(mdp, steps).argmax(-1)  # [N, H, S]

    def initial_memory(self, lanes: int, horizon: int) -> _OracleMemory:
        """The plan for the task of each lane."""
        plan = self._plan.repeat_interleave(lanes // len(self._plan), 0)
        return _OracleMemory(plan, plan.new_zeros(lanes))

    def act(self, percept: Percept, memory: _OracleMemory, noise: LaneNoise) -> PolicyOutput:
        """The planned action."""
        step = torch.where(percept.first_of_episode, 0, memory.step)
        action = _planned_action(memory.plan, step, percept.obs.argmax(-1))
        memory = _OracleMemory(memory.plan, step + 1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), memory)


def _planned_action(plan: Tensor, step: Tensor, state: Tensor) -> Tensor:
    """Entries of plans [L, H, S] at `step` and `state`, [L] each."""
    index = step * plan.shape[-1] + state
    return plan.flatten(-2).gather(-1, index.unsqueeze(-1)).squeeze(-1)
