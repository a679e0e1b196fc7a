"""The trainer of recurrent agents: options, state, and the policy that it recomputes."""

import pytest
import torch

import metarl
from metarl.agents.memory.rl2 import RL2Config
from metarl.agents.memory.trainer import RecurrentAgent
from metarl.errors import CheckpointError, ConfigError
from metarl.learning.ppo import AuxiliaryLoss
from tests.networks.builders import BUILT_IN
from tests.recurrent_rollouts import build, collect_trials, context_of

pytestmark = pytest.mark.usefixtures("one_thread")

MEMORIES = pytest.mark.parametrize("memory", BUILT_IN)
BANDIT = metarl.make_family("metarl/BernoulliBandit-v0")
WALK = metarl.make_family("metarl/PointNavigation-v0", steps=20)


@MEMORIES
@pytest.mark.parametrize("family", [BANDIT, WALK], ids=["discrete", "box"])
def test_the_learner_recomputes_the_policy_that_acted(memory, family):
    agent = build(family, memory=memory)
    batch = collect_trials(agent, family)
    (trajectory,) = batch.trajectories
    network, valid = batch.phases[0].policy.network, trajectory.valid.flatten(1, 2)
    with torch.no_grad():
        dist_params = network(network.encode(trajectory.percepts()).flatten(1, 2)).dist_params
        log_prob, _ = network.head.evaluate(dist_params, trajectory.action.flatten(1, 2))
    torch.testing.assert_close(
        log_prob[valid], trajectory.log_prob.flatten(1, 2)[valid], rtol=1e-5, atol=1e-5
    )


def test_adapting_returns_the_same_policy():
    agent = build(BANDIT)
    policy = agent.start(8, torch.Generator())
    (trajectory,) = collect_trials(agent, BANDIT).trajectories
    assert agent.adapt(policy, trajectory, torch.Generator()).policy is policy
    assert (agent.adaptation_steps, agent.evaluation_steps) == (0, 0)


@MEMORIES
def test_an_agent_continues_from_its_state_exactly(memory):
    separate = memory != "belief"  # which the value does not train
    options = {"memory": memory, "separate_value": separate, "normalise_inputs": True}
    one, two = build(WALK, **options), build(WALK, **options)
    one.update(collect_trials(one, WALK))
    two.load_state(one.state())
    batch = collect_trials(one, WALK, seed=1)
    one.update(batch)
    two.update(batch)
    for name, value in one.state().items():
        assert torch.equal(two.state()[name], value), name
    for name, parameter in one.start(8, torch.Generator()).network.named_parameters():
        if memory == "amortised" and name.startswith("trunk.merge"):
            continue  # computes what the value reads, which has a memory of its own here
        assert bool((parameter.grad != 0).any()), name  # every parameter is trained


class MeanFeature(AuxiliaryLoss):
    """A loss with one parameter."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def targets(self, experience):
        return {}

    def forward(self, features, targets, valid):
        return (self.factor * features.mean(-1) * valid).sum() / valid.sum()


def test_an_auxiliary_loss_is_trained_and_part_of_the_state():
    config = RL2Config(num_tasks=8, hidden_size=16)
    agent = RecurrentAgent(config, context_of(BANDIT), MeanFeature())
    before = agent.state()
    assert before["auxiliary.factor"] == 1.0
    assert "auxiliary_loss" in agent.update(collect_trials(agent, BANDIT))
    assert agent.state()["auxiliary.factor"] != 1.0
    agent.load_state(before)
    assert agent.state()["auxiliary.factor"] == 1.0
    with pytest.raises(CheckpointError, match=r"auxiliary.factor should have shape \[\]"):
        agent.load_state(build(BANDIT).state())


def test_memory_options_reach_the_memory():
    for heads in (1, 8):
        agent = build(BANDIT, memory="attention", memory_options={"heads": heads})
        assert agent.start(8, torch.Generator()).network.trunk.core.heads == heads


def test_a_checkpoint_of_another_hidden_size_is_refused():
    with pytest.raises(CheckpointError, match="does not fit this agent"):
        build(BANDIT, hidden_size=16).load_state(build(BANDIT, hidden_size=8).state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_tasks": 10},
            r"num_tasks=10 times rollouts_per_task=1 does not divide into num_minibatches=4",
        ),
        ({"gamma": 1.1}, "gamma=1.1 must lie between 0.0 and 1.0"),
        ({"num_tasks": -4}, "num_tasks=-4 must be greater than zero"),
        ({"episodes": 0}, "episodes=0 must be greater than zero"),
        ({"hidden_size": 0}, "hidden_size=0 must be greater than zero"),
        ({"initial_std": 0.0}, "initial_std=0.0 must be greater than zero"),
        (
            {"memory": "transform"},
            "memory='transform' is not one of gru, lstm, .* Did you mean 'transformer'",
        ),
        (
            {"memory": "attention", "memory_options": {"head": 8}},
            "The memory 'attention' has no option 'head'. Did you mean 'heads'",
        ),
        ({"memory_options": {"heads": 8}}, "The memory 'gru' has no option 'heads'"),
        (
            {"learning_rate": float("nan")},
            "learning_rate=nan of RL2Config must be a number; got NaN",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        RL2Config(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 30}, "hidden_size=30 does not divide into heads=4"),
        ({"memory_options": {"heads": 3}}, "hidden_size=16 does not divide into heads=3"),
        (
            {"memory_options": {"heads": "many"}},
            "heads='many' of AttentionOptions must be a whole number",
        ),
    ],
)
def test_memory_options_that_do_not_fit_the_network_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(BANDIT, memory="attention", **options)
