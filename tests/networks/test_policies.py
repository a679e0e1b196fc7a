import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.errors import ConfigError
from metarl.networks.action_heads import action_head
from metarl.networks.policies import RecurrentPolicy, StackedPolicy, UniformPolicy
from metarl.networks.stacked_mlp import StackedMLP
from tests.networks.builders import MEMORIES, generator, network, noise, percept


@pytest.mark.parametrize("normalise_inputs", [False, True])
@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))])
@pytest.mark.parametrize("memory", MEMORIES)
@torch.no_grad()
def test_log_probabilities_while_acting_are_those_of_whole_trials(
    memory, action_space, normalise_inputs
):
    net = network(
        memory, action_space=action_space, initial_std=0.5, normalise_inputs=normalise_inputs
    )
    if normalise_inputs:
        net.observe(percept(100), torch.ones(100, dtype=torch.bool))
    # Probabilities that differ, not 1/3 each.
    last = net.trunk.emit if memory == "amortised" else net.policy[-1]
    torch.nn.init.normal_(last.weight, generator=generator())
    policy, percepts = RecurrentPolicy(net), [percept(seed=step) for step in range(4)]
    if isinstance(action_space, spaces.Box):
        percepts = [replace(p, previous_action=torch.full((6, 2), 0.5)) for p in percepts]
    state, outputs = policy.initial_memory(6, horizon=4), []
    for step, seen in enumerate(percepts):
        outputs.append(policy.act(seen, state, noise(6, step)))
        state = outputs[-1].memory
    dist_params = net(torch.stack([net.encode(seen) for seen in percepts])).dist_params
    action = torch.stack([output.action for output in outputs])
    log_prob = torch.stack([output.log_prob for output in outputs])
    torch.testing.assert_close(net.head.evaluate(dist_params, action)[0], log_prob)


def test_uniform_policies_cover_their_space_and_return_their_density():
    discrete = UniformPolicy(spaces.Discrete(4)).act(percept(10_000), None, noise(10_000))
    share = torch.bincount(discrete.action.flatten(), minlength=4) / 10_000
    torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.02)
    assert discrete.log_prob[0].item() == pytest.approx(-math.log(4))
    box = UniformPolicy(spaces.Box(-0.1, 0.1, (2,))).act(percept(10_000), None, noise(10_000))
    assert box.action.shape == (10_000, 2)
    assert box.action.abs().max() <= 0.1
    assert box.action.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.03)
    assert box.log_prob[0].item() == pytest.approx(-2 * math.log(0.2))
    with pytest.raises(ConfigError, match="bounded"):
        UniformPolicy(spaces.Box(-np.inf, np.inf, (2,)))


STACKED = StackedMLP(sizes=(2, 8, 3))


RATES = torch.tensor([[1.0], [2.0], [3.0]])
"""a state of an inner rule"""


def stacked(num_tasks: int = 3, action_space: spaces.Space | None = None) -> StackedPolicy:
    """Random parameters in every task."""
    head = action_head(action_space or spaces.Discrete(3))
    network = StackedMLP(sizes=(2, 8, head.outputs), constants=head.constants)
    params = torch.randn(num_tasks, network.size, generator=generator(7))
    return StackedPolicy(network, head, params)


def test_each_task_acts_by_its_own_parameters():
    # All weights are zero and one output has a large bias: task n always takes action n.
    params = torch.zeros(3, STACKED.size)
    params[:, -3:] = 50.0 * torch.eye(3)
    policy = StackedPolicy(STACKED, action_head(spaces.Discrete(3)), params)
    output = policy.act(percept(12), policy.initial_memory(12, horizon=1), noise(12))
    assert output.action.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    flipped = StackedPolicy(STACKED, policy.head, params.flip(0))
    action = flipped.act(percept(12), None, noise(12)).action
    assert action.tolist() == [2] * 4 + [1] * 4 + [0] * 4


@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.Box(-2.0, 2.0, (2,))])
def test_stacked_log_probabilities_are_those_of_the_actions_in_each_task(action_space):
    policy, seen = stacked(3, action_space), percept(15)
    output = policy.act(seen, None, noise(15))
    for task in range(3):
        params, lanes = policy.params[[task]], slice(5 * task, 5 * task + 5)
        dist_params = policy.network.outputs(params, seen.obs[lanes].unsqueeze(1)).squeeze(1)
        log_prob, _ = policy.head.evaluate(dist_params, output.action[lanes])
        torch.testing.assert_close(output.log_prob[lanes], log_prob, rtol=1e-4, atol=1e-5)


def test_a_stacked_policy_reads_the_observation_alone():
    policy, seen = stacked(), percept()
    before = policy.act(seen, None, noise(6))
    blind = replace(
        seen,
        previous_action=torch.zeros_like(seen.previous_action),
        previous_reward=-seen.previous_reward,
        previous_terminated=~seen.previous_terminated,
        previous_truncated=~seen.previous_truncated,
        first_of_episode=~seen.first_of_episode,
        first_of_trial=~seen.first_of_trial,
    )
    same = policy.act(blind, before.memory, noise(6))
    assert torch.equal(same.action, before.action)
    assert torch.equal(same.log_prob, before.log_prob)
    other = policy.act(replace(seen, obs=-seen.obs), None, noise(6))
    assert (other.log_prob != before.log_prob).all()


def test_rollouts_of_a_task_start_with_its_parameters_where_each_has_its_own():
    policy, seen = replace(stacked(3), policies_per_task=None, rule_state=(RATES,)), percept(12)
    memory = policy.initial_memory(12, horizon=1)
    assert torch.equal(memory, policy.params.repeat_interleave(4, 0))
    output = policy.act(seen, memory, noise(12))
    assert torch.equal(output.memory, memory)
    own = policy.for_lanes(12)
    assert own.initial_memory(12, horizon=1) is None
    assert own.for_lanes(12) is own
    assert torch.equal(own.rule_state[0], RATES.repeat_interleave(4, 0))
    assert torch.equal(own.act(seen, None, noise(12)).log_prob, output.log_prob)
    shared = stacked(3).act(seen, None, noise(12))
    assert torch.equal(output.action, shared.action)


def test_in_fewer_lanes_than_hypotheses_the_first_ones_of_each_task_act():
    policy, seen = replace(stacked(8), policies_per_task=4, start_noise=torch.eye(8)), percept(6)
    assert policy.initial_memory(16, horizon=1) is None
    few = policy.for_lanes(6)
    assert torch.equal(few.params, policy.params[[0, 1, 2, 4, 5, 6]])
    assert torch.equal(few.start_noise, torch.eye(8)[[0, 1, 2, 4, 5, 6]])
    assert few.policies_per_task == 3
    found = policy.act(seen, policy.initial_memory(6, horizon=1), noise(6))
    assert torch.equal(found.log_prob, few.act(seen, None, noise(6)).log_prob)
    with pytest.raises(ConfigError, match=r"8 sets of parameters.*multiple of it; got 10"):
        policy.act(percept(10), policy.initial_memory(10, horizon=1), noise(10))


def test_lanes_that_sets_of_parameters_cannot_share_are_refused():
    net = StackedMLP(sizes=(2, 4, 2), constants=2)
    head = action_head(spaces.Box(-1.0, 1.0, (2,)), initial_std=1.0)
    policy = StackedPolicy(net, head, torch.zeros(3, net.size))
    with pytest.raises(ConfigError, match="multiple of it; got 4"):
        policy.act(replace(percept(4), obs=torch.zeros(4, 2)), None, noise(4))
