"""A worker of benchmark_peers.py: gymnax's Bernoulli bandit under random actions, compiled.

It has two arms instead of five. gymnax wants an older Gymnasium than metarl is tested with, so it
needs a virtual environment of its own.

    python experiments/worker_gymnax.py env LANES HIDDEN_SIZE PULLS
"""

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import gymnax
import jax
from jax import Array
from turns import Job, serve


def workload(job: Job) -> Callable[[], int]:
    """A function that takes environment steps and returns their number."""
    env, parameters = gymnax.make("BernoulliBandit-misc")
    actions = env.action_space(parameters)
    reset = jax.vmap(env.reset, (0, None))
    advance = jax.vmap(env.step, (0, 0, 0, None))

    def trials(key: Array) -> Any:
        reset_key, key = jax.random.split(key)
        _, start = reset(jax.random.split(reset_key, job.lanes), parameters)

        def step(state: Any, key: Array) -> Any:
            act_keys, step_keys = jax.random.split(key, (2, job.lanes))
            action = jax.vmap(actions.sample)(act_keys)
            obs, state, reward, *_ = advance(step_keys, state, action, parameters)
            return state, (obs, action, reward)

        return jax.lax.scan(step, start, jax.random.split(key, job.pulls))[1]

    run = jax.jit(trials)
    key = jax.random.key(0)

    def work() -> int:
        nonlocal key
        key, now = jax.random.split(key)
        jax.block_until_ready(run(now))
        return job.lanes * job.pulls

    return work


if __name__ == "__main__":
    serve(
        workload(Job.from_arguments(sys.argv[1:])),
        {"gymnax": version("gymnax"), "jax": jax.__version__},
    )
