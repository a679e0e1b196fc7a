"""Meta-LSTM against its equations, the definition of the meta-gradient, and MAML."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from metarl.agents.gradient import maml_by_definition as definition
from metarl.agents.gradient.inner_loop import InnerLoop
from metarl.agents.gradient.inner_rules import LearningRateSchedule, RuleInputs
from metarl.agents.gradient.meta_lstm import LSTMRule, MetaLSTMConfig, log_and_sign
from metarl.agents.gradient.outer_loop import surrogate_loss
from metarl.errors import ConfigError
from tests.adaptation_by_definition import (
    Case,
    assert_products_are_adjoint_to_the_gradient,
    derivative_by_differences,
)

EXACT = {"rtol": 1e-9, "atol": 1e-11}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LSTMCase(Case):
    """A case under Meta-LSTM, with gates that depend on all their inputs."""

    def inner(self) -> InnerLoop:
        schedule = LearningRateSchedule(later=self.later_lr_scale)
        return dataclasses.replace(super().inner(), rule=LSTMRule(self.rate, schedule))

    def meta_params(self, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed + 1)
        weights = 0.3 * torch.randn(14, generator=generator, dtype=torch.float64)
        return torch.cat((super().meta_params(seed), weights))


CASES = [
    LSTMCase(inner_steps=1),
    LSTMCase(inner_steps=3, box=True, estimator="lvc"),
    LSTMCase(inner_steps=2, multi_step_loss=True, later_lr_scale=0.4),
    LSTMCase(inner_steps=2, box=True, first_order=True),
    LSTMCase(inner_steps=2, box=True, learn_constants=False),
]


@pytest.mark.parametrize("case", CASES)
def test_adaptation_and_meta_gradient_are_those_of_plain_autograd(case):
    meta_params, batches = case.meta_params(), case.batches()
    problem = case.problem(batches)
    here = problem.adapt(meta_params)
    at = meta_params.clone().requires_grad_()
    params = definition.adapted_params(case.inner(), at, batches)
    torch.testing.assert_close(here.params, params[-1].detach(), **EXACT)
    loss, gradient = problem.meta_gradient(surrogate_loss, here)
    expected, by_definition = definition.meta_gradient(problem, surrogate_loss, meta_params)
    assert loss == pytest.approx(expected)
    torch.testing.assert_close(gradient, by_definition, **EXACT)
    assert float(gradient[case.size :].abs().min()) > 1e-9  # of every weight of both gates
    assert_products_are_adjoint_to_the_gradient(here, meta_params)


def test_deviations_that_are_not_learned_stay_and_are_left_out_of_the_meta_gradient():
    """The forget gate decays all parameters but these."""
    case = LSTMCase(inner_steps=1, box=True, learn_constants=False)
    meta_params, batches = case.meta_params(), case.batches()
    problem = case.problem(batches)
    here = problem.adapt(meta_params)
    fixed = slice(case.size - 2, case.size)
    assert torch.equal(here.params[:, fixed], meta_params[fixed].expand(case.num_tasks, -1))
    _, gradient = problem.meta_gradient(surrogate_loss, here)
    bias = torch.zeros_like(meta_params)
    bias[-1] = 1.0  # of the forget gate: gradient and loss, constants by design, play no part
    found = derivative_by_differences(
        lambda at: surrogate_loss(problem, problem.adapt(at).dist_params), meta_params, bias
    )
    torch.testing.assert_close(gradient[-1], found, rtol=1e-6, atol=1e-8)


def started(rule: LSTMRule, params: Tensor) -> tuple[Tensor, ...]:
    """The gates before the first step."""
    return rule.start(params, torch.zeros(14), torch.zeros(len(params), 0)).state


def test_gates_take_gradient_and_loss_as_constants():
    rule = LSTMRule(0.5)
    weights = torch.randn(14, generator=torch.Generator().manual_seed(2)).double()
    params, gradient = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(3)).double()
    loss = torch.ones(2).double().requires_grad_()
    gradient.requires_grad_()
    inputs = RuleInputs(weights, params, gradient, loss, started(rule, params))
    outputs = rule.apply(inputs, 0)
    (derivative,) = torch.autograd.grad(outputs.params.sum(), gradient)
    torch.testing.assert_close(derivative, -outputs.state[0])  # the input gate, and nothing else
    assert not outputs.state[0].requires_grad


@pytest.mark.parametrize("case", [LSTMCase(inner_steps=2), LSTMCase(inner_steps=1, box=True)])
def test_with_constant_gates_it_is_maml(case):
    """Input gate at the learning rate, forget gate at one."""
    plain = Case(inner_steps=case.inner_steps, box=case.box)
    initial = plain.meta_params()
    gates = torch.zeros(2, 7, dtype=torch.float64)
    gates[0, -1], gates[1, -1] = math.log(case.rate / (1 - case.rate)), 60.0
    batches = case.batches()
    lstm = case.problem(batches).adapt(torch.cat((initial, gates.flatten())))
    maml = plain.problem(batches).adapt(initial)
    torch.testing.assert_close(lstm.params, maml.params, **EXACT)
    _, of_lstm = case.problem(batches).meta_gradient(surrogate_loss, lstm)
    _, of_maml = plain.problem(batches).meta_gradient(surrogate_loss, maml)
    torch.testing.assert_close(of_lstm[: plain.size], of_maml, **EXACT)


def test_a_step_is_the_lstm_of_each_coordinate():
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(14, generator=generator, dtype=torch.float64)
    params, gradient, rate, decay = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    loss = torch.tensor([0.7, -1e-6], dtype=torch.float64)
    outputs = LSTMRule(0.5, LearningRateSchedule(later=0.4)).apply(
        RuleInputs(weights, params, gradient, loss, (rate, decay)), 1
    )
    w = weights.tolist()

    def preprocessed(x: float) -> list[float]:
        if abs(x) >= math.exp(-10):
            return [math.log(abs(x)) / 10, math.copysign(1, x)]
        return [-1, math.exp(10) * x]

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    for n in range(2):
        for p in range(3):
            g, theta = float(gradient[n, p]), float(params[n, p])
            inputs = [*preprocessed(g), *preprocessed(float(loss[n])), theta]
            i = sigmoid(sum(a * b for a, b in zip(w[:7], [*inputs, float(rate[n, p]), 1])))  # noqa: B905
            f = sigmoid(sum(a * b for a, b in zip(w[7:], [*inputs, float(decay[n, p]), 1])))  # noqa: B905
            assert float(outputs.params[n, p]) == pytest.approx(f * theta - 0.4 * i * g, rel=1e-9)
            assert float(outputs.state[0][n, p]) == pytest.approx(i, rel=1e-9)
            assert float(outputs.state[1][n, p]) == pytest.approx(f, rel=1e-9)


@pytest.mark.parametrize(
    ("x", "magnitude", "sign"),
    [
        (1.0, 0.0, 1.0),
        (-math.exp(2), 0.2, -1.0),
        (math.exp(-9), -0.9, 1.0),
        (-math.exp(-12), -1.0, -math.exp(-2)),
        (0.0, -1.0, 0.0),
    ],
)
def test_numbers_of_all_sizes_become_numbers_of_order_one(x, magnitude, sign):
    found = log_and_sign(torch.tensor([x], dtype=torch.float64))
    assert [float(each) for each in found] == pytest.approx([magnitude, sign])


def test_before_meta_learning_it_is_maml_with_the_slightest_decay():
    rule = LSTMRule(0.3)
    params, gradient = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0))
    state = started(rule, params)
    rule_params = rule.initial(5, torch.Generator())
    outputs = rule.apply(RuleInputs(rule_params, params, gradient, torch.zeros(2), state), 0)
    torch.testing.assert_close(outputs.params, params - 0.3 * gradient, rtol=0, atol=0.01)
    assert not torch.equal(outputs.params, params - 0.3 * gradient)


@pytest.mark.parametrize("inner_lr", [0.0, 1.0, 2.5])
def test_rates_that_no_gate_reaches_are_refused(inner_lr):
    with pytest.raises(ConfigError, match=f"inner_lr={inner_lr} is the initial value of the input"):
        MetaLSTMConfig(inner_lr=inner_lr)
