"""RL^2 on the two-step task: train, evaluate, plot stay probabilities.

After Wang et al. 2018 (Nature Neuroscience 21, simulation 4), where an LSTM trained by a model-free
rule behaves as if it had a model of the task. The test: after a payout that follows a *rare*
transition, a model-free policy repeats its choice, and a model-based policy changes it.

    python experiments/two_step.py --seed 1          # about two minutes on one idle core

The mean reward of a round is .5 under random choices, .7059 under the exact Bayes optimum, and .74
under an oracle that knows every reversal. RL^2 comes within .01 of the optimum and has similar stay
probabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from reporting import (
    EVALUATION_SEED,
    evaluation_rollouts,
    figure_style,
    format_interval,
    iteration_options,
    save_figure,
    write_page,
)

import metarl
from metarl.envs.two_step.choices import rounds_of, stay_counts, stay_probabilities
from metarl.envs.two_step.two_step import TwoStep

RESAMPLES = 1000
"""bootstrap resamples of the tasks, for 95% intervals"""
TRANSITIONS = (("common", 1, "#0072B2", ""), ("rare", 0, "#E69F00", "///"))
"""name, column, colour-blind safe colour (Okabe and Ito 2008) and hatching (for print)"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 on the two-step task: train, evaluate on unseen tasks, plot stay probabilities."""

    rounds: int = 100
    """rounds of a trial"""
    seed: int = 0
    """root of all randomness"""
    iterations: int | None = None
    """meta-iterations; by default those of the preset"""
    test_tasks: int = 2000
    """unseen tasks that the final agent is evaluated on, one trial each"""
    out: Path | None = None
    """run folder; by default runs/rl2-TwoStep-v0-seedSEED"""
    results: Path | None = None
    """path of the figure (.png, .svg) and the page (.md); by default in the run folder"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    family = TwoStep(rounds=options.rounds)
    run = metarl.train(
        "rl2",
        "metarl/TwoStep-v0",
        preset="wang-2018",
        task_options={"rounds": options.rounds},
        seed=options.seed,
        out=options.out,
        resume=True,
        **iteration_options(options.iterations),
    )
    table = [("policy", "measure", "mean")]
    for curve in metarl.evaluate(
        run, num_tasks=options.test_tasks, seed=EVALUATION_SEED, progress=True
    ):
        (mean,), (low,), (high,) = metarl.bootstrap_mean(curve.returns[None] / options.rounds)
        table.append((curve.label, "reward of a round", format_interval(mean, low, high)))
    table.append(("chance", "reward of a round, exactly", ".5"))
    optimal, oracle = family.optimal_return(), family.oracle_return()
    table.append(("exact optimum", "reward of a round, exactly", f"{optimal / options.rounds:.4f}"))
    table.append(
        ("oracle, reversals known", "reward of a round, exactly", f"{oracle / options.rounds:.4f}")
    )
    stay_estimates = {
        rollout.label: stay_estimate(rollout.trajectory)
        for rollout in evaluation_rollouts(
            run, family, ("bayes_optimal", "win_stay"), options.test_tasks
        )
    }
    table += [
        (label, "stay probability", describe_stays(stays))
        for label, stays in stay_estimates.items()
    ]
    for cells in table:
        print("{:34} {:26} {}".format(*cells))
    out = options.results or run.path / "stay"
    with figure_style():
        figures = save_figure(stay_figure(stay_estimates, options.test_tasks), out)
    title = f"Stay probabilities in the two-step task, {options.test_tasks:,} unseen tasks"
    print(write_page(out, title, table, [run]), *figures, sep="\n")


def stay_estimate(trajectory: metarl.Trajectory) -> metarl.Estimate:
    """Stay probabilities [2 (payout), 2 (transition)] and their intervals, over tasks."""
    counts = stay_counts(rounds_of(trajectory)).sum(-1).double()  # [2, 2, 2, N]
    tasks = counts.shape[-1]
    drawn = np.random.default_rng(0).multinomial(tasks, np.full(tasks, 1 / tasks), RESAMPLES)
    resampled = stay_probabilities(counts @ counts.new_tensor(drawn.T)).numpy()
    # A resample can lack a cell that occurs in few trials.
    low, high = np.nanquantile(resampled, [0.025, 0.975], axis=-1)
    return metarl.Estimate(stay_probabilities(counts.sum(-1)).numpy(), low, high)


def describe_stays(stays: metarl.Estimate) -> str:
    """Such as: paid, common .98; paid, rare .60; ..."""
    return "; ".join(
        f"{paid}, {transition} {stays.mean[row, column]:.3f}"
        for paid, row in (("paid", 1), ("not paid", 0))
        for transition, column in (("common", 1), ("rare", 0))
    )


def stay_figure(stay_estimates: Mapping[str, metarl.Estimate], tasks: int) -> Figure:
    """A panel for each policy: its stay probabilities by payout and transition."""
    figure = Figure(figsize=(2.6 * len(stay_estimates), 3.2), dpi=300, layout="constrained")
    panels = figure.subplots(1, len(stay_estimates), sharey=True, squeeze=False)[0]
    for panel, (label, stays) in zip(panels, stay_estimates.items(), strict=True):
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
    panels[0].set_ylabel("stay probability")
    panels[0].set_ylim(0, 1)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel(f"{tasks:,} unseen tasks; error bars: 95% bootstrap intervals", fontsize=8)
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
