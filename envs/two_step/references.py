"""Reference policies for the two-step task: random, win-stay lose-shift and the Bayes optimum.

Axes: `L` lanes.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import PolicyOutput
from metarl.networks.policies import UniformPolicy
from metarl.noise import LaneNoise
from metarl.tasks.family import Reference
from metarl.trajectory import Percept


def references(common: float, reward: float, reversal: float) -> Mapping[str, Reference]:
    """All references, from the floor to the ceiling."""
    choices = spaces.Discrete(2)
    return {
        "random": Reference(role="floor", label="random", build=lambda _: UniformPolicy(choices)),
        "win_stay": Reference(
            role="baseline",
            label="win-stay, lose-shift (model-free)",
            build=lambda tasks: WinStay(tasks.device),
        ),
        "bayes_optimal": Reference(
            role="ceiling",
            label="exact Bayes optimum",
            build=lambda tasks: BayesFilter(reward, reversal, tasks.device),
        ),
    }


class WinStay:
    """Repeats a choice after a payout and switches otherwise.

    It ignores the second-stage state: purely model-free choice.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device

    def initial_memory(self, lanes: int, horizon: int) -> Tensor:
        """The last first-stage choice, [L] int64."""
        return torch.zeros(lanes, dtype=torch.int64, device=self._device)

    def act(self, percept: Percept, memory: Tensor, noise: LaneNoise) -> PolicyOutput:
        """The last choice or the other one; the first choice of a trial is random."""
        first_stage = percept.obs[..., 0] > 0
        last = torch.where(first_stage, memory, percept.previous_action)
        choice = torch.where(percept.previous_reward > 0, last, 1 - last)
        choice = torch.where(percept.first_of_trial, noise.integers(2), choice)
        choice = torch.where(first_stage, choice, last)
        return PolicyOutput(choice, torch.zeros_like(percept.previous_reward), last)


class GoodStateBelief(NamedTuple):
    """Posterior over the good state, given the rounds so far."""

    joint: Tensor  # [L, 2, 2] probability of: good at the episode start, good now
    place: Tensor  # [L] int64  position at the last action; 0: the first stage


class BayesFilter:
    """Chooses the state that is more probably good, given all observations so far.

    Both states, and both payouts, are equally informative about the good state, so exploration has
    no value and this policy is exactly optimal. All episodes of a trial start with the same good
    state, so its posterior carries over.

        P(good | payout in state s) ~ P(good) * (reward if good == s else 1 - reward)
        P(good in the next round)   = (1 - reversal) P(good) + reversal P(not good)
    """

    def __init__(self, reward: float, reversal: float, device: torch.device | str = "cpu") -> None:
        self._reward, self._reversal, self._device = reward, reversal, device

    def initial_memory(self, lanes: int, horizon: int) -> GoodStateBelief:
        """Both states are equally likely to be good."""
        joint = 0.5 * torch.eye(2, dtype=torch.float64, device=self._device)
        place = torch.zeros(lanes, dtype=torch.int64, device=self._device)
        return GoodStateBelief(joint.expand(lanes, 2, 2), place)

    def act(self, percept: Percept, memory: GoodStateBelief, noise: LaneNoise) -> PolicyOutput:
        """The state that is more probably good; the first on a tie."""
        joint = torch.where(
            (memory.place > 0)[..., None, None],
            self._after_round(memory, percept.previous_reward),
            memory.joint,
        )
        starts = percept.first_of_episode[..., None, None]
        joint = torch.where(starts, torch.diag_embed(joint.sum(-1)), joint)
        action = joint.sum(-2).argmax(-1)
        place = percept.obs.argmax(-1)
        belief = GoodStateBelief(joint, place)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), belief)

    def _after_round(self, memory: GoodStateBelief, payout: Tensor) -> Tensor:
        """The belief after a round with payout [L] in the state `memory.place`."""
        good = torch.arange(2, device=payout.device)
        paid = (payout > 0).unsqueeze(-1)
        fits = (good == memory.place.unsqueeze(-1) - 1) == paid
        likelihood = torch.where(fits, self._reward, 1 - self._reward).to(memory.joint.dtype)
        joint = memory.joint * likelihood.unsqueeze(-2)
        joint = joint / joint.sum((-2, -1), keepdim=True)
        return (1 - self._reversal) * joint + self._reversal * joint.flip(-1)
