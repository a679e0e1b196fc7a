"""Perceptrons, PPO's loss and steps of Adam by the compiled library, against torch in float64."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metarl.learning.losses import PPO_METRICS, PPOTerms, ppo_loss
from metarl.native.adam import clipped_adam
from metarl.native.losses import categorical
from metarl.native.perceptron import perceptron


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def require_perceptron_equal(rows: int, inputs: int, hidden: int, outputs: int) -> None:
    sizes = ((hidden, inputs), (hidden,), (outputs, hidden), (outputs,))
    weights = [random(*s, seed=i) / s[-1] ** 0.5 for i, s in enumerate(sizes)]
    values = [value.requires_grad_() for value in (random(rows, inputs, seed=9), *weights)]
    exact = [value.detach().double().requires_grad_() for value in values]
    x, w1, b1, w2, b2 = exact
    slow = torch.relu(x @ w1.T + b1) @ w2.T + b2
    fast = perceptron(values[0], tuple(values[1:]))
    torch.testing.assert_close(fast.double(), slow, rtol=0, atol=3e-6)
    direction = random(rows, outputs, seed=7)
    expected = torch.autograd.grad((slow * direction).sum(), exact)
    for got, right in zip(
        torch.autograd.grad((fast * direction).sum(), values), expected, strict=True
    ):
        scale = max(1.0, float(right.abs().max()))
        torch.testing.assert_close(got.double(), right, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (130, 64, 64, 5), (300, 7, 33, 17)])
def test_a_perceptron_is_that_of_torch(build, sizes):
    require_perceptron_equal(*sizes)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 70), st.integers(1, 70), st.integers(1, 40))
def test_a_perceptron_of_any_shape_is_served(rows, inputs, hidden, outputs):
    require_perceptron_equal(rows, inputs, hidden, outputs)


@pytest.mark.parametrize("actions", [1, 2, 5, 50])
@pytest.mark.parametrize("rows", [1, 33, 200])
def test_log_probabilities_and_entropies_are_those_of_torch(build, rows, actions):
    logits = (3.0 * random(rows, actions, seed=0)).requires_grad_()
    action = torch.arange(rows) % actions
    exact = logits.detach().double().requires_grad_()
    log_probs = exact.log_softmax(-1)
    slow = log_probs.gather(1, action[:, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)
    fast = categorical(logits, action)
    weights = random(2, rows, seed=1)
    for got, right in zip(fast, slow, strict=True):
        torch.testing.assert_close(got.double(), right, rtol=0, atol=3e-6)
    (got,) = torch.autograd.grad((weights[0] * fast[0] + weights[1] * fast[1]).sum(), logits)
    (right,) = torch.autograd.grad((weights[0] * slow[0] + weights[1] * slow[1]).sum(), exact)
    torch.testing.assert_close(got.double(), right, rtol=0, atol=1e-5)


def terms(rows: int, *, dtype: torch.dtype) -> PPOTerms:
    """Ratios on both sides of the clip range, advantages of both signs, some rows not valid."""
    values = [random(rows, seed=seed) for seed in range(6)]
    values[1] = values[0] + 0.5 * values[1]
    valid = (torch.arange(rows) % 5 != 3).float()
    return PPOTerms(*(value.to(dtype).requires_grad_() for value in (*values, valid)))


@pytest.mark.parametrize("rows", [1, 40, 333])
def test_the_loss_of_ppo_is_that_of_torch(build, rows):
    fast, exact = terms(rows, dtype=torch.float32), terms(rows, dtype=torch.float64)
    options = {"clip_range": 0.2, "value_coef": 0.7, "entropy_coef": 0.03}
    loss, metrics = ppo_loss(fast, **options)
    slow, expected = ppo_loss(exact, **options)  # float64 is computed in torch
    assert float(loss.detach()) == pytest.approx(float(slow.detach()), rel=1e-5, abs=1e-6)
    assert {n: float(v) for n, v in metrics.items()} == pytest.approx(
        {n: float(v) for n, v in expected.items()}, rel=1e-4, abs=1e-6
    )
    assert tuple(metrics) == PPO_METRICS
    names = ("log_prob", "value", "entropy")
    got = torch.autograd.grad(2.0 * loss, [getattr(fast, name) for name in names])
    right = torch.autograd.grad(2.0 * slow, [getattr(exact, name) for name in names])
    for one, two in zip(got, right, strict=True):
        torch.testing.assert_close(one.double(), two, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["log_prob", "value", "advantage"])
def test_nan_reaches_a_gradient(build, name):
    given = terms(20, dtype=torch.float32)
    with torch.no_grad():
        getattr(given, name)[4] = torch.nan
    loss, _ = ppo_loss(given, clip_range=0.2, value_coef=0.5, entropy_coef=0.01)
    grads = torch.autograd.grad(loss, [given.log_prob, given.value])
    assert loss.isnan()
    assert any(bool(grad.isnan().any()) for grad in grads)


@pytest.mark.parametrize("max_grad_norm", [1e-2, 1e3])
def test_steps_are_those_of_torch(build, max_grad_norm):
    net = nn.Sequential(nn.Linear(5, 17), nn.Linear(17, 3))
    slow_net = copy.deepcopy(net)
    options = {"lr": 3e-3, "eps": 1e-5, "fused": True}
    adam, slow_adam = (torch.optim.Adam(n.parameters(), **options) for n in (net, slow_net))
    for step in range(4):
        for one, two in zip(net.parameters(), slow_net.parameters(), strict=True):
            one.grad = random(*one.shape, seed=step)
            two.grad = one.grad.clone()
        expected = nn.utils.clip_grad_norm_(slow_net.parameters(), max_grad_norm)
        slow_adam.step()
        versions = [p._version for p in net.parameters()]
        if step == 0:
            assert clipped_adam(adam) is None  # torch makes the moments
            nn.utils.clip_grad_norm_(net.parameters(), max_grad_norm)
            adam.step()
            continue
        if step == 1:
            compiled = clipped_adam(adam)
        norm = compiled.step(max_grad_norm)
        assert norm == pytest.approx(float(expected), rel=1e-5)
        assert all(p._version > v for p, v in zip(net.parameters(), versions, strict=True))
    for one, two in zip(net.parameters(), slow_net.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
        for name, value in adam.state[one].items():
            torch.testing.assert_close(value, slow_adam.state[two][name], rtol=1e-5, atol=1e-8)


def test_a_gradient_that_is_not_finite_changes_nothing(build):
    net = nn.Linear(2, 2)
    adam = torch.optim.Adam(net.parameters(), fused=True)
    net(torch.ones(1, 2)).sum().backward()
    adam.step()
    before = copy.deepcopy((net.state_dict(), adam.state_dict()))
    net.weight.grad[0, 0] = torch.inf
    assert clipped_adam(adam).step(1.0) == math.inf
    after = net.state_dict(), adam.state_dict()
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_torch_takes_the_step_if_gradients_are_of_other_parameters(build):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    adam = torch.optim.Adam(net.parameters(), fused=True)
    net[0](torch.ones(1, 2)).sum().backward()
    adam.step()
    compiled = clipped_adam(adam)
    assert compiled.step(1.0) is not None
    net(torch.ones(1, 2)).sum().backward()
    assert compiled.step(1.0) is None
    adam.zero_grad()
    assert compiled.step(1.0) is None
