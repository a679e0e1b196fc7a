"""Stay probabilities of the two-step task.

The probability of repeating a first-stage choice, by payout and transition of the previous round,
separates two kinds of learners (Daw et al. 2011, Neuron 69, figure 2):

- *model-free*: repeats a choice that was followed by a payout, also after a rare transition;
- *model-based*: after a rare transition, a payout favours the *other* choice, which commonly leads
  to that state, and no payout favours the same choice.

The effect of a payout after a *rare* transition is therefore the test. The interaction of payout
and transition is not: a model-free learner shows some of it as well, because it mostly makes the
good choice, which leads to payouts by common transitions (Akam et al. 2015, PLOS Computational
Biology 11).

Axes: `T` steps, `R` rounds, `N` tasks, `B` rollouts of each task.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.errors import ShapeError
from metarl.trajectory import Trajectory


class Rounds(NamedTuple):
    """A trajectory, round by round."""

    choice: Tensor  # [R, N, B] int64  at the first stage
    state: Tensor  # [R, N, B] int64  second-stage state; commonly equal to the choice
    payout: Tensor  # [R, N, B] float
    first: Tensor  # [R, N, B] bool  the first round of an episode


def rounds_of(trajectory: Trajectory) -> Rounds:
    """The rounds of a trajectory of the two-step task.

    Raises:
        ShapeError: the trajectory does not consist of whole rounds of that task.
    """
    steps, width = len(trajectory.obs), trajectory.obs.shape[-1]
    if steps % 2 or width != 3 or not bool((trajectory.obs[::2, ..., 0] == 1).all()):
        raise ShapeError(
            "Rounds of the two-step task have two steps each, the first at the observation "
            f"(1, 0, 0); got {steps} steps with observations of size {width}. Give a trajectory of "
            "whole episodes of metarl/TwoStep-v0."
        )
    return Rounds(
        choice=trajectory.action[::2],
        state=trajectory.obs[1::2].argmax(-1) - 1,
        payout=trajectory.reward[1::2],
        first=trajectory.first[::2],
    )


def stay_counts(rounds: Rounds) -> Tensor:
    """How often a choice was repeated, and how often it was not, in each lane.

    Returns:
        [2, 2, 2, N, B] int64: payout (no, yes), transition (rare, common), repeated (no, yes).
        The first round of an episode has no previous round and is not counted.
    """
    paid = (rounds.payout > 0)[:-1]
    common = (rounds.state == rounds.choice)[:-1]
    stayed = rounds.choice[1:] == rounds.choice[:-1]
    cell = 4 * paid.long() + 2 * common.long() + stayed.long()
    counted = torch.nn.functional.one_hot(cell, 8) * (~rounds.first[1:]).long().unsqueeze(-1)
    return counted.sum(0).movedim(-1, 0).reshape(2, 2, 2, *cell.shape[1:])


def stay_probabilities(counts: Tensor) -> Tensor:
    """Share of choices that were repeated.

    Args:
        counts: [2, 2, 2, ...] from `stay_counts`, for each lane; or their sum over lanes, for the
            share over all of them.

    Returns:
        [2, 2, ...] float64: payout (no, yes), transition (rare, common). NaN where the counts
        are zero.
    """
    return counts[:, :, 1].double() / counts.double().sum(2)
