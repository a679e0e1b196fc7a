"""PPO's loss, and the log-probability and entropy of categorical actions, by the compiled library.

The definitions in torch are `CategoricalHead.evaluate` and `metarl.learning.losses`; results differ
by rounding. First derivatives only.

Axes: any equal leading ones, then `A` actions.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from metarl.native.library import address, new_memory, require_library, serves

PPO_METRICS = ("policy_loss", "value_loss", "entropy", "approximate_kl", "clip_fraction")
"""parts of PPO's loss, in the order of losses.h"""


def can_evaluate(logits: Tensor, action: Tensor) -> bool:
    """Whether `categorical` serves these: each action is one of those that have a logit."""
    return (
        action.dtype == torch.int64
        and action.shape == logits.shape[:-1]
        and serves(logits)
        and are_actions(action, logits.shape[-1])
    )


def are_actions(action: Tensor, actions: int) -> bool:
    """Whether all numbers are in 0, ..., actions - 1."""
    low, high = action.aminmax()
    return int(low) >= 0 and int(high) < actions


def can_join(terms: tuple[Tensor, ...]) -> bool:
    """Whether `surrogate` serves these terms."""
    return serves(*terms) and all(term.shape == terms[0].shape for term in terms)


def categorical(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of actions [...] int64 under logits [..., A], and entropies [...]."""
    log_prob, entropy = _Categorical.apply(logits, action)  # type: ignore[no-untyped-call]
    return log_prob, entropy


class _Categorical(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies."""
        logits, action = logits.contiguous(), action.contiguous()
        log_probs, log_prob = torch.empty_like(logits), logits.new_empty(action.shape)
        entropy = torch.empty_like(log_prob)
        tensors = (logits, action, log_probs, log_prob, entropy)
        loaded = require_library()
        actions = logits.shape[-1]
        loaded.categorical_forward(action.numel(), actions, actions, *map(address, tensors))
        ctx.save_for_backward(log_probs, action, entropy)
        return log_prob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_log_prob: Tensor, grad_entropy: Tensor) -> tuple[Tensor, None]:
        """Gradient of the logits."""
        log_probs, action, entropy = ctx.saved_tensors
        grad = torch.empty_like(log_probs)
        grads = (grad_log_prob.contiguous(), grad_entropy.contiguous())
        tensors = (log_probs, action, entropy, *grads, grad)
        actions = log_probs.shape[-1]
        require_library().categorical_backward(
            action.numel(), actions, actions, *map(address, tensors)
        )
        return grad, None


def surrogate(
    terms: tuple[Tensor, ...], *, clip_range: float, value_coef: float, entropy_coef: float
) -> tuple[Tensor, Tensor]:
    """PPO's weighted loss; policy loss, value loss, entropy, KL and clip fraction, [5].

    Args:
        terms: log-probability, that when acting, advantage, value, its target, entropy, and 1 where
            the transition counts; equal shapes.
        clip_range: of the probability ratio.
        value_coef: weight of the squared error of the value.
        entropy_coef: weight of the entropy.
    """
    loss, means = _Surrogate.apply(clip_range, value_coef, entropy_coef, *terms)  # type: ignore[no-untyped-call]
    return loss, means


class _Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, clip_range: float, value_coef: float, entropy_coef: float, *terms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss and its parts."""
        kept = [term.contiguous() for term in terms]
        means = new_memory(5, dtype=torch.float64).zero_()
        grads = [torch.empty_like(kept[0]) for _ in range(3)]
        pointer = ctypes.cast(means.data_ptr(), ctypes.POINTER(ctypes.c_double))
        coefficients = (float(terms[-1].sum()), clip_range, value_coef, entropy_coef)
        require_library().surrogate(
            kept[0].numel(), *map(address, kept), *coefficients, pointer, *map(address, grads)
        )
        ctx.save_for_backward(*grads)
        ctx.mark_non_differentiable(means)
        policy, value, entropy = means[:3].tolist()
        loss = kept[0].new_tensor(policy + value_coef * value - entropy_coef * entropy)
        return loss, means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of log-probability, value and entropy."""
        of_log_prob, of_value, of_entropy = (grad * grad_loss for grad in ctx.saved_tensors)
        return (None, None, None, of_log_prob, None, None, of_value, None, of_entropy, None)
