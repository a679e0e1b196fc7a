"""Acting steps by the compiled library, against the policy in torch."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import metarl
from metarl.learning.losses import PPOTerms, ppo_loss
from metarl.native.acting import Acting, ActingInputs
from metarl.native.ppo import PPOGradients
from metarl.networks.memory import PolicyInputs
from metarl.networks.policies import RecurrentPolicy
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.trajectory import Percept
from tests.native.test_ppo import OBSERVATION, OPTIONS, actor_critic, experience
from tests.recurrent_rollouts import context_of

NUM_ACTIONS = 4
CPU = {"dtype": torch.float32, "device": "cpu"}


def percept(lanes: int, *, distinct: bool) -> Percept:
    generator = torch.Generator().manual_seed(lanes)
    rows = torch.randint(min(3, lanes) if distinct else lanes, (lanes,), generator=generator)

    def flag() -> Tensor:
        return (torch.rand(lanes, generator=generator) < 0.5)[rows]

    return Percept(
        obs=torch.randn(lanes, *OBSERVATION.shape, generator=generator)[rows],
        previous_action=torch.randint(NUM_ACTIONS, (lanes,), generator=generator)[rows],
        previous_reward=torch.randn(lanes, generator=generator)[rows],
        previous_terminated=flag(),
        previous_truncated=flag(),
        first_of_episode=flag(),
        first_of_trial=flag(),
    )


def inputs_of(seen: Percept, uniform: Tensor) -> ActingInputs:
    return ActingInputs(*vars(seen).values(), uniform)


def random_state(memory: str, lanes: int, hidden: int) -> Tensor | tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(lanes, hidden, generator=generator).tanh() for _ in range(2)]
    return parts[0] if memory == "gru" else tuple(parts)


@torch.no_grad()
@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("memory", ["gru", "lstm"])
@pytest.mark.parametrize(("lanes", "hidden"), [(1, 5), (9, 12), (150, 33), (64, 64)])
def test_a_step_is_that_of_the_policy_in_torch(build, memory, lanes, hidden, distinct):
    network = actor_critic(memory, hidden_size=hidden)
    seen, state = percept(lanes, distinct=distinct), random_state(memory, lanes, hidden)
    uniform = torch.rand(lanes, generator=torch.Generator().manual_seed(2))
    acting = Acting(
        network.plain_weights, lanes=lanes, observation=OBSERVATION.shape[0], with_values=True
    )
    action, log_prob, after, value = acting.act(inputs_of(seen, uniform), state)
    exact = actor_critic(memory, hidden_size=hidden).double()
    inputs = exact.encode(seen).double()
    state = state.double() if memory == "gru" else tuple(part.double() for part in state)
    features, expected = exact.trunk.step(PolicyInputs(inputs, exact.sizes), state)
    torch.testing.assert_close(value.double(), exact.value(features), rtol=0, atol=1e-5)
    probs = exact.decide(features).softmax(-1)
    upper = probs.cumsum(-1).gather(1, action[:, None])[:, 0]
    lower = upper - probs.gather(1, action[:, None])[:, 0]
    slack = 1e-5  # at a boundary either action is right
    assert bool(((lower - slack <= uniform) & (uniform <= upper + slack)).all())
    got = probs.log().gather(1, action[:, None])[:, 0]
    torch.testing.assert_close(log_prob.double(), got, rtol=0, atol=2e-5)
    pairs = [(after, expected)] if memory == "gru" else zip(after, expected, strict=True)
    for one, two in pairs:
        torch.testing.assert_close(one.double(), two, rtol=0, atol=1e-5)


def roll_out(policy: RecurrentPolicy, lanes: int, steps: int) -> list[Tensor]:
    noise = LaneNoise.of(Seeds(3), "policy", lanes, horizon=steps)
    memory, actions = policy.initial_memory(lanes, steps), []
    seen = percept(lanes, distinct=True)
    for step in range(steps):
        action, _, memory = policy.act(seen, memory, noise.at(step))
        actions.append(action)
        seen = replace(seen, previous_action=action, first_of_trial=torch.zeros(lanes).bool())
    return actions


@torch.no_grad()
def test_the_policy_takes_the_same_actions_as_in_torch(build, monkeypatch):
    network = actor_critic("gru")
    compiled = roll_out(RecurrentPolicy(network), 200, 12)
    monkeypatch.setattr("metarl.networks.actor_critic.ActorCritic.acting", lambda *_, **__: None)
    in_torch = roll_out(RecurrentPolicy(network), 200, 12)
    differ = sum(int((one != two).sum()) for one, two in zip(compiled, in_torch, strict=True))
    assert differ <= 2  # a uniform number next to a boundary, one in 10^5
    assert int(torch.stack(compiled).unique().numel()) == NUM_ACTIONS


@torch.no_grad()
def test_weights_are_those_of_the_start_of_the_trial(build):
    network = actor_critic("gru")
    memory = RecurrentPolicy(network).initial_memory(8, 5)
    expected = roll_out(RecurrentPolicy(network), 8, 5)
    for parameter in network.parameters():
        parameter.normal_()
    noise = LaneNoise.of(Seeds(3), "policy", 8, horizon=5)
    action = RecurrentPolicy(network).act(percept(8, distinct=True), memory, noise.at(0)).action
    assert torch.equal(action, expected[0])


@torch.no_grad()
def test_more_lanes_and_threads_change_nothing(build, monkeypatch):
    network, lanes = actor_critic("lstm", hidden_size=20), 1500
    seen, state = percept(lanes, distinct=False), random_state("lstm", lanes, 20)
    uniform = torch.rand(lanes)
    weights, size = network.plain_weights, OBSERVATION.shape[0]
    inputs, options = inputs_of(seen, uniform), {"observation": size, "with_values": True}
    whole = Acting(weights, lanes=lanes, **options).act(inputs, state)
    monkeypatch.setattr("metarl.native.acting.BLOCKS_OF_A_THREAD", 2)
    monkeypatch.setattr("metarl.native.library.threads", lambda: 3)
    shared = Acting(weights, lanes=lanes, **options).act(inputs, state)
    few = Percept(**{name: value[5:12] for name, value in vars(seen).items()})
    part = Acting(weights, lanes=7, **options).act(
        inputs_of(few, uniform[5:12]), tuple(value[5:12] for value in state)
    )
    for number in (0, 1, 3):
        assert torch.equal(shared[number], whole[number])
        assert torch.equal(part[number], whole[number][5:12])
    for one, two, three in zip(shared[2], whole[2], part[2], strict=True):
        assert torch.equal(one, two)
        assert torch.equal(three, two[5:12])


@torch.no_grad()
@pytest.mark.parametrize("field", ["obs", "previous_reward"])
def test_nan_reaches_the_log_probability_and_the_action_is_one(build, field):
    network, seen = actor_critic("gru"), percept(6, distinct=False)
    getattr(seen, field)[2] = torch.nan
    acting = Acting(network.plain_weights, lanes=6, observation=3, with_values=False)
    action, log_prob, *_ = acting.act(inputs_of(seen, torch.rand(6)), network.initial_state(6, 1))
    assert bool(log_prob[2].isnan())
    assert int(log_prob.isfinite().sum()) == 5
    assert 0 <= int(action[2]) < NUM_ACTIONS


@torch.no_grad()
@pytest.mark.parametrize("wrong", [-1, NUM_ACTIONS, 2**40])
def test_an_action_that_does_not_exist_gives_nan(build, wrong):
    network, seen = actor_critic("gru"), percept(3, distinct=False)
    seen.previous_action[1] = wrong
    acting = Acting(network.plain_weights, lanes=3, observation=3, with_values=False)
    _, log_prob, *_ = acting.act(inputs_of(seen, torch.rand(3)), network.initial_state(3, 1))
    assert log_prob.isnan().tolist() == [False, True, False]


@torch.no_grad()
def test_values_are_those_of_a_pass_through_the_trial_and_only_given_on_request(build):
    family = metarl.make_family("metarl/GridNavigation-v0")
    agent = metarl.agent_config("rl2")(num_tasks=8, hidden_size=12).build(context_of(family))
    network = agent.start(8, LaneNoise.of(Seeds(0), "start", 8)).network
    network.value.observe(torch.randn(100) * 7.0 + 3.0)  # units that are not those of the rewards
    tasks = family.sample_tasks(8, Seeds(1).torch("tasks"))
    for gives in (True, False):
        policy = RecurrentPolicy(network, gives_values=gives)
        found = metarl.collect(family, tasks, policy, episodes=2, seeds=Seeds(2))
        if not gives:
            assert found.value is None
            continue
        expected = network.values(network.encode(found.percepts()).flatten(1, 2))
        valid = found.valid.flatten(1, 2)
        torch.testing.assert_close(
            found.value.flatten(1, 2)[valid], expected[valid], rtol=1e-5, atol=1e-4
        )


def test_other_networks_and_gradients_act_in_torch():
    with torch.no_grad():
        assert actor_critic("gru").acting(3) is not None
        assert actor_critic("attention").acting(3) is None
        assert actor_critic("gru", normalise_inputs=True).acting(3) is None
        assert actor_critic("gru").double().acting(3) is None
    assert actor_critic("gru").acting(3) is None


@torch.no_grad()
@pytest.mark.parametrize(
    "changed",
    [
        {"obs": torch.zeros(6, 2)},
        {"obs": torch.zeros(5, 3)},
        {"obs": torch.zeros(6, 3, dtype=torch.float64)},
        {"previous_action": torch.zeros(6, dtype=torch.int32)},
        {"previous_action": torch.zeros(200, dtype=torch.int64)},
        {"previous_reward": torch.zeros(6, dtype=torch.float16)},
        {"first_of_trial": torch.zeros(6)},
        {"uniform": torch.zeros(5)},
    ],
    ids=str,
)
def test_inputs_of_another_kind_are_left_to_torch(build, changed):
    network, lanes = actor_critic("gru"), 6
    acting = Acting(network.plain_weights, lanes=lanes, observation=3, with_values=True)
    inputs, state = inputs_of(percept(lanes, distinct=False), torch.rand(lanes)), torch.zeros(6, 12)
    assert acting.can_act(inputs, state)
    assert not acting.can_act(inputs._replace(**changed), state)


@torch.no_grad()
@pytest.mark.parametrize(
    "state", [torch.zeros(5, 12), torch.zeros(6, 11), (torch.zeros(6, 12),) * 2]
)
def test_a_state_of_another_kind_is_left_to_torch(build, state):
    acting = Acting(actor_critic("gru").plain_weights, lanes=6, observation=3, with_values=False)
    assert not acting.can_act(inputs_of(percept(6, distinct=False), torch.rand(6)), state)


@torch.no_grad()
def test_a_policy_refuses_observations_of_another_size_as_in_torch(build):
    policy, seen = RecurrentPolicy(actor_critic("gru")), percept(4, distinct=False)
    wide = replace(seen, obs=torch.zeros(4, 5))
    noise = LaneNoise.of(Seeds(0), "policy", 4)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        policy.act(wide, policy.initial_memory(4, 2), noise)


@torch.no_grad()
def test_threads_may_share_a_memory_and_copies_of_it_act_alike(build):
    policy, lanes = RecurrentPolicy(actor_critic("gru", hidden_size=32)), 500
    memory, seen = policy.initial_memory(lanes, 2), percept(lanes, distinct=False)

    def act(memory) -> Tensor:
        return policy.act(seen, memory, LaneNoise.of(Seeds(0), "policy", lanes)).log_prob

    with torch.no_grad():
        expected = act(memory)
    assert torch.equal(act(copy.deepcopy(memory)), expected)

    def repeat(_: int) -> bool:
        with torch.no_grad():
            return all(torch.equal(act(memory), expected) for _ in range(100))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(repeat, range(3)))


def test_defaults_of_torch_for_new_tensors_do_not_matter(build):
    network, given = actor_critic("gru"), experience(5, 8, distinct=True)

    def results() -> list[Tensor]:
        metrics = PPOGradients(network.plain_weights, given, **OPTIONS).minibatch(lane)
        grads = [parameter.grad.clone() for parameter in network.parameters()]
        loss, _ = ppo_loss(terms, clip_range=0.2, value_coef=0.5, entropy_coef=0.01)
        with torch.no_grad():
            acting = Acting(network.plain_weights, lanes=8, observation=3, with_values=True)
            action, log_prob, state, value = acting.act(inputs, torch.ones(8, 12, **CPU))
            features = network.trunk.sequence(PolicyInputs(given.inputs, network.sizes), state)[0]
        drawn = LaneNoise(keys).uniform(3)
        return [*grads, loss, action, log_prob, state, value, features, drawn, *metrics.values()]

    lane, keys = torch.arange(8), torch.arange(8)
    inputs = inputs_of(percept(8, distinct=True), torch.full((8,), 0.5))
    terms = PPOTerms(*(torch.full((20,), 0.1 * number) for number in range(1, 8)))
    expected = results()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        found = results()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one, two) if isinstance(one, Tensor) else one == two
