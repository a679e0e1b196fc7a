"""A worker of benchmark_peers.py: sb3-contrib's recurrent PPO, whose episodes are trials.

It steps metarl's bandits through `metarl.to_sb3_vec_env`, so it needs this project, too.

    python experiments/worker_sb3.py train LANES HIDDEN_SIZE PULLS
"""

import sys
from collections.abc import Callable
from importlib.metadata import version

from sb3_contrib import RecurrentPPO
from turns import Job, serve

import metarl


def workload(job: Job) -> Callable[[], int]:
    """A function that takes environment steps and returns their number."""
    env = metarl.to_sb3_vec_env(
        "metarl/BernoulliBandit-v0", job.lanes, trial=True, seed=0, pulls=job.pulls
    )
    size = job.hidden_size
    model = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        n_steps=job.pulls,
        batch_size=job.pulls * job.lanes // 4,
        n_epochs=4,
        learning_rate=3e-3,
        policy_kwargs={
            "lstm_hidden_size": size,
            "net_arch": [size],
            "shared_lstm": True,
            "enable_critic_lstm": False,
        },
        seed=0,
        device="cpu",
    )
    steps = job.lanes * job.pulls

    def work() -> int:
        model.learn(steps, reset_num_timesteps=False)
        return steps

    return work


if __name__ == "__main__":
    serve(
        workload(Job.from_arguments(sys.argv[1:])),
        {name: version(name) for name in ("sb3-contrib", "torch")},
    )
