import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.errors import ConfigError
from metarl.policies import (
    CategoricalHead,
    GaussianHead,
    RecurrentActorCritic,
    UniformPolicy,
    action_head,
)
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


def network(core: str, **options: object) -> RecurrentActorCritic:
    settings = {"hidden": 8, "separate_value": False, "initial_std": 1.0} | options
    box = spaces.Box(-1.0, 1.0, (2,))
    return RecurrentActorCritic(
        box, spaces.Discrete(3), core=core, generator=generator(), **settings
    )


def test_categorical_samples_follow_the_probabilities():
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    head, raw = CategoricalHead(spaces.Discrete(3)), probabilities.log().expand(200_000, 3)
    action, log_prob = head.sample(raw, generator())
    share = torch.bincount(action, minlength=3) / len(action)
    # standard error of a share is at most .5 / sqrt(200,000) = .0011
    torch.testing.assert_close(share, probabilities, rtol=0, atol=0.005)
    torch.testing.assert_close(log_prob, probabilities.log()[action])
    torch.testing.assert_close(log_prob, head.evaluate(raw, action)[0])


def test_entropies_are_torchs():
    raw = torch.randn(5, 3, generator=generator())
    expected = torch.distributions.Categorical(logits=raw).entropy()
    torch.testing.assert_close(
        CategoricalHead(spaces.Discrete(3)).evaluate(raw, torch.zeros(5).long())[1], expected
    )
    gaussian = GaussianHead(spaces.Box(-1.0, 1.0, (3,)), initial_std=0.3)
    normal = torch.distributions.Normal(raw, 0.3).entropy().sum(-1)
    torch.testing.assert_close(gaussian.evaluate(raw, raw)[1], normal)


def test_gaussian_actions_are_in_units_of_the_bounds():
    low, high = np.array([-0.1, 0.0], np.float32), np.array([0.1, 10.0], np.float32)
    head = GaussianHead(spaces.Box(low, high), initial_std=0.5)
    raw = torch.tensor([0.5, -0.5]).expand(200_000, 2)
    action, log_prob = head.sample(raw, generator())
    # centre + half range * mean: 0 + .1 * .5, 5 + 5 * (-.5); deviations .5 * (.1, 5)
    torch.testing.assert_close(action.mean(0), torch.tensor([0.05, 2.5]), rtol=0, atol=0.03)
    torch.testing.assert_close(action.std(0), torch.tensor([0.05, 2.5]), rtol=0.02, atol=0)
    torch.testing.assert_close(log_prob, head.evaluate(raw, action)[0], rtol=1e-4, atol=1e-4)
    unit = (action - torch.tensor([0.0, 5.0])) / torch.tensor([0.1, 5.0])
    expected = torch.distributions.Normal(raw, 0.5).log_prob(unit).sum(-1)
    torch.testing.assert_close(log_prob, expected, rtol=1e-4, atol=1e-4)
    assert head.encode(action).abs().max() == 1.0  # clipped as the environment does


def test_an_action_space_that_no_head_serves_is_refused():
    with pytest.raises(ConfigError, match="No action head serves MultiBinary"):
        action_head(spaces.MultiBinary(3))
    with pytest.raises(ConfigError, match="must be vectors"):
        action_head(spaces.Box(-1.0, 1.0, (2, 2)))


def test_the_first_step_of_a_trial_has_no_previous_action_rather_than_action_zero():
    actions = slice(2, 5)
    inside = network("gru").encode(percept(first=False))[..., actions]
    assert inside[0, 0].tolist() == [0.0, 1.0, 0.0]
    assert not network("gru").encode(percept(first=True))[..., actions].any()


def test_without_memory_only_the_observation_is_seen():
    torch.testing.assert_close(network("none").encode(percept()), percept().obs)


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


def test_bounds_without_a_unit_leave_actions_finite():
    most = np.finfo(np.float32).max
    box = spaces.Box(np.float32([-most, 0.5, -np.inf]), np.float32([most, 0.5, np.inf]))
    action, log_prob = GaussianHead(box).sample(torch.zeros(10, 3), generator())
    assert action.isfinite().all()
    assert log_prob.isfinite().all()
