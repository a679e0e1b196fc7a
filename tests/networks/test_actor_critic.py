import math
from dataclasses import replace

import pytest
import torch
from gymnasium import spaces

from metarl.errors import ConfigError
from metarl.networks.actor_critic import ActorCritic, NetworkOptions
from metarl.networks.recurrent import GRUOptions
from tests.networks.builders import MEMORIES, generator, network, percept

BOX = spaces.Box(-1.0, 1.0, (2,))


def test_the_first_step_of_a_trial_has_no_previous_action_rather_than_action_zero():
    actions = slice(2, 5)
    inside = network().encode(percept(first=False))[..., actions]
    assert inside[0].tolist() == [0.0, 1.0, 0.0]
    assert not network().encode(percept(first=True))[..., actions].any()


def test_a_percept_is_encoded_as_observation_action_reward_and_flags():
    seen = percept()
    encoded = network().encode(seen)[0].tolist()
    assert encoded == [*seen.obs[0].tolist(), 0, 1, 0, 0.5, 1, 0, 1, 0]


@torch.no_grad()
def test_without_memory_only_the_observation_has_an_effect():
    net, seen = network("none"), percept()
    blind = replace(
        seen,
        previous_action=torch.zeros_like(seen.previous_action),
        previous_reward=-seen.previous_reward,
        previous_terminated=~seen.previous_terminated,
        previous_truncated=~seen.previous_truncated,
        first_of_episode=~seen.first_of_episode,
        first_of_trial=~seen.first_of_trial,
    )
    before, same, other = (
        net(net.encode(each)) for each in (seen, blind, replace(seen, obs=-seen.obs))
    )
    assert torch.equal(before.features, same.features)
    assert torch.equal(before.dist_params, same.dist_params)
    assert torch.equal(before.value, same.value)
    assert not torch.equal(before.features, other.features)


def test_inputs_are_normalised_by_the_mean_and_deviation_of_all_observed_percepts():
    net, unscaled = network(normalise_inputs=True), network()
    seen = replace(percept(400), obs=percept(400).obs * 50 + torch.tensor([7.0, -900.0]))
    seen = replace(seen, previous_reward=torch.linspace(-1000, 0, 400))
    torch.testing.assert_close(net.encode(seen), unscaled.encode(seen).clamp(-10, 10))
    net.observe(seen, torch.ones(400, dtype=torch.bool))
    scaled, dist_params = net.encode(seen), unscaled.encode(seen)
    for column in range(dist_params.shape[-1]):
        if column in (0, 1, 5):  # observation and previous reward
            assert scaled[..., column].mean().abs() < 1e-4
            assert scaled[..., column].std(correction=0).item() == pytest.approx(1)
        else:  # actions and flags are not scaled
            torch.testing.assert_close(scaled[..., column], dist_params[..., column])


def test_finished_lanes_are_not_observed():
    net = network(normalise_inputs=True)
    seen = percept(6)
    broken = replace(seen, obs=seen.obs.clone())
    broken.obs[2] = torch.nan
    valid = torch.ones(6, dtype=torch.bool)
    valid[2] = False
    net.observe(broken, valid)
    assert net.scale.count == 5
    assert net.encode(seen).isfinite().all()


@pytest.mark.parametrize("separate", [True, False])
def test_a_separate_value_network_shares_no_parameters(separate):
    net = network(separate_value=separate)
    output = net(torch.randn(4, 6, net.sizes.total))
    output.value.sum().backward()
    shared = net.trunk.embedding.weight.grad
    assert (shared is None) == separate


@pytest.mark.parametrize("separate", [True, False])
@torch.no_grad()
def test_values_are_those_of_the_forward_pass_in_units_of_the_rewards(separate):
    net = network(separate_value=separate)
    net.value.observe(torch.tensor([10.0, 50.0]))  # mean 30, deviation 20
    inputs = torch.randn(4, 6, net.sizes.total, generator=generator())
    torch.testing.assert_close(net.values(inputs), 20 * net(inputs).value + 30)


@torch.no_grad()
def test_features_are_those_the_policy_decides_by():
    net = network("attention", separate_value=True)
    output = net(torch.randn(4, 6, net.sizes.total, generator=generator()))
    assert output.features.shape == (4, 6, 8)
    assert torch.equal(net.decide(output.features), output.dist_params)


@pytest.mark.parametrize("normalise_inputs", [False, True])
@pytest.mark.parametrize("action_space", [spaces.Discrete(3), BOX])
@pytest.mark.parametrize("memory", MEMORIES)
@torch.no_grad()
def test_steps_agree_with_the_forward_pass(memory, action_space, normalise_inputs):
    net = network(memory, action_space=action_space, normalise_inputs=normalise_inputs)
    inputs = torch.randn(5, 6, net.sizes.total, generator=generator())
    state, found = net.initial_state(6, 5), []
    for now in inputs:
        dist_params, state = net.step(now, state)
        found.append(dist_params)
    torch.testing.assert_close(torch.stack(found), net(inputs).dist_params, rtol=0, atol=1e-5)


def test_log_deviations_are_learned_and_do_not_depend_on_the_features():
    net = network(initial_std=0.5, action_space=BOX)
    dist_params = net.decide(torch.randn(4, 3, 8, generator=generator()))
    assert dist_params.shape == (4, 3, 4)
    torch.testing.assert_close(dist_params[..., 2:], torch.full((4, 3, 2), math.log(0.5)))
    assert dist_params[0, 0, 0] != dist_params[0, 1, 0]
    dist_params.sum().backward()
    assert isinstance(net.constants, torch.nn.Parameter)
    assert net.constants.grad.tolist() == [12.0, 12.0]


def test_logits_need_no_constants():
    net = network()
    assert net.constants is None
    assert net.decide(torch.zeros(4, 8)).shape == (4, 3)


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.Box(0.0, 1.0, (8, 8))])
def test_observation_spaces_other_than_vectors_are_refused(space):
    options = NetworkOptions(memory=GRUOptions(), hidden_size=8)
    with pytest.raises(ConfigError, match=r"Observations must be a Box vector \[D\]; got"):
        ActorCritic(space, BOX, options, generator())
