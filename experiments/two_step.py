"""RL^2 on the two-step task: train, earn, and show by what its choices are changed.

After Wang et al. 2018 (Nature Neuroscience 21, simulation 4), where an LSTM trained by a model-free
rule comes to choose as if it had a model of the task. What to look at: after a *rare* transition a
payout makes a model-free chooser stay, and one with a model leave.

    python experiments/two_step.py --seed 1          # about two minutes on one idle core

A round pays .5 by chance and .7059 under the exact Bayes optimum; .74 would take somebody who is
told of every reversal. RL^2 comes within .01 of the optimum, and stays when it does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from lived import EVALUATION_SEED, changed, interval, lives, report, save, styled
from matplotlib.figure import Figure

import metarl
from metarl.envs.two_step.choices import rounds_of, stay_counts, stay_probabilities
from metarl.envs.two_step.two_step import TwoStep

RESAMPLES = 1000
"""of the tasks, for 95% intervals"""
TRANSITIONS = (("common", 1, "#0072B2", ""), ("rare", 0, "#E69F00", "///"))
"""name, column, colour (Okabe and Ito 2008, for the colour-blind too) and hatching, for print"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 on the two-step task: train, evaluate on unseen lives, draw stay probabilities."""

    rounds: int = 100
    """rounds in the life of an agent: one trial"""
    seed: int = 0
    """root of all randomness"""
    iterations: int | None = None
    """meta-iterations; by default those of the preset"""
    test_tasks: int = 2000
    """unseen lives that the final agent is measured on"""
    out: Path | None = None
    """run folder; by default runs/rl2-TwoStep-v0-seedSEED"""
    results: Path | None = None
    """of the picture (.png, .svg) and the page (.md); by default in the run folder"""


def main(options: Options) -> None:
    """Train, evaluate, draw."""
    family = TwoStep(rounds=options.rounds)
    run = metarl.train(
        "rl2",
        "metarl/TwoStep-v0",
        preset="wang-2018",
        task_options={"rounds": options.rounds},
        seed=options.seed,
        out=options.out,
        resume=True,
        **changed(options.iterations),
    )
    table = [("who", "what", "mean")]
    for curve in metarl.evaluate(
        run, num_tasks=options.test_tasks, seed=EVALUATION_SEED, progress=True
    ):
        (mean,), (low,), (high,) = metarl.bootstrap_mean(curve.returns[None] / options.rounds)
        table.append((curve.label, "reward of a round", interval(mean, low, high)))
    table.append(("chance", "reward of a round, exactly", ".5"))
    optimal, told = family.optimal_return(), family.oracle_return()
    table.append(("exact optimum", "reward of a round, exactly", f"{optimal / options.rounds:.4f}"))
    table.append(
        ("told of every reversal", "reward of a round, exactly", f"{told / options.rounds:.4f}")
    )
    measured = {
        life.label: estimated(life.trajectory)
        for life in lives(run, family, ("bayes_optimal", "win_stay"), options.test_tasks)
    }
    table += [(label, "stays", described(stays)) for label, stays in measured.items()]
    for cells in table:
        print("{:34} {:26} {}".format(*cells))
    out = options.results or run.path / "stay"
    with styled():
        pictures = save(stay_figure(measured, options.test_tasks), out)
    title = f"When the two-step task is chosen alike again, in {options.test_tasks:,} unseen lives"
    print(report(out, title, table, [run]), *pictures, sep="\n")


def estimated(life: metarl.Trajectory) -> metarl.Estimate:
    """Stay probabilities [2 (payout), 2 (transition)] and their intervals, over tasks."""
    counts = stay_counts(rounds_of(life)).sum(-1).double()  # [2, 2, 2, N]
    tasks = counts.shape[-1]
    drawn = np.random.default_rng(0).multinomial(tasks, np.full(tasks, 1 / tasks), RESAMPLES)
    resampled = stay_probabilities(counts @ counts.new_tensor(drawn.T)).numpy()
    # A cell that is rare in few lives can be missing from a resample.
    low, high = np.nanquantile(resampled, [0.025, 0.975], axis=-1)
    return metarl.Estimate(stay_probabilities(counts.sum(-1)).numpy(), low, high)


def described(stays: metarl.Estimate) -> str:
    """Such as: paid, common .98; paid, rare .60; ..."""
    return "; ".join(
        f"{paid}, {transition} {stays.mean[row, column]:.3f}"
        for paid, row in (("paid", 1), ("not paid", 0))
        for transition, column in (("common", 1), ("rare", 0))
    )


def stay_figure(measured: Mapping[str, metarl.Estimate], tasks: int) -> Figure:
    """A panel for each chooser: how often it stays, by payout and transition."""
    figure = Figure(figsize=(2.6 * len(measured), 3.2), dpi=300, layout="constrained")
    panels = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
    for panel, (label, stays) in zip(panels, measured.items(), strict=True):
        for offset, (transition, column, colour, hatch) in zip(
            (-0.2, 0.2), TRANSITIONS, strict=True
        ):
            mean, low, high = (part[::-1, column] for part in stays)  # paid first
            panel.bar(
                np.arange(2) + offset,
                mean,
                width=0.36,
                yerr=np.abs([mean - low, high - mean]),
                color=colour,
                hatch=hatch,
                edgecolor="black",
                linewidth=0.6,
                error_kw={"linewidth": 1.0, "capsize": 3},
                label=f"{transition} transition",
            )
        panel.set_title(label)
        panel.set_xticks([0, 1], ["paid", "not paid"])
    panels[0].set_ylabel("probability to choose the same again")
    panels[0].set_ylim(0, 1)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel(f"bars: {tasks:,} unseen lives; 95% bootstrap intervals", fontsize=8)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
