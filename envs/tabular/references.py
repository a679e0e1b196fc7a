"""Policies for tabular MDPs that need no training: tasks go in, a floor, learners, an oracle out.

All but the floor solve an MDP by finite-horizon value iteration and follow that plan. The learners
know the prior that tasks are drawn from, or misbelieve that mean rewards are N(0, 1).

Axes: `N` tasks, `B` copies of each task, `S` states, `A` actions, `H` steps of an episode.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import PolicyOutput
from metarl.envs.tabular import planning
from metarl.envs.tabular.planning import MDP, Knowledge, Prior, Size
from metarl.networks.policies import UniformPolicy
from metarl.tasks.family import Reference
from metarl.trajectory import Percept

EPSILON = 0.1
"""share of random actions of epsilon-greedy, as in the code of Osband (TabulaRL)"""
DRAWS = 10
"""MDPs that OPSRL draws for each episode, as in the code of Osband (TabulaRL)"""
TIE = 1e-4
"""values that are nearer than this may swap places: rounding must not decide which is higher"""
FLAT = 1e-4
"""visits that the prior of the misled greedy counts as, as in the code of Osband (TabulaRL)"""

Values: TypeAlias = Callable[[Knowledge, Generator], Tensor]
"""knowledge -> what every action is thought to be worth at every step, [N, B, H, S, A]"""


def references(size: Size, prior: Prior, mdp: Callable[[Tensor], MDP]) -> Mapping[str, Reference]:
    """From random to the plan for the MDP itself.

    Args:
        size: of the MDPs.
        prior: that they are drawn from.
        mdp: tasks [N, ...] -> the MDPs themselves.
    """
    known = {
        "random": Reference(
            role="floor",
            label="random",
            build=lambda _: UniformPolicy(spaces.Discrete(size.actions)),
        ),
        "greedy": _planner("greedy", size, Expected(prior, size.steps)),
        "greedy_replanning": _planner(
            "greedy, replanning",
            size,
            Expected(prior, size.steps),
            multi_step_loss=True,
        ),
        "epsilon_greedy": _planner(
            f"epsilon-greedy ({EPSILON})",
            size,
            Expected(prior, size.steps),
            epsilon=EPSILON,
            by_default=False,
        ),
        "psrl": _planner("PSRL", size, Optimistic(prior, size.steps, draws=1)),
        "opsrl": _planner(
            f"OPSRL ({DRAWS} draws)", size, Optimistic(prior, size.steps, draws=DRAWS)
        ),
    }
    if prior.mean_reward:
        known |= _misled(size, replace(prior, mean_reward=0.0))
    known["oracle"] = Reference(
        role="ceiling",
        label="oracle, MDP known",
        build=lambda tasks: Oracle(mdp(tasks), size.steps),
    )
    return known


def _misled(size: Size, prior: Prior) -> Mapping[str, Reference]:
    """Who believes in another prior.

    Duan et al. 2016 publish numbers that these earn, and not those that know the prior. They are
    what Osband's code (TabulaRL) does by default: rewards are expected to be zero, and what its
    greedy policy believes yields to the first visit.
    """
    steps, wrong = size.steps, "prior mean 0"
    return {
        "greedy_at_zero": _planner(
            f"greedy ({wrong}, flat)", size, Expected(prior, steps, FLAT), by_default=False
        ),
        "epsilon_greedy_at_zero": _planner(
            f"epsilon-greedy ({EPSILON}, {wrong}, flat)",
            size,
            Expected(prior, steps, FLAT),
            epsilon=EPSILON,
            by_default=False,
        ),
        "psrl_at_zero": _planner(
            f"PSRL ({wrong})", size, Optimistic(prior, steps, draws=1), by_default=False
        ),
        "opsrl_at_zero": _planner(
            f"OPSRL ({DRAWS} draws, {wrong})",
            size,
            Optimistic(prior, steps, draws=DRAWS),
            by_default=False,
        ),
    }


def _planner(
    label: str,
    size: Size,
    values: Values,
    *,
    epsilon: float = 0.0,
    multi_step_loss: bool = False,
    by_default: bool = True,
) -> Reference:
    return Reference(
        role="baseline",
        label=label,
        build=lambda tasks: Planner(
            size, values, tasks.device, epsilon=epsilon, multi_step_loss=multi_step_loss
        ),
        by_default=by_default,
    )


@dataclass(frozen=True)
class Expected:
    """Values in the MDP of posterior means; of equals, a random one is highest.

    That matters where a plan is kept for an episode: in a state that it meets again it tries
    another of the actions that it knows nothing of. Taking the first instead costs 5 of 155.
    """

    prior: Prior
    steps: int  # H
    weight: float = 1.0
    """how many visits the prior counts as"""

    def __call__(self, known: Knowledge, generator: Generator) -> Tensor:
        """Values [N, B, H, S, A]."""
        mdp = planning.expected_mdp(known, self.prior, self.weight)
        values = planning.action_values(mdp, self.steps)
        return values + TIE * torch.empty_like(values).uniform_(generator=generator)


@dataclass(frozen=True)
class Optimistic:
    """The largest values of some MDPs that are drawn from the posterior.

    One draw is PSRL (Strens 2000; Osband et al. 2013, arXiv:1306.0940); with more it is OPSRL
    (Osband and Van Roy 2016, arXiv:1607.00215).
    """

    prior: Prior
    steps: int  # H
    draws: int

    def __call__(self, known: Knowledge, generator: Generator) -> Tensor:
        """Values [N, B, H, S, A]."""
        best = self._of_one(known, generator)
        for _ in range(self.draws - 1):
            best = torch.maximum(best, self._of_one(known, generator))
        return best

    def _of_one(self, known: Knowledge, generator: Generator) -> Tensor:
        return planning.action_values(planning.drawn_mdp(known, self.prior, generator), self.steps)


class _Memory(NamedTuple):
    known: Knowledge
    plan: Tensor  # [N, B, H, S] int64  the action to take
    state: Tensor  # [N, B] int64  where the last action was taken
    step: Tensor  # [N, B] int64  in the episode, of the last action


class Planner:
    """Remembers what it met, plans where an episode opens, and keeps to that plan.

    What an action of a plan would change in what is known is left out of account. After the last
    step of an episode its reward is counted, but no move: which state followed is never seen.
    """

    def __init__(
        self,
        size: Size,
        values: Values,
        device: torch.device,
        *,
        epsilon: float = 0.0,
        multi_step_loss: bool = False,
    ) -> None:
        """Takes a share of `epsilon` random actions; may plan at every step anew."""
        self._size, self._values, self._device = size, values, device
        self._epsilon, self._every_step = epsilon, multi_step_loss

    def initial_memory(self, num_tasks: int, copies: int) -> _Memory:
        """Nothing known, nothing planned."""
        lanes = num_tasks, copies
        zero = torch.zeros(lanes, dtype=torch.int64, device=self._device)
        plan = zero.new_zeros(*lanes, self._size.steps, self._size.states)
        return _Memory(planning.nothing_known(lanes, self._size, self._device), plan, zero, zero)

    def act(self, percept: Percept, memory: _Memory, generator: Generator) -> PolicyOutput:
        """What the plan says; in a share of `epsilon` of the lanes, any action."""
        state, opens = percept.obs.argmax(-1), percept.first_of_episode
        known = memory.known.counted(
            memory.state,
            percept.previous_action,
            state,
            percept.previous_reward,
            paid=~percept.first_of_trial,
            moved=~opens,
        )
        step, plan = torch.where(opens, 0, memory.step + 1), memory.plan
        anew = torch.ones_like(opens) if self._every_step else opens
        if bool(anew.any()):
            fresh = self._values(known, generator).argmax(-1)
            plan = torch.where(anew[..., None, None], fresh, plan)
        action = self._explored(_planned(plan, step, state), generator)
        nowhere = torch.zeros_like(percept.previous_reward)  # probabilities are not computed
        return PolicyOutput(action, nowhere, _Memory(known, plan, state, step))

    def _explored(self, action: Tensor, generator: Generator) -> Tensor:
        if not self._epsilon:
            return action
        luck, number = torch.rand(
            2, *action.shape, generator=generator, device=action.device
        ).unbind()
        other = (number * self._size.actions).long()
        return torch.where(luck < self._epsilon, other, action)


class Oracle:
    """Knows the MDP: no policy has a higher expected return in any task."""

    def __init__(self, mdp: MDP, steps: int) -> None:
        """Takes the MDP of every task, tables [N, ...]."""
        self._plan = planning.action_values(mdp, steps).argmax(-1).unsqueeze(1)  # [N, 1, H, S]

    def initial_memory(self, num_tasks: int, copies: int) -> Tensor:
        """Steps of the episode taken so far, [N, B]."""
        return torch.zeros(num_tasks, copies, dtype=torch.int64, device=self._plan.device)

    def act(self, percept: Percept, memory: Tensor, generator: Generator) -> PolicyOutput:
        """What the plan says."""
        step = torch.where(percept.first_of_episode, 0, memory)
        plan = self._plan.expand(*step.shape, *self._plan.shape[2:])
        action = _planned(plan, step, percept.obs.argmax(-1))
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), step + 1)


def _planned(plan: Tensor, step: Tensor, state: Tensor) -> Tensor:
    """Entries of plans [N, B, H, S] at `step` and `state`, [N, B] each."""
    place = step * plan.shape[-1] + state
    return plan.flatten(-2).gather(-1, place.unsqueeze(-1)).squeeze(-1)
