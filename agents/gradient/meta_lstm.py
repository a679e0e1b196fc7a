"""Meta-LSTM: the inner step is an LSTM cell whose cell state is a parameter of the policy.

For each parameter, with the same few weights for all of them,

    params[k + 1] = f[k] * params[k] - factor[k] * i[k] * gradient[k]
    i[k] = sigmoid(W_i [log and sign of gradient[k], of loss[k], params[k], i[k - 1], 1])
    f[k] = sigmoid(W_f [log and sign of gradient[k], of loss[k], params[k], f[k - 1], 1])

The input gate i is a learned learning rate, the forget gate f a learned decay, and the initial cell
state is the learned initialisation. Meta-learning starts at constant gates: MAML, with the
slightest decay; `factor` is the schedule of the learning rate. As in the paper, gradient and loss
are constants in the derivatives of the gates; the step itself is differentiated exactly.

Source: Ravi and Larochelle 2017, "Optimization as a model for few-shot learning", section 3 and
appendix A. Unlike the paper: policy gradients instead of supervised ones, TRPO through the unrolled
steps as the outer loop, and no second LSTM in front of the gates.

Axes: `N` tasks, `P` parameters of a policy, `S` parameters of the rule.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from metarl.agents.gradient.inner_rules import (
    CONSTANT,
    InnerRule,
    LearningRateSchedule,
    RuleInputs,
    RuleOutputs,
)
from metarl.agents.gradient.outer_loop import OuterLoss
from metarl.agents.gradient.trainer import TrustRegionConfig
from metarl.errors import ConfigError

GATE_INPUTS = 7
"""of each gate: two numbers of the gradient, two of the loss, parameter, previous gate, one"""
FORGET_BIAS = 6.0
"""initial bias of the forget gate, which is .9975 then; the paper starts between 4 and 6"""
PRECISION = 10.0
"""p of `log_and_sign`; 10 in the paper"""


def log_and_sign(value: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitude and sign of numbers whose size varies widely, each of order one.

    (log|x| / p, sign x) where |x| >= exp(-p), else (-1, exp(p) x).

    Source: Andrychowicz et al. 2016, arXiv:1606.04474, appendix A.
    """
    size = value.abs()
    large = size >= math.exp(-PRECISION)
    magnitude = torch.where(large, size.clamp_min(math.exp(-PRECISION)).log() / PRECISION, -1.0)
    return magnitude, torch.where(large, value.sign(), math.exp(PRECISION) * value)


@dataclass(frozen=True)
class LSTMRule(InnerRule):
    """One LSTM cell for each parameter, with shared weights; see the module."""

    uses_loss = False  # as a constant alone
    inner_lr: float
    """value of the input gate before meta-learning, between 0 and 1"""
    schedule: LearningRateSchedule = CONSTANT

    def initial(self, size: int, generator: Generator) -> Tensor:
        """Constant gates: zero weights, and the biases of input and forget gate, [14]."""
        weights = torch.zeros(2, GATE_INPUTS)
        weights[0, -1] = math.log(self.inner_lr / (1.0 - self.inner_lr))
        weights[1, -1] = FORGET_BIAS
        return weights.flatten()

    def start(self, initial: Tensor, rule_params: Tensor, noise: Tensor) -> RuleOutputs:
        """Gates before the first step, [N, P] each: learning rate `inner_lr`, no decay."""
        gates = torch.full_like(initial, self.inner_lr), torch.ones_like(initial)
        return RuleOutputs(initial, gates)

    def apply(self, inputs: RuleInputs, step: int) -> RuleOutputs:
        """One step of the cell."""
        gradient = log_and_sign(inputs.gradient.detach())
        loss = (each.unsqueeze(1) for each in log_and_sign(inputs.loss.detach()))
        features = (*gradient, *loss, inputs.params)
        gates = tuple(
            _gate(weights, (*features, before))
            for weights, before in zip(inputs.rule_params.view(2, -1), inputs.state, strict=True)
        )
        rate, decay = gates
        change = self.schedule.factor(step) * (-rate * inputs.gradient)
        return RuleOutputs(decay * inputs.params + change, gates)


def _gate(weights: Tensor, features: tuple[Tensor, ...]) -> Tensor:
    """Sigmoid of a weighted sum of features, each [N, P] or [N, 1], and a bias; [N, P]."""
    *factors, bias = weights.unbind()
    total = bias
    for factor, feature in zip(factors, features, strict=True):
        total = total + factor * feature
    return total.sigmoid()


@dataclass(frozen=True, kw_only=True)
class MetaLSTMConfig(TrustRegionConfig):
    """Meta-LSTM: inner steps by a learned LSTM (Ravi and Larochelle 2017)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.inner_lr < 1.0:
            raise ConfigError(
                f"inner_lr={self.inner_lr} is the initial value of the input gate, a sigmoid; it "
                "must lie between 0 and 1, both excluded."
            )

    @property
    def label(self) -> str:
        """Meta-LSTM, and the estimator where it is not the plain one."""
        return self.label_with_estimator("Meta-LSTM")

    def inner_rule(self) -> InnerRule:
        """The LSTM."""
        return LSTMRule(self.inner_lr, self.schedule)

    def outer_loss(self) -> OuterLoss:
        """That of MAML."""
        return self.loss_after_adaptation()
