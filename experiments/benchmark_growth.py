"""How the speed of training grows with lanes, pulls, hidden size and tasks.

    python experiments/benchmark_growth.py --results experiments/results/speed-growth

RL^2 on Bernoulli bandits, one size changed at a time, and MAML on point navigation. All sizes take
turns, round by round, in one process. Run it on an idle machine.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from matplotlib.figure import Figure
from reporting import figure_style, save_figure, write_text

import metarl

BANDIT, POINT = "metarl/BernoulliBandit-v0", "metarl/PointNavigation-v0"
WARM_UP_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Growth:
    """One size that is changed."""

    name: str
    agent: str
    task: str
    sizes: Sequence[int]
    agent_options: Mapping[str, Any] = field(default_factory=dict)
    of_task: bool = False
    """whether the size is an option of the family"""
    option: str
    title: str

    def workload(self, size: int) -> Callable[[], int]:
        """Takes environment steps, learns from them, and returns their number."""
        changed = {self.option: size}
        family = metarl.make_family(self.task, **(changed if self.of_task else {}))
        options = {**self.agent_options, **({} if self.of_task else changed)}
        config = metarl.agent_config(self.agent)(**options)
        work: Callable[[], int] = metarl.workloads(family, config, metarl.SpeedOptions()).train
        return work


GROWTHS = (
    Growth(
        name="lanes",
        agent="rl2",
        task=BANDIT,
        option="num_tasks",
        sizes=(64, 128, 256, 512, 1024, 2048, 4096),
        title="RL², 10 pulls, hidden size 64",
    ),
    Growth(
        name="pulls",
        agent="rl2",
        task=BANDIT,
        option="pulls",
        of_task=True,
        sizes=(5, 10, 25, 50, 100, 200),
        title="RL², 512 lanes, hidden size 64",
    ),
    Growth(
        name="hidden size",
        agent="rl2",
        task=BANDIT,
        option="hidden_size",
        sizes=(16, 32, 64, 128, 256),
        title="RL², 512 lanes, 10 pulls",
    ),
    Growth(
        name="tasks",
        agent="maml",
        task=POINT,
        option="num_tasks",
        agent_options={"rollouts_per_task": 20},
        sizes=(5, 10, 20, 40),
        title="MAML, 20 rollouts of 100 steps",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the speed of training grows with lanes, pulls, hidden size and tasks."""

    rounds: int = 5
    """measurements of each size"""
    seconds: float = 0.3
    """of each measurement, at least"""
    threads: int = 1
    """CPU threads"""
    smallest: int | None = None
    """measure only this number of the smallest sizes of each kind"""
    results: Path = Path("runs/speed-growth")
    """path of the figure (.png, .svg) and the page (.md)"""


def main(options: Options) -> None:
    """Measures, draws, writes."""
    metarl.keep_freed_memory()
    torch.set_num_threads(options.threads)
    rates = measure(options)
    lines = [
        "# Steps per second of training, by size",
        "",
        f"![Steps per second of training, by size]({options.results.name}.png)",
        "",
        f"Medians of {options.rounds} rounds (lowest to highest), all sizes in turn; "
        f"{options.threads} thread{'s' * (options.threads > 1)}, compiled library: "
        f"{metarl.compiled_library() or 'none'}. Written by `experiments/benchmark_growth.py`.",
    ]
    for growth in GROWTHS:
        lines += ["", f"| {growth.name} ({growth.title}) | steps per second |", "| --- | --- |"]
        for size, found in rates[growth.name].items():
            spread = f"{min(found):,.0f} to {max(found):,.0f}"
            lines.append(f"| {size} | {statistics.median(found):,.0f} ({spread}) |")
    lines += ["", *(f"- {name}: {value}" for name, value in metarl.describe_machine().items())]
    with figure_style():
        figures = save_figure(figure(rates), options.results)
    page = options.results.with_suffix(".md")
    write_text(page, "\n".join(lines) + "\n")
    print("\n".join(lines), page, *figures, sep="\n")


def measure(options: Options) -> dict[str, dict[int, list[float]]]:
    """Steps per second of each round, by the name of the growth and the size."""
    jobs = {
        (growth.name, size): growth.workload(size)
        for growth in GROWTHS
        for size in growth.sizes[: options.smallest]
    }
    rates: dict[str, dict[int, list[float]]] = {growth.name: {} for growth in GROWTHS}
    for number in range(options.rounds + WARM_UP_ROUNDS):
        for (name, size), work in jobs.items() if number % 2 else reversed(jobs.items()):
            rate = rate_of(work, options.seconds)
            if number >= WARM_UP_ROUNDS:
                rates[name].setdefault(size, []).append(rate)
    return {name: dict(sorted(found.items())) for name, found in rates.items()}


def rate_of(work: Callable[[], int], seconds: float) -> float:
    """Steps per second of some calls."""
    start, steps = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds or not steps:
        steps += work()
    return steps / passed


def figure(rates: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """A panel for each size that was changed."""
    drawn = Figure(figsize=(8.4, 2.6), dpi=200, layout="constrained")
    panels = drawn.subplots(1, len(GROWTHS))
    for panel, growth in zip(panels, GROWTHS, strict=True):
        found = rates[growth.name]
        sizes = list(found)
        middle = [statistics.median(each) / 1e3 for each in found.values()]
        low = [min(each) / 1e3 for each in found.values()]
        high = [max(each) / 1e3 for each in found.values()]
        panel.fill_between(sizes, low, high, color="#0072B2", alpha=0.2, linewidth=0)
        panel.plot(sizes, middle, color="#0072B2", marker="o", markersize=3.5)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes], fontsize=7, rotation=45)
        panel.set_xticks([], minor=True)
        panel.set_ylim(bottom=0)
        panel.set_xlabel(growth.name)
        panel.set_title(growth.title, fontsize=7)
    panels[0].set_ylabel("thousand steps per second")
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options))
