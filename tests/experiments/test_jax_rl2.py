"""The JAX port of RL^2 computes what metarl's does; skipped where JAX is not installed."""

import numpy as np
import pytest
import torch

import metarl
from metarl.learning.advantages import gae

jax = pytest.importorskip("jax")
pytest.importorskip("optax")
jax_rl2 = pytest.importorskip("jax_rl2")

LANES, PULLS, HIDDEN = 6, 7, 8


@pytest.fixture
def agent():
    """metarl's, untrained."""
    family = metarl.make_family("metarl/BernoulliBandit-v0", pulls=PULLS)
    config = metarl.agent_config("rl2")(num_tasks=LANES, hidden_size=HIDDEN, num_minibatches=1)
    context = metarl.AgentContext(
        observation_space=family.observation_space,
        action_space=family.action_space,
        seeds=metarl.Seeds(0),
        device=torch.device("cpu"),
    )
    return family, config.build(context)


def same_network(state):
    """metarl's weights in the port."""

    def linear(name, ending=""):
        weight, bias = (state[f"network.{name}{part}{ending}"] for part in ("weight", "bias"))
        return jax_rl2.Linear(weight.T.numpy(), bias.numpy())

    def gates(ending):
        weight, bias = (
            state[f"network.trunk.core.gru.{part}_{ending}_l0"] for part in ("weight", "bias")
        )
        return jax_rl2.Linear(weight.T.numpy(), bias.numpy())

    return jax_rl2.Network(
        embedding=linear("trunk.embedding."),
        gates_of_input=gates("ih"),
        gates_of_hidden=gates("hh"),
        policy=(linear("policy.0."), linear("policy.2.")),
        value=(linear("value.layers.0."), linear("value.layers.2.")),
    )


def test_percepts_and_network_are_those_of_metarl(agent):
    family, agent = agent
    seeds = metarl.Seeds(1)
    tasks = family.sample_tasks(LANES, seeds.torch("tasks"))
    start = metarl.LaneNoise.of(seeds, "start", LANES)
    policy = agent.start(LANES, start)
    experience = metarl.collect(family, tasks, policy, episodes=PULLS, seeds=seeds)
    action, reward = (
        value.flatten(1, 2).numpy() for value in (experience.action, experience.reward)
    )
    inputs = [jax_rl2.percept(0 * action[0], 0 * reward[0], 1.0)]
    inputs += [jax_rl2.percept(action[t], reward[t], 0.0) for t in range(PULLS - 1)]
    network = agent._learner.network
    expected = network.encode(experience.percepts()).flatten(1, 2)
    np.testing.assert_array_equal(np.stack(inputs), expected.numpy())
    logits, value = jax_rl2.replay(same_network(agent.state()), np.stack(inputs))
    with torch.no_grad():
        output = network(expected)
    np.testing.assert_allclose(logits, output.dist_params.numpy(), atol=1e-6)
    np.testing.assert_allclose(value, output.value.numpy(), atol=1e-6)
    log_prob = jax_rl2.log_prob_of(logits, action)
    np.testing.assert_allclose(log_prob, experience.log_prob.flatten(1, 2).numpy(), atol=1e-5)


def test_advantages_are_those_of_metarl():
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(2, PULLS, LANES, generator=generator)
    ends = torch.zeros_like(reward, dtype=torch.bool)
    ends[-1] = True
    later = torch.cat((value[1:], torch.zeros_like(value[:1])))
    never = torch.zeros_like(ends)
    expected = gae(reward, value, later, ends, never, gamma=0.99, gae_lambda=0.95)
    np.testing.assert_allclose(jax_rl2.gae(reward.numpy(), value.numpy()), expected, atol=1e-5)


def test_hyper_parameters_are_the_defaults_of_metarl():
    config = metarl.agent_config("rl2")()
    names = (
        "gamma",
        "gae_lambda",
        "num_epochs",
        "num_minibatches",
        "learning_rate",
        "max_grad_norm",
        "clip_range",
        "value_coef",
        "entropy_coef",
    )
    port = (
        jax_rl2.GAMMA,
        jax_rl2.GAE_LAMBDA,
        jax_rl2.EPOCHS,
        jax_rl2.MINIBATCHES,
        jax_rl2.LEARNING_RATE,
        jax_rl2.MAX_GRAD_NORM,
        jax_rl2.CLIP_RANGE,
        jax_rl2.VALUE_COEF,
        jax_rl2.ENTROPY_COEF,
    )
    assert port == tuple(getattr(config, name) for name in names)


@pytest.mark.learning
@pytest.mark.parametrize(("iterations", "low", "high"), [(200, 6.2, 6.8), (0, 4.8, 5.2)])
def test_the_port_learns(iterations, low, high):
    agent = jax_rl2.RL2(lanes=256, pulls=10, iterations=200)
    learner = agent.start(jax.random.key(0), 64)
    keys = jax.random.split(jax.random.key(1), iterations)
    if iterations:
        learner, _ = jax.jit(lambda *args: jax.lax.scan(agent.iteration, *args))(learner, keys)
    seen = jax_rl2.roll_out(learner.network, jax.random.key(2), 2000, 10)
    assert low < float(seen.reward.sum(0).mean()) < high
