"""PPO's gradient by the compiled library at once, against autograd on the network."""

import math

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.learning.losses import PPOTerms, ppo_loss
from metarl.native.ppo import PPOGradients, PPOInputs, can_run
from metarl.networks.actor_critic import ActorCritic, NetworkOptions
from metarl.registry import make_memory_options

OPTIONS = {"clip_range": 0.2, "value_coef": 0.7, "entropy_coef": 0.03}
OBSERVATION, ACTION = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(4)


def actor_critic(memory: str, *, hidden_size: int = 12, **options: object) -> ActorCritic:
    shape = NetworkOptions(
        memory=make_memory_options(memory, {}), hidden_size=hidden_size, **options
    )
    generator = torch.Generator().manual_seed(0)
    network = ActorCritic(OBSERVATION, ACTION, shape, generator)
    for parameter in network.parameters():
        parameter.data.normal_(0.0, 0.4, generator=generator)
    return network


def experience(steps: int, lanes: int, *, distinct: bool) -> PPOInputs:
    generator = torch.Generator().manual_seed(lanes)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    width = 3 + 4 + 5
    inputs = normal(steps, lanes, width)
    if distinct:
        rows = torch.randint(3, (steps, lanes), generator=generator)
        inputs = normal(3, width)[rows]
    return PPOInputs(
        inputs=inputs,
        action=torch.randint(4, (steps, lanes), generator=generator),
        old_log_prob=-1.4 + 0.3 * normal(steps, lanes),
        advantage=normal(steps, lanes),
        value_target=normal(steps, lanes),
        valid=(torch.rand(steps, lanes, generator=generator) < 0.8).float(),
    )


def by_autograd(network: ActorCritic, given: PPOInputs) -> tuple[dict[str, Tensor], list[Tensor]]:
    output = network(given.inputs)
    log_prob, entropy = network.head.evaluate(output.dist_params, given.action)
    terms = PPOTerms(
        log_prob,
        given.old_log_prob,
        given.advantage,
        output.value,
        given.value_target,
        entropy,
        given.valid,
    )
    loss, metrics = ppo_loss(terms, **OPTIONS)
    return metrics, list(torch.autograd.grad(loss, list(network.parameters())))


def doubled(given: PPOInputs, lane: Tensor) -> PPOInputs:
    chosen = (value[:, lane] for value in given)
    return PPOInputs(*(v.double() if v.is_floating_point() else v for v in chosen))


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("memory", ["gru", "lstm"])
@pytest.mark.parametrize(("steps", "lanes", "hidden"), [(1, 3, 5), (6, 9, 12), (40, 150, 33)])
def test_gradients_are_those_of_autograd(build, memory, steps, lanes, hidden, distinct):
    network = actor_critic(memory, hidden_size=hidden)
    given = experience(steps, lanes, distinct=distinct)
    weights = network.plain_weights
    assert can_run(weights, given)
    lane = torch.randperm(lanes, generator=torch.Generator().manual_seed(1))[: lanes - 1]
    metrics = PPOGradients(weights, given, **OPTIONS).minibatch(lane)
    got = [parameter.grad for parameter in network.parameters()]
    expected_metrics, expected = by_autograd(network.double(), doubled(given, lane))
    for one, two in zip(got, expected, strict=True):
        scale = max(1e-2, float(two.abs().max()))
        torch.testing.assert_close(one.double(), two, rtol=0, atol=2e-5 * scale)
    assert {n: float(v) for n, v in metrics.items()} == pytest.approx(
        {n: float(v) for n, v in expected_metrics.items()}, rel=1e-4, abs=1e-5
    )


def test_a_second_minibatch_reads_the_weights_as_they_are_then(build):
    network, given = actor_critic("gru"), experience(5, 8, distinct=False)
    gradients = PPOGradients(network.plain_weights, given, **OPTIONS)
    lane = torch.arange(8)
    gradients.minibatch(lane)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    gradients.minibatch(lane)
    got = [parameter.grad.clone() for parameter in network.parameters()]
    PPOGradients(network.plain_weights, given, **OPTIONS).minibatch(lane)
    for one, parameter in zip(got, network.parameters(), strict=True):
        assert torch.equal(one, parameter.grad)


def test_threads_change_rounding_alone(build, monkeypatch):
    network, given = actor_critic("lstm"), experience(5, 300, distinct=False)
    lane = torch.arange(300)
    PPOGradients(network.plain_weights, given, **OPTIONS).minibatch(lane)
    alone = [parameter.grad.clone() for parameter in network.parameters()]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    metrics = PPOGradients(network.plain_weights, given, **OPTIONS).minibatch(lane)
    for one, parameter in zip(alone, network.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, one, rtol=1e-5, atol=1e-6)
    assert all(map(math.isfinite, metrics.values()))


@pytest.mark.parametrize("field", ["inputs", "old_log_prob", "advantage", "value_target"])
def test_nan_reaches_a_gradient(build, field):
    network, given = actor_critic("gru"), experience(4, 6, distinct=False)
    given.valid.fill_(1.0)
    getattr(given, field)[2, 3] = torch.nan
    PPOGradients(network.plain_weights, given, **OPTIONS).minibatch(torch.arange(6))
    assert any(bool(parameter.grad.isnan().any()) for parameter in network.parameters())


@pytest.mark.parametrize(
    "network",
    [
        lambda: actor_critic("attention"),
        lambda: actor_critic("none"),
        lambda: actor_critic("gru", separate_value=True),
    ],
)
def test_other_networks_are_left_to_autograd(network):
    assert network().plain_weights is None


def test_other_types_are_left_to_autograd():
    given = experience(4, 6, distinct=False)
    assert can_run(actor_critic("gru").plain_weights, given)
    assert not can_run(actor_critic("gru").double().plain_weights, doubled(given, torch.arange(6)))


@pytest.mark.parametrize("wrong", [-1, 4, 10**6])
def test_actions_that_do_not_exist_are_left_to_torch(wrong):
    given, network = experience(4, 6, distinct=False), actor_critic("gru")
    assert can_run(network.plain_weights, given)
    given.action[3, 5] = wrong
    assert not can_run(network.plain_weights, given)
    logits = torch.zeros(4, 6, 4)
    with pytest.raises(RuntimeError, match="out of bounds"):
        network.head.evaluate_once(logits, given.action)


def test_inputs_of_other_shapes_are_left_to_torch():
    given, weights = experience(4, 6, distinct=False), actor_critic("gru").plain_weights
    for name in ("action", "advantage", "valid"):
        assert not can_run(weights, given._replace(**{name: getattr(given, name)[:3]}))
    assert not can_run(weights, given._replace(inputs=given.inputs[..., :5]))
    assert not can_run(weights, given._replace(action=given.action.int()))
