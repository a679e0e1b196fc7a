"""Every agent beside its negative control: does the last episode beat the first, and only there?

Each agent is trained on two families, and so is its control: the same agent without what it adapts
with, which is its memory, its context, or the rates of its inner steps. Meta-LSTM learns its rates,
whatever they are at first; its control is MAML at rate 0. The gain of a trial is its
last episode minus its first or, of a gradient agent, after its last inner step minus before the
first.

    python experiments/adaptation_controls.py                 # an hour on one core; resumable
    python experiments/adaptation_controls.py --only versa pearl

Settings are chosen for minutes, not for the best return. All numbers are of final models, in unseen
tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reporting import (
    EVALUATION_SEED,
    figure_style,
    format_interval,
    half_interval,
    iteration_options,
    save_figure,
    write_page,
)

import metarl

BANDIT, GRID = "metarl/BernoulliBandit-v0", "metarl/GridNavigation-v0"
POINT, SPARSE = "metarl/PointNavigation-v0", "metarl/SparsePointNavigation-v0"
SINUSOID = "metarl/Sinusoid-v0"
BLIND = {"memory": "none"}
NO_STEP = {"inner_lr": 0.0, "shared_lr": 0.0}
SMALL = {
    BANDIT: {"num_tasks": 256, "iterations": 300},
    GRID: {"num_tasks": 128, "iterations": 200},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One agent on one family, and what its control lacks."""

    agent: str
    task: str
    control: Mapping[str, Any]
    control_agent: str | None = None
    """by default the agent itself"""
    options: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    label: str = ""
    """where the agent's name does not tell its memory"""

    @property
    def name(self) -> str:
        """Of the run folder."""
        return f"{self.label or self.agent}-{metarl.make_family(self.task).__class__.__name__}"


def in_memory(agent: str, label: str = "", **options: Any) -> list[Case]:
    """An agent that adapts in memory, on a bandit and in a grid."""
    return [
        Case(agent=agent, task=task, control=BLIND, options={**SMALL[task], **options}, label=label)
        for task in (BANDIT, GRID)
    ]


CASES = (
    *in_memory("rl2", "transformer", memory="transformer", learning_rate=1e-3),
    *in_memory("matching_networks"),
    *in_memory("prototypical_networks"),
    *in_memory("versa"),
    *in_memory("varibad"),
    *in_memory("dpt"),
    Case(agent="pearl", task=SPARSE, preset="episodes-6", control={"context": "none"}),
    Case(
        agent="pearl",
        task=POINT,
        control={"context": "none"},
        options={"iterations": 100, "gradient_steps": 40, "batch_size": 64, "gamma": 0.9}
        | {"learning_rate": 1e-3, "episodes": 3, "polyak": 0.01},
    ),
    Case(
        agent="meta_lstm",
        task=SINUSOID,
        preset="supervised-shots-5",
        control={"inner_lr": 0.0},
        control_agent="maml",
    ),
    Case(
        agent="meta_lstm",
        task=POINT,
        control={"inner_lr": 0.0},
        control_agent="maml",
        options={"iterations": 40, "inner_lr": 0.5, "curvature_rollouts": 5, "damping": 1e-5}
        | {"later_lr_scale": 0.4, "later_lr_decay": 0.5},
    ),
    Case(
        agent="platipus",
        task=POINT,
        control=NO_STEP,
        options={"iterations": 40, "inner_lr": 0.5, "curvature_rollouts": 5, "damping": 1e-5}
        | {"later_lr_scale": 0.4, "later_lr_decay": 0.5},
    ),
    Case(
        agent="platipus",
        task=SPARSE,
        preset="hypotheses-4",
        control=NO_STEP,
        options={"iterations": 50},
    ),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every agent beside its negative control, on two families."""

    only: tuple[str, ...] = ()
    """agents, or memories such as transformer; by default all"""
    iterations: int | None = None
    """meta-iterations of each; by default those of the settings"""
    seed: int = 0
    """root of all randomness"""
    test_tasks: int = 1000
    """unseen tasks"""
    threads: int = 1
    """CPU threads"""
    out: Path = Path("runs/adaptation-controls")
    """parent of the run folders"""
    results: Path | None = None
    """path of the figure (.png, .svg) and the page (.md); by default in that folder"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The final agent of a run in unseen tasks."""

    run: metarl.Run
    label: str
    first: NDArray[np.float64]  # [N] returns
    last: NDArray[np.float64]  # [N]

    @property
    def gain(self) -> tuple[float, float]:
        """Mean of last minus first over tasks, and half its 95% interval."""
        difference = self.last - self.first
        return float(difference.mean()), half_interval(difference)

    @property
    def gain_cell(self) -> str:
        """The gain as text."""
        mean, half = self.gain
        return format_interval(mean, mean - half, mean + half, 2)


def main(options: Options) -> None:
    """Trains the missing runs, evaluates all, writes table and figure."""
    known = {each.label or each.agent for each in CASES}
    if unknown := set(options.only) - known:
        raise SystemExit(
            f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(sorted(known))}."
        )
    chosen = [each for each in CASES if not options.only or each.name.split("-")[0] in options.only]
    pairs: list[tuple[Case, Measured, Measured]] = []
    for case in chosen:
        pairs.append((case, measure(case, options), measure(case, options, control=True)))
        print(*row(*pairs[-1]), sep=" | ", flush=True)
    out = options.results or options.out / "adaptation-controls"
    title = f"Agents beside their negative controls, {options.test_tasks:,} unseen tasks"
    heading = (
        "agent",
        "family",
        "first",
        "last",
        "gain (normal interval)",
        "gain of the control",
        "control",
    )
    with figure_style():
        figures = save_figure(figure(pairs, title), out)
    runs = [measured.run for _, *both in pairs for measured in both]
    page = write_page(out, title, [heading, *(row(*pair) for pair in pairs)], runs)
    print(page, *figures, sep="\n")


def measure(case: Case, options: Options, *, control: bool = False) -> Measured:
    """Trains the agent of a case, or its control, and evaluates it."""
    run = metarl.train(
        case.control_agent or case.agent if control else case.agent,
        case.task,
        preset=case.preset,
        seed=options.seed,
        threads=options.threads,
        out=options.out / f"{case.name}{'-control' * control}-seed{options.seed}",
        resume=True,
        **{
            **case.options,
            **(case.control if control else {}),
            **iteration_options(options.iterations),
        },
    )
    curve, *_ = metarl.evaluate(
        run, num_tasks=options.test_tasks, seed=EVALUATION_SEED, references=False, progress=True
    )
    return Measured(run=run, label=curve.label, first=curve.returns[0], last=curve.returns[-1])


def row(case: Case, agent: Measured, control: Measured) -> tuple[str, ...]:
    """Cells of the table."""
    return (
        agent.label,
        metarl.make_family(case.task).__class__.__name__,
        f"{agent.first.mean():.2f}",
        f"{agent.last.mean():.2f}",
        agent.gain_cell,
        control.gain_cell,
        ", ".join(
            (
                *((case.control_agent,) if case.control_agent else ()),
                *(f"{name}={value}" for name, value in case.control.items()),
            )
        ),
    )


def figure(pairs: list[tuple[Case, Measured, Measured]], title: str) -> Figure:
    """Gains in units of the first returns' deviation over tasks, which families share."""
    drawn = Figure(figsize=(6.4, 1.2 + 0.3 * len(pairs)), dpi=200, layout="constrained")
    panel = drawn.subplots()
    places = np.arange(len(pairs))[::-1]
    for column, (label, color, marker) in enumerate(
        (("agent", "#0072B2", "o"), ("negative control", "#D55E00", "s"))
    ):
        gains = []
        for _, *both in pairs:
            mean, half = both[column].gain
            unit = max(float(both[0].first.std()), 1e-9)
            gains.append((mean / unit, half / unit))
        mean, half = np.array(gains).T
        panel.errorbar(
            mean, places, xerr=half, fmt=marker, color=color, markersize=5, capsize=2, label=label
        )
    panel.axvline(0.0, color="0.6", linewidth=0.8)
    names = [f"{agent.label}, {row(case, agent, other)[1]}" for case, agent, other in pairs]
    panel.set_yticks(places, names, fontsize=7)
    panel.set_xlabel("last minus first episode, in units of the first episode's deviation")
    panel.set_title(title)
    panel.legend(frameon=False, fontsize=7)
    return drawn


if __name__ == "__main__":
    main(tyro.cli(Options))
