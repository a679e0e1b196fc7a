"""Daw's two-step task: first-stage choices go in, second-stage states and their payouts come out.

Axes: `L` lanes, `N` tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor

from metarl.envs.drawing.layout import captioned, latest_episode, steps_so_far
from metarl.envs.two_step import references
from metarl.envs.two_step.drawing import Round, draw_rounds
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_between, require_positive

GRID = 4001
"""beliefs from 0 to 1 at which the optimum's value is computed; its error is 3e-9 a round"""


class TwoStepState(NamedTuple):
    """Where each lane is, and which second-stage state pays more there."""

    place: Tensor  # [L] int64  0: first stage; 1, 2: the second-stage states
    good: Tensor  # [L] int64  0 or 1, the second-stage state that pays more now


@dataclass(frozen=True, kw_only=True)
class TwoStep(TaskFamily):
    """A choice leads to one of two states, mostly to its own; one of the states pays more, for now.

        state[r]  = choice[r] with probability `common`, else the other one
        payout[r] = 1 with probability `reward` if state[r] == good[r], else with 1 - `reward`
        good[r+1] = good[r] with probability 1 - `reversal`, else the other one,   good[0] = task

    So a payout after a rare transition speaks for the choice that was *not* made. Who knows that
    plans with a model of the task; who does not repeats whatever was followed by a payout. The
    probability to stay with a choice tells them apart (`metarl.envs.two_step.choices`).

    A round takes two steps. In the first the observation is (1, 0, 0) and the action is the choice,
    paid 0; then the observation is (0, 1, 0) or (0, 0, 1), and whatever the action, the step brings
    the payout and leads back to the first stage. There is no second choice.

    All rounds are *one episode*. Which state is good lives on from round to round, and `reset`,
    which opens an episode, is not told where the last one ended; with a round for an episode,
    reversals would either be forgotten or have to be written into the task beforehand. An agent
    with memory meets the same stream of percepts either way but for the flags of the border.

    A task is the state that is good in the first round. Both are equally likely and in both splits:
    the test split differs in its luck and its reversals only. Which choice leads where is the same
    in all tasks.

    What a round pays: .5 by chance; .8 x .9 + .2 x .1 = .74 to somebody who were told of every
    reversal (`oracle_return`), which no policy is; and .7059, the mean of a hundred rounds, to the
    best of those who must infer it from payouts (`optimal_return`).

    Sources: Daw et al. 2011, Neuron 69; one-choice form of Miller et al. 2017, Nature Neuroscience
    20; Wang et al. 2018, Nature Neuroscience 21, simulation 4. Numbers as in the public
    reimplementations of the latter, mtrazzi/two-step-task and BKHMSI/Meta-RL-TwoStep-Task.
    """

    rounds: int = 100
    """rounds that an episode, and a trial, lasts, each of two steps"""
    common: float = 0.8
    """probability that choice 0 leads to state 0, and choice 1 to state 1"""
    reward: float = 0.9
    """probability that the good state pays 1; the other one pays with 1 minus this"""
    reversal: float = 0.025
    """probability, after each round, that good and bad are exchanged"""

    def __post_init__(self) -> None:
        require_positive("rounds", self.rounds)
        require_between("common", self.common, 0.5, 1.0)
        require_between("reward", self.reward, 0.5, 1.0)
        require_between("reversal", self.reversal, 0.0, 1.0)

    splits_share_tasks: ClassVar[bool] = True
    can_render: ClassVar[bool] = True

    @property
    def observation_space(self) -> spaces.Box:
        """One-hot: first stage, second-stage state 0, second-stage state 1."""
        return spaces.Box(0.0, 1.0, (3,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The choice; without effect in the second stage."""
        return spaces.Discrete(2)

    @property
    def task_space(self) -> spaces.Discrete:
        """The second-stage state that is good at first."""
        return spaces.Discrete(2)

    @property
    def episode_steps(self) -> int:
        """Two for each round."""
        return 2 * self.rounds

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """States that are good at first [N] int64."""
        return torch.randint(2, (num_tasks,), generator=generator, device=generator.device)

    def reset(self, task: Tensor, generator: Generator) -> TwoStepState:
        """The first stage of the first round; draws nothing."""
        return TwoStepState(torch.zeros_like(task), task.clone())

    def observe(self, task: Tensor, state: TwoStepState) -> Tensor:
        """Where one is, [L, 3]."""
        return torch.nn.functional.one_hot(state.place, 3).float()

    def step(
        self, task: Tensor, state: TwoStepState, action: Tensor, generator: Generator
    ) -> tuple[TwoStepState, Tensor, Tensor]:
        """Half a round.

        Two uniforms per lane and step, whatever is chosen: so policies that are given equal seeds
        meet the same rare transitions and the same reversals, and equal luck in equal states.
        """
        luck = torch.rand(2, len(action), generator=generator, device=action.device)
        choosing = state.place == 0
        reached = torch.where(luck[0] < self.common, action, 1 - action)
        chance = torch.where(state.place - 1 == state.good, self.reward, 1 - self.reward)
        reward = ((luck[0] < chance) & ~choosing).float()
        reverses = (luck[1] < self.reversal) & ~choosing
        after = TwoStepState(
            torch.where(choosing, 1 + reached, 0),
            torch.where(reverses, 1 - state.good, state.good),
        )
        return after, reward, torch.zeros_like(choosing)

    def oracle_return(self) -> float:
        """Expected reward of all rounds for somebody who were told of every reversal."""
        return self.rounds * float(self._payout(np.ones(1))[0])

    def optimal_return(self) -> float:
        """Expected reward of all rounds under the exact Bayes optimum, to 1e-8 per round.

        Backward induction over the belief b that state 0 is good:

            V[r](b) = payout(max(b, 1 - b)) + sum over hints e of P(e | b) V[r+1](b after e)

        A payout in state 0 and none in state 1 are the same hint, with the same probability: what a
        round tells does not depend on the choice, exploring is worth nothing, and who chooses the
        state that is good more probably earns as much as anybody can.
        """
        belief = np.linspace(0.0, 1.0, GRID)
        now = self._payout(np.maximum(belief, 1 - belief))
        value = np.zeros(GRID)
        for _ in range(self.rounds):
            after = np.zeros(GRID)
            for fits in (self.reward, 1 - self.reward):  # P(hint | state 0 is good)
                chance = fits * belief + (1 - fits) * (1 - belief)
                posterior = fits * belief / np.maximum(chance, 1e-300)
                posterior = (1 - self.reversal) * posterior + self.reversal * (1 - posterior)
                after += chance * np.interp(posterior, belief, value)
            value = now + after
        return float(value[GRID // 2])  # at first either state is good, with probability 1/2

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, win-stay lose-shift, the exact Bayes optimum; nobody is told of reversals."""
        return references.references(self.common, self.reward, self.reversal)

    def render(self, task: Tensor, life: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """Where it is, what the states pay now, the latest way, and the rounds before."""
        rounds: list[Round] = []
        for moment in life:
            place = int(moment.state.place)
            if moment.action is not None and place:
                rounds.append(Round(int(moment.action), place - 1, int(moment.state.good), None))
            elif moment.action is not None and rounds:
                rounds[-1] = rounds[-1]._replace(payout=moment.reward)
        state: TwoStepState = life[-1].state
        picture = draw_rounds(
            rounds, good=int(state.good), place=int(state.place), pays=self.reward
        )
        begun = steps_so_far(latest_episode(life), 2)
        return captioned(picture, f"round {begun} of {self.rounds}")

    def _payout(self, belief: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected payout of choosing the state that is good with probability `belief`, alike."""
        good = self.common * belief + (1 - self.common) * (1 - belief)
        return self.reward * good + (1 - self.reward) * (1 - good)
