"""Inner rules: how one step of the inner loop changes a policy's parameters.

Axes: `N` policies, one for each task unless a rule has several, task by task; `P` parameters of a
policy, `S` parameters of the rule, `R` random numbers of a policy.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Generator, Tensor

RuleState: TypeAlias = tuple[Tensor, ...]
"""what an inner rule carries from step to step, each [N, ...] float: momentum, cells, ..."""


class RuleInputs(NamedTuple):
    """All that a step of an inner rule depends on; also a tangent or cotangent of it."""

    rule_params: Tensor  # [S]
    params: Tensor  # [N, P]
    gradient: Tensor  # [N, P]  of the inner loss
    loss: Tensor  # [N]
    state: RuleState


class RuleOutputs(NamedTuple):
    """What a step of an inner rule returns; also a tangent or cotangent of it."""

    params: Tensor  # [N, P]
    state: RuleState


class InnerRule(ABC):
    """How one inner step changes the parameters. It may have meta-learned parameters and a state.

    A subclass needs `apply` alone. Its derivatives come from `torch.func`; a rule with a simple
    derivative may write `jvp` and `vjp` out to save time.
    """

    uses_loss: bool = True
    """whether `apply` reads the loss; False saves its share of the derivatives"""

    def initial(self, size: int, generator: Generator) -> Tensor:
        """The rule's own parameters before meta-learning, [S], for policies of `size` parameters.

        By default there are none.
        """
        return torch.zeros(0)

    def for_policies(self, per_task: int) -> "InnerRule":
        """The same rule where each task has `per_task` policies; for rules that join them."""
        return self

    def noise_size(self, size: int) -> int:
        """Standard normal numbers of each policy that `start` uses (R); by default none."""
        return 0

    def start(self, initial: Tensor, rule_params: Tensor, noise: Tensor) -> RuleOutputs:
        """Parameters and state before the first step; differentiable.

        By default the initial parameters and no state.

        Args:
            initial: [N, P] the meta-learned initial parameters, in every row.
            rule_params: [S].
            noise: [N, R] standard normal, drawn once for a trial.
        """
        return RuleOutputs(initial, ())

    def penalty(self, rule_params: Tensor, gradient: Tensor) -> Tensor:
        """A scalar that is added to the outer loss; by default 0.

        Args:
            rule_params: [S]; the penalty is differentiated by these alone.
            gradient: [N, P] of the first step, a constant.
        """
        return rule_params.new_zeros(())

    def project(self, rule_params: Tensor) -> Tensor:
        """The nearest parameters [S] that the rule allows; by default all are."""
        return rule_params

    @abstractmethod
    def apply(self, inputs: RuleInputs, step: int) -> RuleOutputs:
        """Inner step number `step`, counted from 0; differentiable, all tasks at once."""

    def jvp(self, inputs: RuleInputs, tangents: RuleInputs, step: int) -> RuleOutputs:
        """Forward mode: the change of the outputs as the inputs change by `tangents`."""
        return RuleOutputs(
            *forward_mode(
                lambda *at: self.apply(RuleInputs(*at), step), tuple(inputs), tuple(tangents)
            )
        )

    def vjp(self, inputs: RuleInputs, cotangents: RuleOutputs, step: int) -> RuleInputs:
        """Reverse mode: the gradient of a scalar at the inputs, given that at the outputs."""
        result: Any = torch.func.vjp(lambda *at: self.apply(RuleInputs(*at), step), *inputs)
        return RuleInputs(*result[1](cotangents))


@dataclass(frozen=True, kw_only=True)
class LearningRateSchedule:
    """Factors on the inner learning rate, step by step: 1, `later`, `later * decay`, ..."""

    later: float = 1.0
    """of the second step"""
    decay: float = 1.0
    """from each later step to the next"""

    def factor(self, step: int) -> float:
        """The factor of a step, counted from 0."""
        return self.later * self.decay ** (step - 1) if step else 1.0


CONSTANT = LearningRateSchedule()


@dataclass(frozen=True)
class GradientDescent(InnerRule):
    """Plain gradient descent with one learning rate (Finn et al. 2017, arXiv:1703.03400)."""

    uses_loss = False
    inner_lr: float
    schedule: LearningRateSchedule = CONSTANT

    def apply(self, inputs: RuleInputs, step: int) -> RuleOutputs:
        """Params - lr * gradient."""
        factor = self.schedule.factor(step)
        return RuleOutputs(inputs.params + factor * (-self.inner_lr * inputs.gradient), ())

    def jvp(self, inputs: RuleInputs, tangents: RuleInputs, step: int) -> RuleOutputs:
        """Linear in parameters and gradient."""
        return self.apply(tangents, step)

    def vjp(self, inputs: RuleInputs, cotangents: RuleOutputs, step: int) -> RuleInputs:
        """Linear in parameters and gradient."""
        later = self.schedule.factor(step) * cotangents.params
        gradient = -self.inner_lr * later
        nothing = torch.zeros_like(inputs.loss)
        return RuleInputs(inputs.rule_params, cotangents.params, gradient, nothing, ())


@dataclass(frozen=True)
class LearnedRates(InnerRule):
    """Meta-SGD: each parameter has a learning rate that is meta-learned.

    Source: Li et al. 2017, arXiv:1707.09835, eq. 2.
    """

    uses_loss = False
    inner_lr: float
    """of every parameter before meta-learning"""
    max_inner_lr: float
    """learned rates are kept between 0 and this"""
    schedule: LearningRateSchedule = CONSTANT

    def initial(self, size: int, generator: Generator) -> Tensor:
        """Equal rates."""
        return torch.full((size,), self.inner_lr)

    def project(self, rule_params: Tensor) -> Tensor:
        """Clamps the rates."""
        return rule_params.clamp(0.0, self.max_inner_lr)

    def apply(self, inputs: RuleInputs, step: int) -> RuleOutputs:
        """Params - rates * gradient."""
        factor = self.schedule.factor(step)
        return RuleOutputs(inputs.params + factor * (-inputs.rule_params * inputs.gradient), ())

    def jvp(self, inputs: RuleInputs, tangents: RuleInputs, step: int) -> RuleOutputs:
        """Product rule."""
        change = tangents.rule_params * inputs.gradient + inputs.rule_params * tangents.gradient
        return RuleOutputs(tangents.params + self.schedule.factor(step) * -change, ())

    def vjp(self, inputs: RuleInputs, cotangents: RuleOutputs, step: int) -> RuleInputs:
        """Product rule."""
        later = self.schedule.factor(step) * cotangents.params
        return RuleInputs(
            rule_params=-(inputs.gradient * later).sum(0),
            params=cotangents.params,
            gradient=-inputs.rule_params * later,
            loss=torch.zeros_like(inputs.loss),
            state=(),
        )


def forward_mode(function: Callable[..., Any], at: tuple[Any, ...], along: tuple[Any, ...]) -> Any:
    """Derivative of a function of tensors along tangents."""
    with warnings.catch_warnings():
        # Forward mode loads a part of torch that uses a deprecated function of torch.
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        result: Any = torch.func.jvp(function, at, along)
    return result[1]
