"""Steps per second of one process, of several that train together, and of as many threads.

    python experiments/benchmark_ranks.py --out experiments/results/ranks

Each is a training of its own, started as a user would: alone, by `torchrun`, and with `--threads`.
They take turns in rounds, so that a busy spell of the machine meets all of them. The first
iterations, in which memory is allocated, are left out.
"""

import csv
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from reporting import write_text

import metarl

LEFT_OUT = 3
"""first iterations of each training"""
WORKLOADS = {
    "rl2, bandit of 10 pulls, 512 tasks": (
        "rl2 metarl/BernoulliBandit-v0 --task.pulls 10 --num-tasks 512",
        40,
    ),
    "rl2, bandit of 100 pulls, 512 tasks": (
        "rl2 metarl/BernoulliBandit-v0 --task.pulls 100 --num-tasks 512",
        8,
    ),
    "maml, point navigation, 20 tasks x 20 rollouts": (
        "maml metarl/PointNavigation-v0 --num-tasks 20 --rollouts-per-task 20",
        8,
    ),
}
"""arguments and iterations, by name"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """One process, several, and as many threads."""

    ranks: int = 2
    """processes that train together; also the number of threads"""
    rounds: int = 5
    """trainings of each kind"""
    out: Path | None = None
    """writes a page (.md) of this name"""


def main(options: Options) -> None:
    """Measures, prints a table, and writes it."""
    lines = ["| workload | one process | processes together | threads of one process |"]
    lines.append("|---" * 4 + "|")
    for name, (arguments, iterations) in WORKLOADS.items():
        speeds: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for kind, (command, threads) in commands(options.ranks).items():
                speed = steps_per_second([*command, *arguments.split(), *threads], iterations)
                speeds.setdefault(kind, []).append(speed)
        lines.append(f"| {name} | {' | '.join(cells(list(speeds.values())))} |")
        print(lines[-1], flush=True)
    if options.out is not None:
        write_text(options.out.with_suffix(".md"), page(options, lines))


def commands(ranks: int) -> dict[str, tuple[list[str], list[str]]]:
    """The words before and after agent, task and options, by kind of training."""
    train = ["-m", "metarl", "train"]
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    return {
        "one": ([sys.executable, *train], []),
        "ranks": ([sys.executable, *torchrun, *train], []),
        "threads": ([sys.executable, *train], ["--threads", str(ranks)]),
    }


def steps_per_second(command: list[str], iterations: int) -> float:
    """The median over the iterations of one training."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        length = ["--iterations", str(iterations + LEFT_OUT), "--no-progress", "--out", str(run)]
        ended = subprocess.run([*command, *length], capture_output=True, text=True)
        if ended.returncode:
            raise SystemExit(f"{' '.join([*command, *length])}\n{ended.stderr}")
        with open(run / "metrics.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))[LEFT_OUT:]
    return statistics.median(float(row["steps_per_second"]) for row in rows)


def cells(speeds: list[list[float]]) -> list[str]:
    """Median speed and range; and its ratio to the first kind, round by round."""
    texts = []
    for each in speeds:
        text = f"{statistics.median(each):,.0f} ({min(each):,.0f} to {max(each):,.0f})"
        if each is not speeds[0]:
            ratios = [one / alone for one, alone in zip(each, speeds[0], strict=True)]
            text += f"; {statistics.median(ratios):.2f} times"
        texts.append(text)
    return texts


def page(options: Options, table: list[str]) -> str:
    """The results with the machine."""
    machine = "\n".join(f"- {name}: {value}" for name, value in metarl.describe_machine().items())
    return (
        f"# {options.ranks} processes that train together\n\nEnvironment steps per second of "
        f"training, median (range) of {options.rounds} interleaved rounds, and the median ratio to "
        f"one process.\n\n" + "\n".join(table) + f"\n\n{machine}\n\nMade by "
        "`experiments/benchmark_ranks.py`.\n"
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
