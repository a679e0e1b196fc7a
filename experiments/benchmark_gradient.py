"""How long a meta-iteration of a gradient agent takes here, and how that grows with the tasks.

    python experiments/benchmark_gradient.py             # 2 to 3 minutes on two CPU cores

Point navigation, 20 trajectories of 100 steps in each task before and after one inner step, TRPO
with ten conjugate-gradient steps, 2 x 64 tanh. "phases" is all that comes before the update: living
twice, and adapting. Leave the machine idle: nothing else may run beside it.
"""

import resource
import statistics
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import metarl  # isort: skip  (before torch, whose waiting threads it teaches to sleep)
import torch
import tyro


@dataclass(frozen=True, kw_only=True)
class Options:
    """Seconds of a meta-iteration."""

    agent: str = "maml"
    """gradient agent"""
    tasks: tuple[int, ...] = (10, 20, 40, 80, 160)
    """tasks of a meta-iteration"""
    curvature_rollouts: int | None = None
    """of 20 trajectories, on how many the curvature of the trust region is measured"""
    repeats: int = 9
    """timed iterations; the median is printed, with the quartiles"""
    threads: int | None = None
    """CPU threads; by default torch's own choice"""
    device: str = "cpu"
    """torch device"""


def main(options: Options) -> None:
    """Prints one table."""
    if options.repeats < 2:
        raise SystemExit(f"--repeats {options.repeats} leaves no spread to print; take 2 or more.")
    print(f"{options.agent}, torch {torch.__version__}, {options.device}, curvature on ", end="")
    print(f"{options.curvature_rollouts or 'all'} copies")
    print(f"{'tasks':>6} {'seconds':>24} {'phases':>8} {'a task':>8} {'peak memory':>12}")
    for tasks in options.tasks:
        whole, phases = seconds(tasks, options)
        low, median, high = statistics.quantiles(whole, n=4)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{tasks:6d} {median:8.3f} ({low:.3f} to {high:.3f}) "
            f"{statistics.median(phases):8.3f} {median / tasks:8.4f} {memory:8.2f} GiB",
            flush=True,
        )


def seconds(tasks: int, options: Options) -> tuple[list[float], list[float]]:
    """Of each iteration but the first, and of its part before the update."""
    copies = options.curvature_rollouts
    chosen: dict[str, Any] = {} if copies is None else {"curvature_rollouts": copies}
    with tempfile.TemporaryDirectory() as folder:
        run = metarl.train(
            options.agent,
            "metarl/PointNavigation-v0",
            num_tasks=tasks,
            rollouts_per_task=20,
            adaptation_steps=1,
            iterations=options.repeats + 1,
            out=Path(folder) / "run",
            threads=options.threads,
            device=options.device,
            progress=False,
            **chosen,
        )
        rows = metarl.read_metrics(run.path / "metrics.csv")
    whole, phases = [], []
    for before, row in pairwise(rows):
        steps = int(row["env_steps"]) - int(before["env_steps"])
        whole.append(float(row["seconds"]) - float(before["seconds"]))
        phases.append(steps / float(row["rollout_steps_per_second"]))
    return whole, phases


if __name__ == "__main__":
    main(tyro.cli(Options))
