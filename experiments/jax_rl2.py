"""RL^2 by PPO on Bernoulli bandits in JAX, compiled as a whole: the fastest way that JAX offers.

The whole iteration is one program for XLA: the rollout and the replay are scans over steps, and so
are the minibatches. Percept, network, losses, Adam and schedules are those of metarl's `rl2`.
Unlike there, the values of the rollout are used for advantages, instead of being computed again,
and the value is not rescaled (PopArt). Both make this program faster, not slower.

Sources: as in `metarl.agents.memory.rl2`.

Axes: `T` steps, `L` lanes, `F` inputs, `H` hidden, `A` arms. Time first.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

ARMS = 5
INPUTS = 1 + ARMS + 5
"""observation, one-hot previous action, previous reward, four flags"""
GAMMA, GAE_LAMBDA = 0.99, 0.95
EPOCHS, MINIBATCHES = 4, 4
LEARNING_RATE, MAX_GRAD_NORM = 3e-3, 1.0
CLIP_RANGE, VALUE_COEF, ENTROPY_COEF = 0.2, 0.5, 0.003
"""the defaults of `rl2`; learning rate and entropy coefficient go linearly to 0"""


class Linear(NamedTuple):
    """x -> x weight + bias."""

    weight: Array  # [I, O]
    bias: Array  # [O]

    def __call__(self, x: Array) -> Array:
        """[..., I] -> [..., O]."""
        return x @ self.weight + self.bias


class Network(NamedTuple):
    """Embedding with ReLU, GRU, and two perceptrons with one hidden layer."""

    embedding: Linear
    gates_of_input: Linear  # [H, 3H], in the order r, z, n
    gates_of_hidden: Linear
    policy: tuple[Linear, Linear]
    value: tuple[Linear, Linear]


class Learner(NamedTuple):
    """All that an iteration changes."""

    network: Network
    optimiser: Any
    updates: Array  # []


class Experience(NamedTuple):
    """One trial in each lane, [T, L, ...]."""

    inputs: Array  # [T, L, F]
    action: Array
    log_prob: Array
    value: Array
    reward: Array


class Batch(NamedTuple):
    """What the loss reads, [T, L, ...]."""

    inputs: Array  # [T, L, F]
    action: Array
    log_prob: Array
    advantage: Array
    value_target: Array


def new_network(key: Array, hidden_size: int) -> Network:
    """Orthogonal weights, gate by gate, and zero biases."""
    keys = iter(jax.random.split(key, 11))

    def linear(inputs: int, outputs: int, gain: float) -> Linear:
        weight = jax.nn.initializers.orthogonal(gain)(next(keys), (inputs, outputs))
        return Linear(weight, jnp.zeros(outputs))

    def gates() -> Linear:
        parts = [linear(hidden_size, hidden_size, 1.0).weight for _ in range(3)]
        return Linear(jnp.concatenate(parts, axis=1), jnp.zeros(3 * hidden_size))

    return Network(
        embedding=linear(INPUTS, hidden_size, 2**0.5),
        gates_of_input=gates(),
        gates_of_hidden=gates(),
        policy=(linear(hidden_size, hidden_size, 2**0.5), linear(hidden_size, ARMS, 0.01)),
        value=(linear(hidden_size, hidden_size, 2**0.5), linear(hidden_size, 1, 1.0)),
    )


def gru_step(network: Network, gates_of_input: Array, hidden: Array) -> Array:
    """The next hidden state [L, H], given the gates' part that reads the input, [L, 3H]."""
    of_input = jnp.split(gates_of_input, 3, axis=-1)
    of_hidden = jnp.split(network.gates_of_hidden(hidden), 3, axis=-1)
    reset = jax.nn.sigmoid(of_input[0] + of_hidden[0])
    keep = jax.nn.sigmoid(of_input[1] + of_hidden[1])
    candidate = jnp.tanh(of_input[2] + reset * of_hidden[2])
    return candidate + keep * (hidden - candidate)


def input_gates(network: Network, inputs: Array) -> Array:
    """[..., F] -> the gates' part that reads the embedded input, [..., 3H]."""
    return network.gates_of_input(jax.nn.relu(network.embedding(inputs)))


def heads(network: Network, features: Array) -> tuple[Array, Array]:
    """[..., H] -> logits [..., A] and values [...]."""
    logits, value = (
        second(jax.nn.relu(first(features))) for first, second in (network.policy, network.value)
    )
    return logits, value[..., 0]


def replay(network: Network, inputs: Array) -> tuple[Array, Array]:
    """Logits [T, L, A] and values [T, L] of whole trials, [T, L, F]."""
    gates = input_gates(network, inputs)  # NOTE: outside the scan, as one product of matrices

    def step(hidden: Array, gates_now: Array) -> tuple[Array, Array]:
        hidden = gru_step(network, gates_now, hidden)
        return hidden, hidden

    start = jnp.zeros((inputs.shape[1], network.embedding.bias.shape[0]))
    _, features = jax.lax.scan(step, start, gates)
    return heads(network, features)


def percept(action: Array, reward: Array, first: Array) -> Array:
    """What the network reads, [L, F]: each pull is an episode, and `first` opens the trial.

    Args:
        action: [L] int, the previous one.
        reward: [L], the previous one.
        first: [] 1 at the first step of the trial, else 0.
    """
    one = jnp.ones((len(action), 1))
    later = (1.0 - first) * one
    columns = (
        0.0 * one,  # the observation of a bandit
        jax.nn.one_hot(action, ARMS) * later,
        reward[:, None] * later,
        later,  # the last episode terminated
        0.0 * one,  # it was not truncated
        one,  # first of the episode
        first * one,  # first of the trial
    )
    return jnp.concatenate(columns, axis=1)


def pull(key: Array, arms: Array, action: Array) -> Array:
    """Rewards [L] of the actions [L] where the arms pay with probabilities [L, A]."""
    probability = jnp.take_along_axis(arms, action[:, None], axis=1)[:, 0]
    return (jax.random.uniform(key, probability.shape) < probability).astype(jnp.float32)


def roll_out(network: Network, key: Array, lanes: int, pulls: int) -> Experience:
    """One trial in each of `lanes` new bandits."""
    task_key, key = jax.random.split(key)
    arms = jax.random.uniform(task_key, (lanes, ARMS))

    def step(carry: tuple[Array, ...], key: Array) -> tuple[tuple[Array, ...], Experience]:
        hidden, action, reward, first = carry
        inputs = percept(action, reward, first)
        hidden = gru_step(network, input_gates(network, inputs), hidden)
        logits, value = heads(network, hidden)
        act_key, pull_key = jax.random.split(key)
        action = jax.random.categorical(act_key, logits)
        reward = pull(pull_key, arms, action)
        seen = Experience(inputs, action, log_prob_of(logits, action), value, reward)
        return (hidden, action, reward, jnp.zeros(())), seen

    hidden = jnp.zeros((lanes, network.embedding.bias.shape[0]))
    start = (hidden, jnp.zeros(lanes, jnp.int32), jnp.zeros(lanes), jnp.ones(()))
    _, experience = jax.lax.scan(step, start, jax.random.split(key, pulls))
    return Experience(*experience)


def random_trials(key: Array, lanes: int, pulls: int) -> tuple[Array, Array]:
    """Actions and rewards [T, L] of random policies: the environment alone."""
    task_key, key = jax.random.split(key)
    arms = jax.random.uniform(task_key, (lanes, ARMS))

    def step(_: None, key: Array) -> tuple[None, tuple[Array, Array]]:
        act_key, pull_key = jax.random.split(key)
        action = jax.random.randint(act_key, (lanes,), 0, ARMS)
        return None, (action, pull(pull_key, arms, action))

    _, (action, reward) = jax.lax.scan(step, None, jax.random.split(key, pulls))
    return action, reward


def log_prob_of(logits: Array, action: Array) -> Array:
    """Log-probabilities [...] of actions [...] under logits [..., A]."""
    log_probs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]


def gae(reward: Array, value: Array) -> Array:
    """Generalised advantage estimates [T, L] of trials that end after T steps."""

    def step(carry: tuple[Array, Array], now: tuple[Array, Array]) -> Any:
        later, next_value = carry
        reward, value = now
        advantage = reward + GAMMA * next_value - value + GAMMA * GAE_LAMBDA * later
        return (advantage, value), advantage

    zeros = jnp.zeros_like(reward[0])
    return jax.lax.scan(step, (zeros, zeros), (reward, value), reverse=True)[1]


def loss(network: Network, batch: Batch, entropy_coef: Array) -> Array:
    """PPO's: clipped surrogate, squared error of the value, entropy."""
    logits, value = replay(network, batch.inputs)
    ratio = jnp.exp(log_prob_of(logits, batch.action) - batch.log_prob)
    clipped = jnp.clip(ratio, 1.0 - CLIP_RANGE, 1.0 + CLIP_RANGE)
    gain = jnp.minimum(ratio * batch.advantage, clipped * batch.advantage).mean()
    error = jnp.square(value - batch.value_target).mean()
    log_probs = jax.nn.log_softmax(logits)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
    return -gain + VALUE_COEF * error - entropy_coef * entropy


class RL2:
    """RL^2 for a number of lanes and pulls; its methods are pure, to be compiled."""

    def __init__(self, *, lanes: int, pulls: int, iterations: int) -> None:
        """Schedules run over `iterations`."""
        self._lanes, self._pulls, self._iterations = lanes, pulls, iterations
        rate = optax.linear_schedule(LEARNING_RATE, 0.0, iterations * EPOCHS * MINIBATCHES)
        self._optimiser = optax.chain(
            optax.clip_by_global_norm(MAX_GRAD_NORM), optax.adam(rate, eps=1e-5)
        )

    def start(self, key: Array, hidden_size: int) -> Learner:
        """An untrained learner."""
        network = new_network(key, hidden_size)
        return Learner(network, self._optimiser.init(network), jnp.zeros(()))

    def iteration(self, learner: Learner, key: Array) -> tuple[Learner, Array]:
        """Rollout and update; also the mean reward of a trial, []."""
        rollout_key, order_key = jax.random.split(key)
        experience = roll_out(learner.network, rollout_key, self._lanes, self._pulls)
        advantage = gae(experience.reward, experience.value)
        batch = Batch(
            inputs=experience.inputs,
            action=experience.action,
            log_prob=experience.log_prob,
            advantage=(advantage - advantage.mean()) / (advantage.std() + 1e-8),
            value_target=advantage + experience.value,
        )
        return self._update(learner, batch, order_key), experience.reward.sum(0).mean()

    def _update(self, learner: Learner, batch: Batch, key: Array) -> Learner:
        left = jnp.maximum(0.0, 1.0 - learner.updates / self._iterations)

        def descend(carry: tuple[Network, Any], lanes: Array) -> tuple[tuple[Network, Any], None]:
            network, optimiser = carry
            minibatch = Batch(*(value[:, lanes] for value in batch))
            gradient = jax.grad(loss)(network, minibatch, ENTROPY_COEF * left)
            change, optimiser = self._optimiser.update(gradient, optimiser, network)
            return (optax.apply_updates(network, change), optimiser), None

        orders = [jax.random.permutation(k, self._lanes) for k in jax.random.split(key, EPOCHS)]
        lanes = jnp.stack(orders).reshape(EPOCHS * MINIBATCHES, -1)
        (network, optimiser), _ = jax.lax.scan(descend, learner[:2], lanes)
        return Learner(network, optimiser, learner.updates + 1)
