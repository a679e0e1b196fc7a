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
    PPOStep,
    address,
    block_lanes,
    new_memory,
    parts_of,
    require_library,
    serves,
    share_out,
)
from metarl.native.losses import PPO_METRICS, are_actions
from metarl.native.perceptron import perceptron_sizes, perceptron_weights
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
    embedding, (steps, lanes, width) = weights.recurrence.embedding, inputs.inputs.shape
    return (
        width == embedding.in_features
        and inputs.action.dtype == torch.int64
        and all(value.shape == (steps, lanes) for value in inputs[1:])
        and all(weight.is_contiguous() for weight in weights.all)
        and serves(*weights.all, *(value for value in inputs if value is not inputs.action))
        and are_actions(inputs.action, len(weights.policy[3]))
    )


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
        """Each minibatch reads the weights as they are then; they stay where they are."""
        self._library = loaded = require_library()
        self._weights = weights
        kept = PPOInputs(*(value.contiguous() for value in inputs))
        x, row = distinct(loaded, kept.inputs)
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
            policy=perceptron_sizes(hidden, weights.policy),
            value=perceptron_sizes(hidden, weights.value),
            **{name: address(value) for name, value in kept._asdict().items() if name != "inputs"},
            clip_range=clip_range,
            value_coef=value_coef,
            entropy_coef=entropy_coef,
        )
        layer_weights(self._step.layer, weights.recurrence.weights)
        perceptron_weights(self._step.policy, weights.policy)
        perceptron_weights(self._step.value, weights.value)
        self._grads = [torch.empty_like(weight) for weight in weights.all]
        self._addresses = (ctypes.c_void_p * len(self._grads))(*map(address, self._grads))
        self._lanes = 0

    def minibatch(self, lane: Tensor) -> dict[str, float]:
        """Sets `grad` of all weights for the lanes [L] int64; returns the parts of the loss."""
        step, loaded = self._step, self._library
        if len(lane) != self._lanes:
            self._allocate(len(lane))
        step.layer.lane = address(lane)
        loaded.ppo_prepare(step)
        self._sums.zero_()
        self._means.zero_()
        share_out("ppo_gradients", step, self._blocks, self._buffers)
        total = self._sums[0] if len(self._sums) == 1 else self._sums.sum(0)
        loaded.ppo_finish(step, address(total), self._addresses)
        for weight, grad in zip(self._weights.all, self._grads, strict=True):
            weight.grad = grad
        return dict(zip(PPO_METRICS, self._means.sum(0).tolist(), strict=True))

    def _allocate(self, lanes: int) -> None:
        """Buffers for minibatches of this size."""
        step, loaded = self._step, self._library
        self._lanes = step.layer.lanes = lanes
        step.layer.block = block_lanes(lanes)
        sizes = (ctypes.c_int64 * 5)()
        loaded.ppo_sizes(step, sizes)
        self._packed = [new_memory(size) for size in sizes[:3]]
        step.layer.packed, step.policy.packed, step.value.packed = map(address, self._packed)
        self._blocks = loaded.recurrent_blocks(step.layer)
        parts = parts_of(self._blocks)
        self._sums, self._tapes = new_memory(parts, sizes[3]), new_memory(parts, sizes[4])
        self._means = new_memory(parts, len(PPO_METRICS), dtype=torch.float64)
        buffers = zip(self._tapes, self._sums, self._means, strict=True)
        self._buffers = [tuple(map(address, part)) for part in buffers]
