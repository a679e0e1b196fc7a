"""Gradients of losses of minibatches, derived by torch.

Axes: `T` steps, `L` lanes = tasks x rollouts per task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from torch import Tensor


class LaneBatch(Protocol):
    """What a learner reads of a meta-batch: tensors [T, L, ...]."""

    @property
    def valid(self) -> Tensor:
        """[T, L] float, 1 for transitions that count."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The results of a function for each of the tensors, always in the same order."""


AnyBatch = TypeVar("AnyBatch", bound=LaneBatch)
Loss = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]
"""minibatch, then coefficients -> the loss, a scalar, and metrics without gradient by name, which
are means over the minibatch"""


@dataclass(frozen=True)
class ByAutograd(Generic[AnyBatch]):
    """The gradient of a loss."""

    batch: AnyBatch
    loss: Loss
    coefficients: tuple[Tensor | float, ...] = ()
    """numbers of this update, which the loss takes after the minibatch"""

    def __call__(self, lanes: Tensor) -> Mapping[str, Tensor]:
        """Sets `grad` of all parameters for these lanes [L]; returns the metrics."""
        minibatch = take_lanes(self.batch, lanes)
        loss, metrics = self.loss(minibatch, *self.coefficients)
        loss.backward()  # type: ignore[no-untyped-call]
        return metrics


def take_lanes(batch: AnyBatch, index: Tensor) -> AnyBatch:
    """The lanes of these indices."""
    return batch.map(lambda value: value.index_select(1, index))
