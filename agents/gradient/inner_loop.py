"""The inner loop: gradient steps of all tasks at once, and exact derivatives through the steps.

    params[k + 1], state[k + 1] = rule(params[k], gradient[k], loss[k], state[k])

where `loss[k]` is the inner loss of phase k at params[k]. The chain is differentiated in both
directions: reverse mode (`meta_gradient`), and forward mode (`jvp`) for the curvature of a trust
region. A step's derivative needs one product with the Hessian of its loss, so no autograd graph
runs through the inner steps. `maml_by_definition.py` has the short definition in plain autograd,
which only tests run.

Axes: `N` tasks, `M` samples of each task, `P` parameters of a policy, `S` parameters of the
rule, `Q` = P + S meta-parameters, `K` inner steps, `R` parameters of an action distribution
(the parameters of its action distribution, see `ActionHead`).
"""

from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metarl.agents.gradient.inner_rules import (
    InnerRule,
    RuleInputs,
    RuleOutputs,
    RuleState,
    forward_mode,
)
from metarl.agents.gradient.pg_batch import InnerLossFunction, PGBatch
from metarl.errors import ShapeError
from metarl.networks.action_heads import ActionHead
from metarl.networks.stacked_mlp import Backward, Forward, StackedMLP


@dataclass(frozen=True)
class InnerLoss:
    """The inner loss of every task at its parameters, with gradient and Hessian products."""

    network: StackedMLP
    params: Tensor  # [N, P]
    forward: Forward
    loss: Tensor  # [N]
    backward: Backward
    dist_params_hvp: Callable[
        [Tensor], Tensor
    ]  # Hessian with respect to dist_params, [M, N, R] -> [M, N, R]

    @property
    def gradient(self) -> Tensor:
        """[N, P]."""
        return self.backward.gradient

    def hvp(self, direction: Tensor) -> Tensor:
        """Hessian-vector product: that of every task's loss, times its direction [N, P]."""
        return self.network.hvp(
            self.params, self.forward, self.backward, direction, self.dist_params_hvp
        )


@dataclass(frozen=True, kw_only=True)
class InnerLoop:
    """What an adaptation needs besides the meta-parameters."""

    network: StackedMLP
    head: ActionHead
    rule: InnerRule
    estimator: InnerLossFunction
    first_order: bool = False
    """take inner gradients and losses as constants when the steps are differentiated (FOMAML)"""

    def for_policies(self, per_task: int) -> "InnerLoop":
        """The same loop where each task has `per_task` policies."""
        return replace(self, rule=self.rule.for_policies(per_task))

    def split(self, meta_params: Tensor) -> tuple[Tensor, Tensor]:
        """Meta-parameters [Q] as initial parameters [P] and those of the rule [S]."""
        return meta_params[: self.network.size], meta_params[self.network.size :]

    def project(self, meta_params: Tensor) -> Tensor:
        """The nearest meta-parameters [Q] that the rule allows."""
        initial, rule_params = self.split(meta_params)
        return torch.cat((initial, self.rule.project(rule_params)))

    def loss_at(self, params: Tensor, batch: PGBatch) -> InnerLoss:
        """The inner loss at parameters [N, P], with its derivatives."""
        forward = self.network.forward(params, batch.inputs)
        with torch.enable_grad():
            dist_params = forward.dist_params.detach().requires_grad_()
            loss = self.estimator(self.head, dist_params, batch)
            dist_params_gradient = gradient_of(loss.sum(), dist_params)
        backward = self.network.backward(params, forward, dist_params_gradient.detach())
        dist_params_hvp = hessian_products(dist_params_gradient, dist_params)
        return InnerLoss(self.network, params, forward, loss.detach(), backward, dist_params_hvp)

    def start(self, initial: Tensor, rule_params: Tensor, noise: Tensor | None) -> RuleOutputs:
        """The rule's start from initial parameters [N, P]; without noise, that has no numbers."""
        noise = initial.new_zeros(len(initial), 0) if noise is None else noise
        outputs = self.rule.start(initial, rule_params, noise)
        if outputs.params is initial:
            return outputs
        return outputs._replace(params=self._keep(outputs.params, initial))

    def inputs(self, loss: InnerLoss, rule_params: Tensor, state: RuleState) -> RuleInputs:
        """What the rule's step at this loss depends on."""
        return RuleInputs(rule_params, loss.params, loss.gradient, loss.loss, state)

    def apply_rule(self, inputs: RuleInputs, step: int) -> RuleOutputs:
        """The rule's step.

        Raises:
            ShapeError: the rule returned something else than new parameters [N, P] and a state of
                the same axes as before.
        """
        outputs = self.rule.apply(inputs, step)
        name = type(self.rule).__name__
        if not isinstance(outputs, RuleOutputs):
            raise ShapeError(f"{name}.apply must return RuleOutputs(params, state); got {outputs}.")
        if outputs.params.shape != inputs.params.shape:
            raise ShapeError(
                f"{name}.apply must return parameters [N, P] = {list(inputs.params.shape)}; got "
                f"{list(outputs.params.shape)}."
            )
        if _shapes(outputs.state) != _shapes(inputs.state):
            raise ShapeError(
                f"{name}.apply must return a state of the axes that it was given, "
                f"{_shapes(inputs.state)}; got {_shapes(outputs.state)}."
            )
        return outputs._replace(params=self._keep(outputs.params, inputs.params))

    def rule_jvp(self, inputs: RuleInputs, tangents: RuleInputs, step: int) -> RuleOutputs:
        """Forward mode through `apply_rule`."""
        outputs = self.rule.jvp(inputs, tangents, step)
        return outputs._replace(params=self._keep(outputs.params, tangents.params))

    def rule_vjp(self, inputs: RuleInputs, cotangents: RuleOutputs, step: int) -> RuleInputs:
        """Reverse mode through `apply_rule`."""
        given = cotangents.params
        adapted = cotangents._replace(params=self._keep(given, torch.zeros_like(given)))
        grads = self.rule.vjp(inputs, adapted, step)
        return grads._replace(params=self._keep(grads.params, grads.params + given))

    def _keep(self, new: Tensor, old: Tensor) -> Tensor:
        """`new` [N, P], with the constants of `old` where they are not learned: no rule moves them.

        A rule that decays all parameters would change the deviations otherwise.
        """
        fixed = 0 if self.network.learn_constants else self.network.constants
        return torch.cat((new[:, :-fixed], old[:, -fixed:]), 1) if fixed else new


def _shapes(state: RuleState) -> Any:
    """The axes of each tensor of a rule's state; what is not a tuple of tensors, by its type."""
    if not isinstance(state, tuple):
        return f"a {type(state).__name__}, not a tuple of tensors"
    return [list(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in state]


class Adaptation:
    """K inner steps of all tasks from one value of the meta-parameters, and their derivatives."""

    def __init__(
        self,
        inner: InnerLoop,
        meta_params: Tensor,
        batches: Sequence[PGBatch],
        known: Sequence[InnerLoss] = (),
        start_noise: Tensor | None = None,
    ) -> None:
        """Adapts on all batches but the last; the last is evaluated at the adapted parameters.

        Args:
            inner: networks, rule and loss.
            meta_params: [Q].
            batches: of K + 1 phases.
            known: the K inner losses at `meta_params`, where they were computed before.
            start_noise: [N, R] of the rule's start.
        """
        self._inner = inner
        initial, self.rule_params = inner.split(meta_params)
        self._initial = initial.expand(batches[0].valid.shape[1], -1).contiguous()
        self._start_noise = start_noise
        self._start = inner.start(self._initial, self.rule_params, start_noise)
        self.params, state = self._start
        self.losses: list[InnerLoss] = []
        self._inputs: list[RuleInputs] = []
        for step, batch in enumerate(batches[:-1]):
            loss = known[step] if known else inner.loss_at(self.params, batch)
            inputs = inner.inputs(loss, self.rule_params, state)
            self.losses.append(loss)
            self._inputs.append(inputs)
            self.params, state = inner.apply_rule(inputs, step)
        self._final_state = state
        self._last = inner.network.forward(self.params, batches[-1].inputs)

    def on(self, batches: Sequence[PGBatch]) -> "Adaptation":
        """The same parameters, differentiated on other experience, such as fewer rollouts."""
        other = copy(self)
        other.losses = [
            self._inner.loss_at(loss.params, batch)
            for loss, batch in zip(self.losses, batches[:-1], strict=True)
        ]
        other._inputs = [
            self._inner.inputs(loss, inputs.rule_params, inputs.state)
            for loss, inputs in zip(other.losses, self._inputs, strict=True)
        ]
        other._last = self._inner.network.forward(self.params, batches[-1].inputs)
        return other

    @property
    def dist_params(self) -> list[Tensor]:
        """Outputs of the policy of each phase, K + 1 times [M, N, R]."""
        return [*(loss.forward.dist_params for loss in self.losses), self._last.dist_params]

    def meta_gradient(self, cotangents: Sequence[Tensor | None]) -> Tensor:
        """Gradient [Q] of a scalar through the inner steps, given its gradients at `dist_params`.

        This is reverse mode; the gradient of an outer loss and products with its curvature need it.

        Args:
            cotangents: K + 1 times [M, N, R], or None for a phase the objective ignores.
        """
        network, rule = self._inner.network, self._inner.rule
        assert cotangents[-1] is not None
        grad_params = network.gradient(self.params, self._last, cotangents[-1])
        grad_rule = torch.zeros_like(self.rule_params)
        grad_state = tuple(map(torch.zeros_like, self._final_state))
        for step in reversed(range(len(self.losses))):
            loss, grad_dist_params = self.losses[step], cotangents[step]
            cotangent = RuleOutputs(grad_params, grad_state)
            grads = self._inner.rule_vjp(self._inputs[step], cotangent, step)
            grad_rule = grad_rule + grads.rule_params
            grad_params, grad_state = grads.params, grads.state
            if not self._inner.first_order:
                grad_params = grad_params + loss.hvp(grads.gradient)
                if rule.uses_loss:
                    grad_params = grad_params + grads.loss.unsqueeze(1) * loss.gradient
            if grad_dist_params is not None:
                grad_params = grad_params + network.gradient(
                    loss.params, loss.forward, grad_dist_params
                )
        if not self._starts_at_initial:
            function = torch.func.vjp(self._start_from, self._initial, self.rule_params)[1]
            grad_params, of_start = function(RuleOutputs(grad_params, grad_state))
            grad_rule = grad_rule + of_start
        return torch.cat((grad_params.sum(0), grad_rule))

    def jvp(self, direction: Tensor, phases: Collection[int]) -> list[Tensor]:
        """Forward mode: change of some phases' `dist_params` [M, N, R] along a direction [Q]."""
        network = self._inner.network
        initial, rule_params = self._inner.split(direction)
        start = RuleOutputs(initial.expand_as(self.params).contiguous(), ())
        if not self._starts_at_initial:
            at = self._initial, self.rule_params
            start = RuleOutputs(*forward_mode(self._start_from, at, (start.params, rule_params)))
        params, state = start
        tangents = []
        for step, loss in enumerate(self.losses):
            if step in phases:
                tangents.append(network.tangent(loss.params, loss.forward, params))
            gradient_tangent = torch.zeros_like(params)
            loss_tangent = torch.zeros_like(loss.loss)
            if not self._inner.first_order:
                gradient_tangent = loss.hvp(params)
                loss_tangent = (loss.gradient * params).sum(1)
            changes = RuleInputs(rule_params, params, gradient_tangent, loss_tangent, state)
            params, state = self._inner.rule_jvp(self._inputs[step], changes, step)
        if len(self.losses) in phases:
            tangents.append(network.tangent(self.params, self._last, params))
        return tangents

    @property
    def _starts_at_initial(self) -> bool:
        """Whether the rule returned the very tensor that it was given, and no state."""
        return self._start.params is self._initial and not self._start.state

    def _start_from(self, initial: Tensor, rule_params: Tensor) -> RuleOutputs:
        return self._inner.start(initial, rule_params, self._start_noise)


def gradient_of(value: Tensor, dist_params: Tensor) -> Tensor:
    """Derivative of a scalar by `dist_params`, differentiable once more."""
    (gradient,) = torch.autograd.grad(value, dist_params, create_graph=True)
    return gradient


def hessian_products(gradient: Tensor, dist_params: Tensor) -> Callable[[Tensor], Tensor]:
    """Products with the second derivative, given the first one as `gradient_of` returns it.

    Differentiates the first derivative in reverse mode: a Hessian is symmetric.
    """

    def product(direction: Tensor) -> Tensor:
        if not gradient.requires_grad:
            return torch.zeros_like(direction)
        (second,) = torch.autograd.grad(gradient, dist_params, direction, retain_graph=True)
        return second

    return product
