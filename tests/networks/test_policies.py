import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.errors import ConfigError
from metarl.networks.action_heads import action_head
from metarl.networks.actor_critic import RecurrentActorCritic
from metarl.networks.policies import RecurrentPolicy, StackedPolicy, UniformPolicy
from metarl.networks.stacked_mlp import StackedMLP
from metarl.trajectory import Percept


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def percept(num_tasks: int = 3, copies: int = 2, *, first: bool = False) -> Percept:
    shape = (num_tasks, copies)
    return Percept(
        obs=torch.randn(*shape, 2, generator=generator()),
        previous_action=torch.full(shape, 1),
        previous_reward=torch.full(shape, 0.5),
        previous_terminated=torch.ones(shape, dtype=torch.bool),
        previous_truncated=torch.zeros(shape, dtype=torch.bool),
        first_of_episode=torch.ones(shape, dtype=torch.bool),
        first_of_trial=torch.full(shape, first),
    )


def network(
    core: str, *, action_space: spaces.Space | None = None, **options: object
) -> RecurrentActorCritic:
    settings = {
        "hidden_size": 8,
        "separate_value": False,
        "normalise_inputs": False,
        "initial_std": 1.0,
    } | options
    box = spaces.Box(-1.0, 1.0, (2,))
    return RecurrentActorCritic(
        box, action_space or spaces.Discrete(3), memory=core, generator=generator(), **settings
    )


def test_the_first_step_of_a_trial_has_no_previous_action_rather_than_action_zero():
    actions = slice(2, 5)
    inside = network("gru").encode(percept(first=False))[..., actions]
    assert inside[0, 0].tolist() == [0.0, 1.0, 0.0]
    assert not network("gru").encode(percept(first=True))[..., actions].any()


def test_without_memory_only_the_observation_is_seen():
    torch.testing.assert_close(network("none").encode(percept()), percept().obs)


@pytest.mark.parametrize("core", ["gru", "none"])
def test_inputs_are_read_in_units_of_what_was_seen_so_far(core):
    net = network(core, normalise_inputs=True)
    unscaled = network(core)
    seen = replace(percept(200), obs=percept(200).obs * 50 + torch.tensor([7.0, -900.0]))
    seen = replace(seen, previous_reward=torch.linspace(-1000, 0, 400).view(200, 2))
    torch.testing.assert_close(net.encode(seen), unscaled.encode(seen).clamp(-10, 10))
    net.observe(seen, torch.ones(200, 2, dtype=torch.bool))
    read, raw = net.encode(seen), unscaled.encode(seen)
    measured = [0, 1, 5] if core == "gru" else [0, 1]
    for place in range(raw.shape[-1]):
        if place in measured:
            assert read[..., place].mean().abs() < 1e-4
            assert read[..., place].std(correction=0).item() == pytest.approx(1)
        else:  # flags and actions stay what they are
            torch.testing.assert_close(read[..., place], raw[..., place])


def test_idle_lanes_are_not_observed():
    net = network("gru", normalise_inputs=True)
    seen = percept(3)
    lost = replace(seen, obs=seen.obs.clone())
    lost.obs[1, 0] = torch.nan
    valid = torch.ones(3, 2, dtype=torch.bool)
    valid[1, 0] = False
    net.observe(lost, valid)
    assert net.scale.count == 5
    assert net.encode(seen).isfinite().all()


@pytest.mark.parametrize("separate", [True, False])
def test_a_value_network_of_its_own_shares_nothing(separate):
    net = network("gru", separate_value=separate)
    _, value = net(torch.randn(4, 6, net.trunk.embedding.in_features))
    value.sum().backward()
    shared = net.trunk.embedding.weight.grad
    assert (shared is None) == separate


def test_uniform_policies_cover_their_space_and_know_their_density():
    discrete = UniformPolicy(spaces.Discrete(4)).act(percept(5000, 2), None, generator())
    share = torch.bincount(discrete.action.flatten(), minlength=4) / 10_000
    torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.02)
    assert discrete.log_prob[0, 0].item() == pytest.approx(-math.log(4))
    box = UniformPolicy(spaces.Box(-0.1, 0.1, (2,))).act(percept(5000, 2), None, generator())
    assert box.action.shape == (5000, 2, 2)
    assert box.action.abs().max() <= 0.1
    assert box.action.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.03)
    assert box.log_prob[0, 0].item() == pytest.approx(-2 * math.log(0.2))
    with pytest.raises(ConfigError, match="bounded"):
        UniformPolicy(spaces.Box(-np.inf, np.inf, (2,)))


def test_log_deviations_are_learnt_and_the_same_whatever_is_seen():
    box = spaces.Box(-1.0, 1.0, (2,))
    net = network("gru", initial_std=0.5, action_space=box)
    raw = net.decide(torch.randn(4, 3, 8, generator=generator()))
    assert raw.shape == (4, 3, 4)
    torch.testing.assert_close(raw[..., 2:], torch.full((4, 3, 2), math.log(0.5)))
    assert raw[0, 0, 0] != raw[0, 1, 0]
    raw.sum().backward()
    assert isinstance(net.constants, torch.nn.Parameter)
    assert net.constants.grad.tolist() == [12.0, 12.0]


def test_logits_need_no_constants():
    net = network("gru")
    assert net.constants is None
    assert net.decide(torch.zeros(4, 8)).shape == (4, 3)


@pytest.mark.parametrize("normalise_inputs", [False, True])
@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))])
def test_acting_step_by_step_decides_as_whole_trials_do(action_space, normalise_inputs):
    net = network(
        "gru", action_space=action_space, initial_std=0.5, normalise_inputs=normalise_inputs
    )
    if normalise_inputs:
        net.observe(percept(50), torch.ones(50, 2, dtype=torch.bool))
    torch.nn.init.normal_(net.policy[-1].weight, generator=generator())  # opinions, not 1/3 each
    policy, seen = RecurrentPolicy(net), percept()
    if isinstance(action_space, spaces.Box):
        seen = replace(seen, previous_action=torch.full((3, 2, 2), 0.5))
    memory = policy.initial_memory(3, 2)
    decisions = []
    for step in range(4):
        decisions.append(policy.act(seen, memory, generator(step)))
        memory = decisions[-1].memory
    raw, _ = net(net.encode(seen).flatten(0, 1).expand(4, -1, -1))
    action = torch.stack([decision.action for decision in decisions])
    log_prob = torch.stack([decision.log_prob for decision in decisions])
    torch.testing.assert_close(net.head.evaluate(raw.unflatten(1, (3, 2)), action)[0], log_prob)


STACKED = StackedMLP(sizes=(2, 8, 3))


def stacked(num_tasks: int = 3, action_space: spaces.Space | None = None) -> StackedPolicy:
    """Random parameters in every task."""
    head = action_head(action_space or spaces.Discrete(3))
    network = StackedMLP(sizes=(2, 8, head.outputs), constants=head.constants)
    params = torch.randn(num_tasks, network.size, generator=generator(7))
    return StackedPolicy(network, head, params)


def test_each_task_acts_by_its_own_parameters():
    # All weights zero and a large bias on one output: task n does nothing but action n.
    params = torch.zeros(3, STACKED.size)
    params[:, -3:] = 50.0 * torch.eye(3)
    policy = StackedPolicy(STACKED, action_head(spaces.Discrete(3)), params)
    decision = policy.act(percept(3, 4), policy.initial_memory(3, 4), generator())
    assert decision.action.tolist() == [[0] * 4, [1] * 4, [2] * 4]
    turned = StackedPolicy(STACKED, policy.head, params.flip(0))
    assert turned.act(percept(3, 4), None, generator()).action.tolist() == [
        [2] * 4,
        [1] * 4,
        [0] * 4,
    ]


@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.Box(-2.0, 2.0, (2,))])
def test_stacked_log_probabilities_are_those_of_the_actions_in_each_task(action_space):
    policy, seen = stacked(3, action_space), percept(3, 5)
    decision = policy.act(seen, None, generator())
    for task in range(3):
        params = policy.params[[task]]
        raw = policy.network.outputs(params, seen.obs[task].unsqueeze(1)).squeeze(1)
        log_prob, _ = policy.head.evaluate(raw, decision.action[task])
        torch.testing.assert_close(decision.log_prob[task], log_prob, rtol=1e-4, atol=1e-5)


def test_a_stacked_policy_sees_the_observation_alone():
    policy, seen = stacked(), percept()
    before = policy.act(seen, None, generator())
    blind = replace(
        seen,
        previous_action=torch.zeros_like(seen.previous_action),
        previous_reward=-seen.previous_reward,
        previous_terminated=~seen.previous_terminated,
        previous_truncated=~seen.previous_truncated,
        first_of_episode=~seen.first_of_episode,
        first_of_trial=~seen.first_of_trial,
    )
    same = policy.act(blind, before.memory, generator())
    assert torch.equal(same.action, before.action)
    assert torch.equal(same.log_prob, before.log_prob)
    other = policy.act(replace(seen, obs=-seen.obs), None, generator())
    assert (other.log_prob != before.log_prob).all()
