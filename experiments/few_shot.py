"""RL^2 on one-shot image classification: trained on drawn characters, tested on other classes.

The agent is trained on drawn characters only. It is evaluated on characters of unseen classes and
on scikit-learn's handwritten digits, a different image domain. (Of the digits only five classes
are training classes, which is a single task.)

    python experiments/few_shot.py --seed 1           # about twenty minutes on one core

Digits need scikit-learn: the extra `few-shot`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reporting import (
    draw_steps,
    evaluation_rollouts,
    figure_style,
    format_interval,
    iteration_options,
    save_figure,
    write_page,
)

import metarl
from metarl.envs.few_shot.classification import FewShotClassification

TASK = "metarl/FewShotClassification-v0"
REFERENCES = ("nearest_prototype", "perfect_memory", "random")


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 on few-shot classification: train, evaluate on unseen classes, plot."""

    train_on: str = "glyphs"
    """image set whose training classes are used for training"""
    test_on: tuple[str, ...] = ("glyphs", "digits")
    """image sets whose test classes are used for evaluation"""
    iterations: int | None = None
    """meta-iterations; by default those of the preset"""
    seed: int = 0
    """root of all randomness"""
    test_tasks: int = 5000
    """unseen tasks of each image set"""
    threads: int = 1
    """CPU threads"""
    out: Path | None = None
    """run folder; by default runs/rl2-FewShotClassification-v0-seedSEED"""
    results: Path | None = None
    """path of the figure (.png, .svg) and the page (.md); by default in the run folder"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    run = metarl.train(
        "rl2",
        TASK,
        preset="ways-5-shots-1",
        task_options={"images": options.train_on},
        seed=options.seed,
        threads=options.threads,
        out=options.out,
        resume=True,
        **iteration_options(options.iterations),
    )
    correct = {
        images: correct_labels(run, images, options.test_tasks) for images in options.test_on
    }
    support = FewShotClassification().support
    table = [("images", "policy", "query accuracy")]
    for images, by_policy in correct.items():
        for label, by_step in by_policy.items():
            (mean,), (low,), (high,) = metarl.bootstrap_mean(by_step[support:].mean(0)[None, None])
            table.append((images, label, format_interval(mean, low, high)))
            print("{:8} {:40} query accuracy {}".format(*table[-1]))
    out = options.results or run.path / "few-shot"
    with figure_style():
        figures = save_figure(accuracy_figure(correct, support, options), out)
    title = f"One-shot classification of unseen classes, {options.test_tasks:,} tasks"
    print(write_page(out, title, table, [run]), *figures, sep="\n")


def correct_labels(run: metarl.Run, images: str, num_tasks: int) -> dict[str, NDArray[np.float64]]:
    """For the agent and each reference: 1 where an image was classified correctly, [T, N]."""
    family = metarl.make_family(TASK, images=images)
    rollouts = evaluation_rollouts(run, family, REFERENCES, num_tasks)
    return {rollout.label: rollout.rewards for rollout in rollouts}


def accuracy_figure(
    correct: dict[str, dict[str, NDArray[np.float64]]], support: int, options: Options
) -> Figure:
    """A panel for each image set: the accuracy at each image of the episode."""
    figure = Figure(figsize=(3.6 * len(correct), 3.4), dpi=300, layout="constrained")
    panels = figure.subplots(1, len(correct), sharey=True, squeeze=False)[0]
    for panel, (images, by_policy) in zip(panels, correct.items(), strict=True):
        draw_steps(panel, by_policy, first=1)
        panel.axvspan(support + 0.5, panel.get_xlim()[1], color="0.95", zorder=-1)
        panel.set_title(f"{images}, unseen classes")
        panel.set_xlabel("image of the episode (grey: queries)")
    panels[0].set_ylabel("accuracy")
    panels[0].set_ylim(0, 1.02)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.supxlabel(
        f"trained on {options.train_on}; means of {options.test_tasks:,} unseen tasks, 95% "
        "bootstrap intervals",
        fontsize=8,
    )
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
