"""Measures the seconds of a meta-iteration of a gradient agent for several numbers of tasks.

    python experiments/benchmark_gradient.py             # 2 to 3 minutes on two CPU cores

Point navigation, 20 trajectories of 100 steps in each task before and after one inner step, TRPO
with ten conjugate-gradient steps, 2 x 64 tanh. "phases" is the time before the update: two rollouts
and the adaptation between them. Run it on an idle machine.
"""

import resource
import statistics
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import tyro

import metarl


@dataclass(frozen=True, kw_only=True)
class Options:
    """Seconds of a meta-iteration."""

    agent: str = "maml"
    """gradient agent"""
    tasks: tuple[int, ...] = (10, 20, 40, 80, 160)
    """tasks of a meta-iteration"""
    curvature_rollouts: int | None = None
    """trajectories (of 20) that estimate the curvature of the trust region; by default all"""
    repeats: int = 9
    """timed iterations; the median is printed, with the quartiles"""
    threads: int = 1
    """CPU threads"""
    device: str = "cpu"
    """torch device"""


def main(options: Options) -> None:
    """Prints one table."""
    if options.repeats < 2:
        raise SystemExit(f"--repeats {options.repeats} is too small for quartiles; use 2 or more.")
    print(f"{options.agent}, torch {torch.__version__}, {options.device}, curvature on ", end="")
    print(f"{options.curvature_rollouts or 'all'} trajectories")
    print(f"{'tasks':>6} {'seconds':>24} {'phases':>8} {'per task':>8} {'peak memory':>12}")
    for tasks in options.tasks:
        iterations, phases = seconds(tasks, options)
        low, median, high = statistics.quantiles(iterations, n=4)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{tasks:6d} {median:8.3f} ({low:.3f} to {high:.3f}) "
            f"{statistics.median(phases):8.3f} {median / tasks:8.4f} {memory:8.2f} GiB",
            flush=True,
        )


def seconds(tasks: int, options: Options) -> tuple[list[float], list[float]]:
    """Seconds of each iteration but the first, and of its part before the update."""
    rollouts = options.curvature_rollouts
    curvature: dict[str, Any] = {} if rollouts is None else {"curvature_rollouts": rollouts}
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
            **curvature,
        )
        rows = metarl.read_metrics(run.path / "metrics.csv")
    iterations, phases = [], []
    for before, row in pairwise(rows):
        steps = int(row["env_steps"]) - int(before["env_steps"])
        iterations.append(float(row["seconds"]) - float(before["seconds"]))
        phases.append(steps / float(row["rollout_steps_per_second"]))
    return iterations, phases


if __name__ == "__main__":
    main(tyro.cli(Options))
