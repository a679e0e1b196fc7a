"""Steps of Adam on a GPU as replays: the gradient of a minibatch, its clipping and the step."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from metarl.learning.autograd_gradient import AnyBatch, ByAutograd
from metarl.recorded import Recorder


class ReplayedSteps:
    """The steps of one optimiser; see `Recorder`."""

    def __init__(self, adam: torch.optim.Adam, max_grad_norm: float) -> None:
        """For an optimiser that is `capturable`, and has a tensor as learning rate."""
        self._adam = adam
        self._max_grad_norm = max_grad_norm
        self._recorder = Recorder()
        self._batch: Any = None  # of the last update; the next is copied to its place

    def take(
        self, gradient: ByAutograd[AnyBatch], minibatches: Iterable[Tensor]
    ) -> dict[str, float]:
        """A step on each minibatch, which are lanes [L] of the gradient's batch.

        Returns:
            Sums over the minibatches: of the metrics, and as `grad_norm` of the gradient's norm
            before clipping. Where that is not finite, neither are the parameters.
        """
        gradient = replace(gradient, batch=self._in_place(gradient.batch))
        coefficients = gradient.batch.valid.new_tensor(gradient.coefficients)

        def step(lanes: Tensor, coefficients: Tensor) -> tuple[list[str], Tensor]:
            return self._step(replace(gradient, coefficients=coefficients.unbind()), lanes)

        sums: Tensor | float = 0.0
        names: list[str] = []
        for lanes in minibatches:
            # The first step of all makes the moments.
            tensors = (*tensors_of(gradient.batch), *self._params(), *self._moments())
            key = (gradient.loss, len(lanes), *(each.data_ptr() for each in tensors))
            names, values = self._recorder(key, step, lanes, coefficients)
            sums = sums + values
        return dict(zip(names, torch.as_tensor(sums).tolist(), strict=True))

    def _step(self, gradient: ByAutograd[AnyBatch], lanes: Tensor) -> tuple[list[str], Tensor]:
        params = self._params()
        for param in params:
            param.grad = None
        metrics = gradient(lanes)
        norm = nn.utils.clip_grad_norm_(params, self._max_grad_norm, foreach=True)
        self._adam.step()
        values = {**metrics, "grad_norm": norm}
        return list(values), torch.stack([value.detach() for value in values.values()])

    def _in_place(self, batch: AnyBatch) -> AnyBatch:
        """The batch at the place of the last one, if it has the same shapes."""
        given, kept = tensors_of(batch), tensors_of(self._batch) if self._batch else []
        if [(each.shape, each.dtype) for each in given] != [(k.shape, k.dtype) for k in kept]:
            self._batch = batch.map(torch.clone)
        else:
            for place, value in zip(kept, given, strict=True):
                place.copy_(value)
        in_place: AnyBatch = self._batch
        return in_place

    def _params(self) -> list[Tensor]:
        return [param for group in self._adam.param_groups for param in group["params"]]

    def _moments(self) -> list[Tensor]:
        """And the learning rate."""
        rates = [group["lr"] for group in self._adam.param_groups]
        return [*rates, *(each for kept in self._adam.state.values() for each in kept.values())]


def tensors_of(batch: AnyBatch) -> list[Tensor]:
    """All tensors of a batch."""
    found: list[Tensor] = []

    def note(value: Tensor) -> Tensor:
        found.append(value)
        return value

    batch.map(note)
    return found
