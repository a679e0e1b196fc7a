"""A worker of benchmark_peers.py: metarl's RL^2.

With `METARL_NATIVE=0` in the environment everything is computed in torch.

    python experiments/worker_metarl.py WORK LANES HIDDEN_SIZE PULLS THREADS
"""

import sys
from collections.abc import Callable

import torch
from turns import Job, serve

import metarl


def workload(job: Job) -> Callable[[], int]:
    """A function that takes environment steps and returns their number."""
    family = metarl.make_family("metarl/BernoulliBandit-v0", pulls=job.pulls)
    sizes: dict[str, int] = {"num_tasks": job.lanes, "hidden_size": job.hidden_size}
    config = metarl.agent_config("rl2")(**sizes)
    work: Callable[[], int] = getattr(
        metarl.workloads(family, config, metarl.SpeedOptions()), job.work
    )
    return work


if __name__ == "__main__":
    *arguments, threads = sys.argv[1:]
    metarl.keep_freed_memory()  # as `metarl.train` does
    torch.set_num_threads(int(threads))
    serve(
        workload(Job.from_arguments(arguments)),
        {
            "metarl": metarl.__version__,
            "torch": torch.__version__,
            "compiled library": metarl.compiled_library() or "none",
        },
    )
