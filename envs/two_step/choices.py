"""How lived rounds of the two-step task change choices: a trajectory goes in, probabilities out.

The probability of making the same first-stage choice again, by what followed it, tells two ways
of learning apart (Daw et al. 2011, Neuron 69, figure 2):

- *model-free*: whatever was followed by a payout is repeated, after a rare transition, too;
- *model-based*: a payout after a rare transition speaks for the *other* choice, which commonly
  leads there, and no payout after a rare transition speaks for the same one.

So look at what a payout does after a *rare* transition. The interaction of payout and transition is
no proof: a model-free learner shows some of it, because it mostly makes the choice that is good
anyway, and that one leads to payouts by common transitions (Akam et al. 2015, PLOS Computational
Biology 11).

Axes: `T` steps, `R` rounds, `N` tasks, `B` copies of each task.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.errors import ShapeError
from metarl.trajectory import Trajectory


class Rounds(NamedTuple):
    """What was lived, round by round."""

    choice: Tensor  # [R, N, B] int64  at the first stage
    state: Tensor  # [R, N, B] int64  second-stage state it led to; commonly that of the choice
    payout: Tensor  # [R, N, B] float
    first: Tensor  # [R, N, B] bool  the round opens an episode


def rounds_of(trajectory: Trajectory) -> Rounds:
    """The rounds of a life in the two-step task.

    Raises:
        ShapeError: the trajectory is not one of whole rounds of that task.
    """
    steps, width = len(trajectory.obs), trajectory.obs.shape[-1]
    if steps % 2 or width != 3 or not bool((trajectory.obs[::2, ..., 0] == 1).all()):
        raise ShapeError(
            "Rounds of the two-step task have two steps each, the first of which is taken at the "
            f"observation (1, 0, 0); got {steps} steps of {width} components. Give the trajectory "
            "of whole episodes of metarl/TwoStep-v0."
        )
    return Rounds(
        choice=trajectory.action[::2],
        state=trajectory.obs[1::2].argmax(-1) - 1,
        payout=trajectory.reward[1::2],
        first=trajectory.first[::2],
    )


def stay_counts(rounds: Rounds) -> Tensor:
    """How often a choice was made again, and how often it was not, in each lane.

    Returns:
        [2, 2, 2, N, B] int64: payout (no, yes), transition (rare, common), made again (no, yes).
        The first round of an episode follows no other.
    """
    paid = (rounds.payout > 0)[:-1]
    common = (rounds.state == rounds.choice)[:-1]
    stayed = rounds.choice[1:] == rounds.choice[:-1]
    cell = 4 * paid.long() + 2 * common.long() + stayed.long()
    counted = torch.nn.functional.one_hot(cell, 8) * (~rounds.first[1:]).long().unsqueeze(-1)
    return counted.sum(0).movedim(-1, 0).reshape(2, 2, 2, *cell.shape[1:])


def stay_probabilities(counts: Tensor) -> Tensor:
    """Share of choices that were made again.

    Args:
        counts: [2, 2, 2, ...] as `stay_counts` gives them, of each lane; or their sum over lanes,
            for the share in all of them together.

    Returns:
        [2, 2, ...] float64: payout (no, yes), transition (rare, common). NaN where that never
        occurred.
    """
    return counts[:, :, 1].double() / counts.double().sum(2)
