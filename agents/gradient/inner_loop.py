"""Meta-parameters and experience go in, adapted parameters of all tasks and derivatives come out.

    theta[0] = initial,   theta[k + 1] = rule(theta[k], gradient of inner loss k at theta[k])

for all tasks at once. The chain of steps is differentiated by hand in both directions, since a
step's derivative needs no more than a product with the Hessian of its loss, which is symmetric:
pushed forward for the curvature of a trust region, pulled back for the meta-gradient. Exact, and
without a graph through the inner steps.

Axes: `N` tasks, `M` decisions of each, `P` parameters of a policy, `S` parameters of the rule,
`Q` = P + S meta-parameters, `K` inner steps, `R` raw numbers of a decision.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.agents.gradient.pg_batch import PGBatch
from metarl.networks.action_heads import ActionHead
from metarl.networks.stacked_mlp import Backward, Forward, StackedMLP


class InnerRule(ABC):
    """How a gradient changes parameters; it may have learnt parameters of its own, [S]."""

    @abstractmethod
    def initial(self, size: int) -> Tensor:
        """Its own parameters before learning, [S], for policies of `size` parameters."""

    @abstractmethod
    def project(self, own: Tensor) -> Tensor:
        """The nearest parameters [S] that it allows."""

    @abstractmethod
    def step(self, own: Tensor, gradient: Tensor) -> Tensor:
        """What is added to the parameters, [N, P]."""

    @abstractmethod
    def pushed(self, own: Tensor, change: Tensor, gradient: Tensor, turn: Tensor) -> Tensor:
        """Derivative of the step [N, P] as its parameters [S] and the gradient [N, P] change."""

    @abstractmethod
    def pulled(self, own: Tensor, gradient: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Of a cotangent of the step [N, P]: that of the gradient [N, P], and of its own [S]."""


@dataclass(frozen=True)
class FixedRate(InnerRule):
    """Gradient descent: minus `rate` times the gradient."""

    rate: float

    def initial(self, size: int) -> Tensor:
        """Nothing is learnt."""
        return torch.zeros(0)

    def project(self, own: Tensor) -> Tensor:
        """Nothing to do."""
        return own

    def step(self, own: Tensor, gradient: Tensor) -> Tensor:
        """Downhill."""
        return -self.rate * gradient

    def pushed(self, own: Tensor, change: Tensor, gradient: Tensor, turn: Tensor) -> Tensor:
        """Linear in the gradient."""
        return -self.rate * turn

    def pulled(self, own: Tensor, gradient: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Likewise."""
        return -self.rate * cotangent, own


@dataclass(frozen=True)
class LearnedRates(InnerRule):
    """Meta-SGD: each parameter has a rate of its own, learnt with the initial parameters.

    Source: Li et al. 2017, arXiv:1707.09835, eq. 2.
    """

    rate: float
    """of every parameter before learning"""
    highest: float
    """rates are kept between 0 and this"""

    def initial(self, size: int) -> Tensor:
        """Equal rates."""
        return torch.full((size,), self.rate)

    def project(self, own: Tensor) -> Tensor:
        """Clamped."""
        return own.clamp(0.0, self.highest)

    def step(self, own: Tensor, gradient: Tensor) -> Tensor:
        """Downhill, each parameter at its rate."""
        return -own * gradient

    def pushed(self, own: Tensor, change: Tensor, gradient: Tensor, turn: Tensor) -> Tensor:
        """Product rule."""
        return -(change * gradient + own * turn)

    def pulled(self, own: Tensor, gradient: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Product rule."""
        return -own * cotangent, -(gradient * cotangent).sum(0)


@dataclass(frozen=True)
class InnerLoss:
    """The inner loss of every task at its parameters, and its derivatives."""

    network: StackedMLP
    params: Tensor  # [N, P]
    forward: Forward
    loss: Tensor  # [N]
    backward: Backward
    bend: Callable[[Tensor], Tensor]  # Hessian of the losses by raw, [M, N, R] -> [M, N, R]

    @property
    def gradient(self) -> Tensor:
        """[N, P]."""
        return self.backward.gradient

    def times_hessian(self, direction: Tensor) -> Tensor:
        """Of every task's loss, times its direction [N, P]."""
        return self.network.curvature(
            self.params, self.forward, self.backward, direction, self.bend
        )


@dataclass(frozen=True, kw_only=True)
class InnerProblem:
    """What an adaptation needs besides the meta-parameters."""

    network: StackedMLP
    head: ActionHead
    rule: InnerRule
    estimator: Callable[[Tensor, PGBatch], Tensor]
    first_order: bool = False
    """take the inner gradient for a constant when the steps are differentiated"""
    later_lr_scale: float = 1.0
    """length of the second step, in units of the rule's own"""
    later_lr_decay: float = 1.0
    """from each later step to the next"""

    def split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Meta-parameters [Q] as initial parameters [P] and those of the rule [S]."""
        return vector[: self.network.size], vector[self.network.size :]

    def project(self, vector: Tensor) -> Tensor:
        """The nearest meta-parameters [Q] that the rule allows."""
        initial, own = self.split(vector)
        return torch.cat((initial, self.rule.project(own)))

    def slope(self, params: Tensor, data: PGBatch) -> InnerLoss:
        """The inner loss at parameters [N, P], with its derivatives."""
        forward = self.network.forward(params, data.inputs)
        with torch.enable_grad():
            raw = forward.raw.detach().requires_grad_()
            loss = self.estimator(data.log_probs(self.head, raw), data)
            first = gradient_of(loss.sum(), raw)
        backward = self.network.backward(params, forward, first.detach())
        bend = products_with_hessian(first, raw)
        return InnerLoss(self.network, params, forward, loss.detach(), backward, bend)

    def scale(self, step: int) -> float:
        """Length of a step, counted from 0, in units of the rule's own."""
        return self.later_lr_scale * self.later_lr_decay ** (step - 1) if step else 1.0

    def next_params(self, slope: InnerLoss, own: Tensor, step: int) -> Tensor:
        """Inner step number `step`, counted from 0: parameters [N, P]."""
        return slope.params + self.scale(step) * self.rule.step(own, slope.gradient)


class Adaptation:
    """K inner steps of all tasks from one value of the meta-parameters, and their derivatives."""

    def __init__(self, problem: InnerProblem, vector: Tensor, lessons: Sequence[PGBatch]) -> None:
        """Adapts on all lessons but the last, which the adapted parameters [N, P] are shown.

        Args:
            problem: networks, rule and loss.
            vector: [Q] meta-parameters.
            lessons: K + 1 phases.
        """
        self._problem = problem
        initial, self._own = problem.split(vector)
        self.params = initial.expand(lessons[0].valid.shape[1], -1).contiguous()
        self.slopes: list[InnerLoss] = []
        for step, data in enumerate(lessons[:-1]):
            self.slopes.append(problem.slope(self.params, data))
            self.params = problem.next_params(self.slopes[-1], self._own, step)
        self._last = problem.network.forward(self.params, lessons[-1].inputs)

    def on(self, lessons: Sequence[PGBatch]) -> "Adaptation":
        """The same parameters, but differentiated on other experience, such as fewer copies."""
        other = copy(self)
        other.slopes = [
            self._problem.slope(slope.params, data)
            for slope, data in zip(self.slopes, lessons[:-1], strict=True)
        ]
        other._last = self._problem.network.forward(self.params, lessons[-1].inputs)
        return other

    @property
    def raw(self) -> list[Tensor]:
        """What the policy of each phase says about its decisions, K + 1 times [M, N, R]."""
        return [*(slope.forward.raw for slope in self.slopes), self._last.raw]

    def vjp(self, cotangents: Sequence[Tensor | None]) -> Tensor:
        """From derivatives of an objective by `raw` to its gradient by the meta-parameters, [Q].

        Args:
            cotangents: K + 1 times [M, N, R], or None where the objective does not look.
        """
        network, rule = self._problem.network, self._problem.rule
        assert cotangents[-1] is not None
        whole = network.gradient(self.params, self._last, cotangents[-1])
        own = torch.zeros_like(self._own)
        for step in reversed(range(len(self.slopes))):
            slope, seen = self.slopes[step], cotangents[step]
            later = self._problem.scale(step) * whole
            turn, by_rule = rule.pulled(self._own, slope.gradient, later)
            own = own + by_rule
            if not self._problem.first_order:
                whole = whole + slope.times_hessian(turn)
            if seen is not None:
                whole = whole + network.gradient(slope.params, slope.forward, seen)
        return torch.cat((whole.sum(0), own))

    def jvp(self, direction: Tensor, phases: Collection[int]) -> list[Tensor]:
        """Derivatives of the raw numbers of some phases along a direction [Q], [M, N, R] each."""
        network, rule = self._problem.network, self._problem.rule
        initial, own = self._problem.split(direction)
        change = initial.expand_as(self.params).contiguous()
        tangents = []
        for step, slope in enumerate(self.slopes):
            if step in phases:
                tangents.append(network.tangent(slope.params, slope.forward, change))
            turn = torch.zeros_like(change)
            if not self._problem.first_order:
                turn = slope.times_hessian(change)
            pushed = rule.pushed(self._own, own, slope.gradient, turn)
            change = change + self._problem.scale(step) * pushed
        if len(self.slopes) in phases:
            tangents.append(network.tangent(self.params, self._last, change))
        return tangents


def gradient_of(value: Tensor, raw: Tensor) -> Tensor:
    """Derivative of a scalar by `raw`, ready to be differentiated once more."""
    (first,) = torch.autograd.grad(value, raw, create_graph=True)
    return first


def products_with_hessian(first: Tensor, raw: Tensor) -> Callable[[Tensor], Tensor]:
    """Products with the second derivative, given the first one as `gradient_of` returns it.

    Differentiates the first derivative backwards: for a Hessian that is the same as forwards.
    """

    def product(direction: Tensor) -> Tensor:
        if not first.requires_grad:
            return torch.zeros_like(direction)
        (second,) = torch.autograd.grad(first, raw, direction, retain_graph=True)
        return second

    return product
