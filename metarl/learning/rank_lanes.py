"""The lanes of several ranks as one batch: which are in a minibatch, and the sum of the gradients.

Each rank derives the mean loss over the valid transitions of its own lanes. Weighted with their
share of all valid transitions, the sum over ranks is the gradient of the whole minibatch.

Axes: `T` steps, `L` lanes of a rank.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from metarl.ranks import Ranks


class RankLanes:
    """The lanes of all ranks, numbered rank by rank."""

    def __init__(self, valid: Tensor, ranks: Ranks) -> None:
        """The batch of this rank has the valid transitions [T, L] float; L is equal on all."""
        self._ranks: Final = ranks
        self._lanes = valid.shape[1]
        self._first = ranks.first_of(self._lanes)
        self._transitions = ranks.joined(valid.sum(0)) if ranks.size > 1 else None

    @property
    def count(self) -> int:
        """Lanes of all ranks."""
        return self._lanes * self._ranks.size

    def own(self, minibatch: Tensor) -> tuple[Tensor, float]:
        """This rank's lanes of a minibatch, as it numbers them, and their share of transitions.

        Args:
            minibatch: numbers of lanes of all ranks.
        """
        if self._transitions is None:
            return minibatch, 1.0
        mine = (minibatch >= self._first) & (minibatch < self._first + self._lanes)
        own, transitions = minibatch[mine], self._transitions
        share = float(transitions[own].sum() / transitions[minibatch].sum())
        return own - self._first, share

    def sum_gradients(self, params: Sequence[nn.Parameter], share: float) -> None:
        """Sets `grad` of all parameters to the sum over ranks of `share` times theirs.

        A parameter without a gradient on all ranks keeps none.
        """
        if self._ranks.size == 1:
            return
        is_used = params[0].new_tensor([each.grad is not None for each in params])
        grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in params]
        flat = [share * each.flatten() for each in grads]
        whole = self._ranks.sum(torch.cat((*flat, is_used)))
        *parts, is_used_somewhere = torch.split(whole, [*map(len, flat), len(params)])
        for param, part, used in zip(params, parts, is_used_somewhere.tolist(), strict=True):
            param.grad = part.view_as(param) if used else None

    def sum_metrics(self, totals: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Sums over ranks of metrics that were weighted with `share`."""
        if self._ranks.size == 1:
            return {name: float(total) for name, total in totals.items()}
        numbers = torch.tensor([float(total) for total in totals.values()], dtype=torch.float64)
        return dict(zip(totals, self._ranks.sum(numbers).tolist(), strict=True))
