"""The gradient of PPO's loss by all weights of an actor-critic at once, by the compiled library.

The definition is the loss of `metarl.learning.ppo` on the network in torch, derived by autograd;
results differ by rounding. It saves the small operations around the layers, which take most of the
time where minibatches are small.

Axes: `T` steps, `L` lanes, `F` inputs.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.native.library import (
    Layer,
    Perceptron,
    PPOStep,
    address,
    require_library,
    serves,
    share_out,
    threads,
)
from metarl.native.losses import PPO_METRICS
from metarl.native.recurrent import Recurrence, distinct, layer_weights


class ActorCriticWeights(NamedTuple):
    """An actor-critic for discrete actions: a recurrent layer behind an embedding, two heads."""

    recurrence: Recurrence
    policy: Sequence[Tensor]
    """weight and bias of both layers of a perceptron"""
    value: Sequence[Tensor]

    @property
    def all(self) -> tuple[Tensor, ...]:
        """In the order of ppo.h."""
        return (*(w for w in self.recurrence.weights if w is not None), *self.policy, *self.value)


class PPOInputs(NamedTuple):
    """What the loss reads, each [T, L, ...]."""

    inputs: Tensor
    action: Tensor
    old_log_prob: Tensor
    advantage: Tensor
    value_target: Tensor
    valid: Tensor


def can_run(weights: ActorCriticWeights, inputs: PPOInputs) -> bool:
    """Whether `PPOGradients` serves these."""
    if weights.recurrence.embedding is None:
        return False
    others = (inputs.inputs, inputs.old_log_prob, inputs.advantage, inputs.value_target)
    return serves(*weights.all, *others, inputs.valid) and inputs.action.dtype == torch.int64


class PPOGradients:
    """Gradients for minibatches of one batch; its lanes are numbered."""

    def __init__(
        self,
        weights: ActorCriticWeights,
        inputs: PPOInputs,
        *,
        clip_range: float,
        value_coef: float,
        entropy_coef: float,
    ) -> None:
        """Each minibatch reads the weights as they are then."""
        self._library = loaded = require_library()
        self._weights = weights
        kept = PPOInputs(*(value.contiguous() for value in inputs))
        x, row = distinct(loaded, kept.inputs)
        self._valid_of_lane = kept.valid.sum(0)
        self._inputs, self._kept = kept, [x, row]  # NOTE: the step holds addresses alone
        steps, lanes, width = kept.inputs.shape
        hidden = weights.recurrence.core.hidden_size
        self._step = PPOStep(
            layer=Layer(
                cell=int(isinstance(weights.recurrence.core, torch.nn.LSTM)),
                embedded=True,
                steps=steps,
                inputs=width,
                hidden=hidden,
                distinct=0 if row is None else len(x),
                backward=True,
                all_lanes=lanes,
                x=address(x),
                row=address(row),
            ),
            policy=Perceptron(
                inputs=hidden, hidden=len(weights.policy[1]), outputs=len(weights.policy[3])
            ),
            value=Perceptron(inputs=hidden, hidden=len(weights.value[1]), outputs=1),
            **{name: address(value) for name, value in kept._asdict().items() if name != "inputs"},
            clip_range=clip_range,
            value_coef=value_coef,
            entropy_coef=entropy_coef,
        )
        self._grads = [torch.empty_like(weight) for weight in weights.all]
        self._addresses = (ctypes.c_void_p * len(self._grads))(*map(address, self._grads))

    def minibatch(self, lane: Tensor) -> dict[str, Tensor]:
        """Sets `grad` of all weights for the lanes [L] int64; returns the parts of the loss."""
        step, loaded = self._step, self._library
        step.layer.lanes, step.layer.lane = len(lane), address(lane)
        step.weight = float(self._valid_of_lane[lane].sum())
        self._point_at_weights()
        sizes = (ctypes.c_int64 * 5)()
        loaded.ppo_sizes(step, sizes)
        packed = [self._valid_of_lane.new_empty(size) for size in sizes[:3]]
        for part, buffer in zip((step.layer, step.policy, step.value), packed, strict=True):
            part.packed = address(buffer)
        loaded.ppo_prepare(step)
        blocks = loaded.recurrent_blocks(step.layer)
        parts = min(blocks, threads())
        sums = self._valid_of_lane.new_zeros(parts, sizes[3])
        tapes = self._valid_of_lane.new_empty(parts, sizes[4])
        means = torch.zeros(parts, len(PPO_METRICS), dtype=torch.float64)

        def work(part: int, first: int, end: int) -> None:
            buffers = (tapes[part], sums[part], means[part])
            loaded.ppo_gradients(step, first, end, *map(address, buffers))

        share_out(blocks, parts, work)
        total = sums[0] if parts == 1 else sums.sum(0)
        loaded.ppo_finish(step, address(total), self._addresses)
        for weight, grad in zip(self._weights.all, self._grads, strict=True):
            weight.grad = grad
        return dict(zip(PPO_METRICS, means.sum(0).unbind(), strict=True))

    def _point_at_weights(self) -> None:
        layer_weights(self._step.layer, self._weights.recurrence.weights)
        for net, weights in (
            (self._step.policy, self._weights.policy),
            (self._step.value, self._weights.value),
        ):
            for name, weight in zip(("weight1", "bias1", "weight2", "bias2"), weights, strict=True):
                setattr(net, name, address(weight))


def _perceptron(inputs: int, weights: Sequence[Tensor]) -> Perceptron:
    return Perceptron(inputs=inputs, hidden=len(weights[1]), outputs=len(weights[3]))
