"""A worker of benchmark_peers.py: the JAX port of RL^2, compiled.

python experiments/worker_jax.py WORK LANES HIDDEN_SIZE PULLS
"""

import sys
from collections.abc import Callable
from functools import partial

import jax
import jax_rl2
import optax
from jax import Array
from turns import Job, serve

CALLS_AT_ONCE = 4
"""iterations in one call of the compiled program, which hides the cost of calling it"""


def workload(job: Job) -> Callable[[], int]:
    """A function that takes environment steps and returns their number."""
    agent = jax_rl2.RL2(lanes=job.lanes, pulls=job.pulls, iterations=1_000_000)
    learner = agent.start(jax.random.key(0), job.hidden_size)
    sizes = {"lanes": job.lanes, "pulls": job.pulls}
    roll_out = partial(jax_rl2.roll_out, learner.network, **sizes)
    key = jax.random.key(1)

    def train(learner: jax_rl2.Learner, keys: Array) -> tuple[jax_rl2.Learner, Array]:
        learner, reward = jax.lax.scan(agent.iteration, learner, keys)
        return learner, reward

    runs = {
        "train": jax.jit(train, donate_argnums=0),
        "rollout": jax.jit(lambda none, keys: (none, jax.lax.map(roll_out, keys))),
        "env": jax.jit(
            lambda none, keys: (none, jax.lax.map(partial(jax_rl2.random_trials, **sizes), keys))
        ),
    }
    carry = learner if job.work == "train" else None

    def work() -> int:
        nonlocal key, carry
        key, now = jax.random.split(key)
        carry, result = runs[job.work](carry, jax.random.split(now, CALLS_AT_ONCE))
        jax.block_until_ready((carry, result))
        return CALLS_AT_ONCE * job.lanes * job.pulls

    return work


if __name__ == "__main__":
    serve(
        workload(Job.from_arguments(sys.argv[1:])),
        {"jax": jax.__version__, "optax": optax.__version__},
    )
