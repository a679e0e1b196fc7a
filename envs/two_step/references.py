"""Policies for the two-step task that need no training: its probabilities go in, choosers come out.

Axes: `N` tasks, `B` copies of each task.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Generator, Tensor

from metarl.agent import PolicyOutput
from metarl.networks.policies import UniformPolicy
from metarl.tasks.family import Reference
from metarl.trajectory import Percept


def references(common: float, reward: float, reversal: float) -> Mapping[str, Reference]:
    """Random, a chooser without a model of the task, and the best that can be known."""
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
    """Repeats a choice that was followed by a payout and leaves one that was not.

    It does not ask which state the choice had led to: the pure form of model-free choice.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device

    def initial_memory(self, num_tasks: int, copies: int) -> Tensor:
        """The last choice, [N, B] int64."""
        return torch.zeros(num_tasks, copies, dtype=torch.int64, device=self._device)

    def act(self, percept: Percept, memory: Tensor, generator: Generator) -> PolicyOutput:
        """The last choice or the other one; what was chosen first is drawn."""
        first_stage = percept.obs[..., 0] > 0
        drawn = torch.randint(2, memory.shape, generator=generator, device=memory.device)
        choice = torch.where(percept.previous_reward > 0, memory, 1 - memory)
        choice = torch.where(percept.first_of_trial, drawn, choice)
        choice = torch.where(first_stage, choice, memory)
        return PolicyOutput(choice, torch.zeros_like(percept.previous_reward), choice)


class Belief(NamedTuple):
    """What is known after the rounds lived so far."""

    joint: Tensor  # [N, B, 2, 2] probability of: good when an episode opens, good now
    place: Tensor  # [N, B] int64  where the last action was taken; 0: the first stage


class BayesFilter:
    """Chooses the state that is good more probably, given everything that was seen.

    Both states, and payout or none, tell equally much about which one is good, so exploring is
    worth nothing and this is the exact optimum. Where a trial has several episodes, each opens with
    the same state good, so what was learnt about that lives on.

        P(good | payout in state s) ~ P(good) * (reward if good == s else 1 - reward)
        P(good in the next round)   = (1 - reversal) P(good) + reversal P(not good)
    """

    def __init__(self, reward: float, reversal: float, device: torch.device | str = "cpu") -> None:
        self._reward, self._reversal, self._device = reward, reversal, device

    def initial_memory(self, num_tasks: int, copies: int) -> Belief:
        """Either state is as likely to be good."""
        joint = 0.5 * torch.eye(2, dtype=torch.float64, device=self._device)
        place = torch.zeros(num_tasks, copies, dtype=torch.int64, device=self._device)
        return Belief(joint.expand(num_tasks, copies, 2, 2), place)

    def act(self, percept: Percept, memory: Belief, generator: Generator) -> PolicyOutput:
        """The state that is good more probably; of equals, the first."""
        joint = torch.where(
            (memory.place > 0)[..., None, None],
            self._after_round(memory, percept.previous_reward),
            memory.joint,
        )
        opens = percept.first_of_episode[..., None, None]
        joint = torch.where(opens, torch.diag_embed(joint.sum(-1)), joint)
        action = joint.sum(-2).argmax(-1)
        place = percept.obs.argmax(-1)
        return PolicyOutput(action, torch.zeros_like(percept.previous_reward), Belief(joint, place))

    def _after_round(self, memory: Belief, payout: Tensor) -> Tensor:
        """The belief with a round's payout [N, B] in the state `memory.place` counted in."""
        good = torch.arange(2, device=payout.device)
        paid = (payout > 0).unsqueeze(-1)
        fits = (good == memory.place.unsqueeze(-1) - 1) == paid
        likelihood = torch.where(fits, self._reward, 1 - self._reward).to(memory.joint.dtype)
        joint = memory.joint * likelihood.unsqueeze(-2)
        joint = joint / joint.sum((-2, -1), keepdim=True)
        return (1 - self._reversal) * joint + self._reversal * joint.flip(-1)
