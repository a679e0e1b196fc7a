"""Daw's two-step task as a task family.

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
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference, RenderFrame, Split, TaskFamily
from metarl.validation import require_between, require_positive

GRID = 4001
"""beliefs from 0 to 1 at which the optimal value is computed; its error is 3e-9 per round"""


class TwoStepState(NamedTuple):
    """Position and good state of each lane."""

    place: Tensor  # [L] int64  0: first stage; 1, 2: the second-stage states
    good: Tensor  # [L] int64  0 or 1, the second-stage state that now pays more


@dataclass(frozen=True, kw_only=True)
class TwoStep(TaskFamily):
    """A choice leads to one of two states; which state pays more reverses at random.

        state[r]  = choice[r] with probability `common`, else the other one
        payout[r] = 1 with probability `reward` if state[r] == good[r], else with 1 - `reward`
        good[r+1] = good[r] with probability 1 - `reversal`, else the other one,   good[0] = task

    A payout after a rare transition is thus evidence for the choice that was *not* made. A
    model-based agent uses this; a model-free agent repeats a choice that was followed by a payout.
    Their stay probabilities differ (`metarl.envs.two_step.choices`).

    A round takes two steps. At the observation (1, 0, 0) the action is the choice, with reward 0.
    At (0, 1, 0) or (0, 0, 1) the action has no effect; the step gives the payout and returns to the
    first stage.

    All rounds form *one episode*, because the good state persists from round to round and `reset`
    does not receive the state at the end of the previous episode. With one round per episode,
    reversals would be lost or would have to be part of the task. An agent with memory receives the
    same percepts either way, except for the episode flags.

    A task is the good state of the first round. Both are equally likely and occur in both splits:
    test tasks differ only in noise and reversals. Transition probabilities are the same in all
    tasks.

    Expected reward of a round: .5 by chance; .8 x .9 + .2 x .1 = .74 if every reversal were known
    (`oracle_return`), which no policy observes; .7059, averaged over 100 rounds, for the best
    policy that infers reversals from payouts (`optimal_return`).

    Sources: Daw et al. 2011, Neuron 69; one-choice form of Miller et al. 2017, Nature Neuroscience
    20; Wang et al. 2018, Nature Neuroscience 21, simulation 4. Numbers as in the public
    reimplementations of the latter, mtrazzi/two-step-task and BKHMSI/Meta-RL-TwoStep-Task.
    """

    rounds: int = 100
    """rounds of an episode, which is a whole trial; each takes two steps"""
    common: float = 0.8
    """probability that choice 0 leads to state 0, and choice 1 to state 1"""
    reward: float = 0.9
    """probability that the good state pays 1; the other state pays 1 with 1 minus this"""
    reversal: float = 0.025
    """probability, after each round, that the good state changes"""

    def __post_init__(self) -> None:
        require_positive("rounds", self.rounds)
        require_between("common", self.common, 0.5, 1.0)
        require_between("reward", self.reward, 0.5, 1.0)
        require_between("reversal", self.reversal, 0.0, 1.0)

    splits_share_tasks: ClassVar[bool] = True
    can_render: ClassVar[bool] = True
    fixed_length: ClassVar[bool] = True

    @property
    def observation_space(self) -> spaces.Box:
        """One-hot: first stage, second-stage state 0, second-stage state 1."""
        return spaces.Box(0.0, 1.0, (3,), np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The choice; no effect in the second stage."""
        return spaces.Discrete(2)

    @property
    def task_space(self) -> spaces.Discrete:
        """The good state of the first round."""
        return spaces.Discrete(2)

    @property
    def episode_steps(self) -> int:
        """Two per round."""
        return 2 * self.rounds

    def sample_tasks(self, num_tasks: int, generator: Generator, split: Split = "train") -> Tensor:
        """Good states of the first round, [N] int64."""
        return torch.randint(2, (num_tasks,), generator=generator, device=generator.device)

    def reset(self, task: Tensor, noise: LaneNoise) -> TwoStepState:
        """The first stage of the first round; draws nothing."""
        return TwoStepState(torch.zeros_like(task), task.clone())

    def observe(self, task: Tensor, state: TwoStepState) -> Tensor:
        """The position, one-hot, [L, 3]."""
        return torch.nn.functional.one_hot(state.place, 3).float()

    def step(
        self, task: Tensor, state: TwoStepState, action: Tensor, noise: LaneNoise
    ) -> tuple[TwoStepState, Tensor, Tensor]:
        """Half a round.

        Every step draws two uniform numbers per lane, whatever the action: policies given equal
        seeds face the same rare transitions, reversals and payout noise.
        """
        uniform, uniform_of_reversal = noise.uniform(2).unbind(1)
        choosing = state.place == 0
        reached = torch.where(uniform < self.common, action, 1 - action)
        chance = torch.where(state.place - 1 == state.good, self.reward, 1 - self.reward)
        reward = ((uniform < chance) & ~choosing).float()
        reverses = (uniform_of_reversal < self.reversal) & ~choosing
        after = TwoStepState(
            torch.where(choosing, 1 + reached, 0),
            torch.where(reverses, 1 - state.good, state.good),
        )
        return after, reward, torch.zeros_like(choosing)

    def oracle_return(self) -> float:
        """Expected reward of all rounds if every reversal were known."""
        return self.rounds * float(self._payout(np.ones(1))[0])

    def optimal_return(self) -> float:
        """Expected reward of all rounds under the exact Bayes optimum, to 1e-8 per round.

        Backward induction over the belief b that state 0 is good:

            V[r](b) = payout(max(b, 1 - b)) + sum over evidence e of P(e | b) V[r+1](b after e)

        A payout in state 0 and no payout in state 1 are the same evidence, with the same
        probability. The evidence of a round thus does not depend on the choice, exploration has no
        value, and choosing the state that is more probably good is optimal.
        """
        belief = np.linspace(0.0, 1.0, GRID)
        now = self._payout(np.maximum(belief, 1 - belief))
        value = np.zeros(GRID)
        for _ in range(self.rounds):
            after = np.zeros(GRID)
            for fits in (self.reward, 1 - self.reward):  # P(evidence | state 0 is good)
                chance = fits * belief + (1 - fits) * (1 - belief)
                posterior = fits * belief / np.maximum(chance, 1e-300)
                posterior = (1 - self.reversal) * posterior + self.reversal * (1 - posterior)
                after += chance * np.interp(posterior, belief, value)
            value = now + after
        return float(value[GRID // 2])  # the prior probability is 1/2

    def references(self, episodes: int) -> Mapping[str, Reference]:
        """Random, win-stay lose-shift, the exact Bayes optimum; none of them observes reversals."""
        return references.references(self.common, self.reward, self.reversal)

    def render(self, task: Tensor, history: Sequence[RenderFrame]) -> NDArray[np.uint8]:
        """The position, current payouts, the latest transition, and the previous rounds."""
        rounds: list[Round] = []
        for frame in history:
            place = int(frame.state.place)
            if frame.action is not None and place:
                rounds.append(Round(int(frame.action), place - 1, int(frame.state.good), None))
            elif frame.action is not None and rounds:
                rounds[-1] = rounds[-1]._replace(payout=frame.reward)
        state: TwoStepState = history[-1].state
        image = draw_rounds(rounds, good=int(state.good), place=int(state.place), pays=self.reward)
        current = steps_so_far(latest_episode(history), 2)
        return captioned(image, f"round {current} of {self.rounds}")

    def _payout(self, belief: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected payout when the chosen state is good with probability `belief`; same shape."""
        good = self.common * belief + (1 - self.common) * (1 - belief)
        return self.reward * good + (1 - self.reward) * (1 - good)
