"""RL^2 learns to name images from one example each: drawn characters, then digits it never saw.

Trained on drawn characters alone; measured on characters of unseen classes, and on scikit-learn's
handwritten digits, another kind of image altogether. (Digits have five classes for the training, a
single set of five.)

    python experiments/few_shot.py --seed 1           # some twenty minutes on one core

Digits need scikit-learn: the extra `few-shot`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from lived import changed, draw_steps, interval, lives, report, save, styled
from matplotlib.figure import Figure
from numpy.typing import NDArray

import metarl
from metarl.envs.few_shot.classification import FewShotClassification

TASK = "metarl/FewShotClassification-v0"
REFERENCES = ("nearest_prototype", "perfect_memory", "random")


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 on few-shot classification: train, measure on unseen classes, draw."""

    train_on: str = "glyphs"
    """images whose training classes are learnt from"""
    test_on: tuple[str, ...] = ("glyphs", "digits")
    """images whose test classes are met afterwards"""
    iterations: int | None = None
    """meta-iterations; by default those of the preset"""
    seed: int = 0
    """root of all randomness"""
    test_tasks: int = 5000
    """unseen tasks of each kind of image"""
    threads: int | None = None
    """CPU threads; by default torch's own choice"""
    out: Path | None = None
    """run folder; by default runs/rl2-FewShotClassification-v0-seedSEED"""
    results: Path | None = None
    """of the picture (.png, .svg) and the page (.md); by default in the run folder"""


def main(options: Options) -> None:
    """Train, measure, draw."""
    run = metarl.train(
        "rl2",
        TASK,
        preset="ways-5-shots-1",
        task_options={"images": options.train_on},
        seed=options.seed,
        threads=options.threads,
        out=options.out,
        resume=True,
        **changed(options.iterations),
    )
    right = {images: named_right(run, images, options.test_tasks) for images in options.test_on}
    support = FewShotClassification().support
    table = [("images", "who", "queries named right")]
    for images, by_label in right.items():
        for label, of_step in by_label.items():
            (mean,), (low,), (high,) = metarl.bootstrap_mean(of_step[support:].mean(0)[None, None])
            table.append((images, label, interval(mean, low, high)))
            print("{:8} {:40} queries named right {}".format(*table[-1]))
    out = options.results or run.path / "few-shot"
    with styled():
        pictures = save(accuracy_figure(right, support, options), out)
    title = f"Naming images of unseen classes after one example each, {options.test_tasks:,} tasks"
    print(report(out, title, table, [run]), *pictures, sep="\n")


def named_right(run: metarl.Run, images: str, num_tasks: int) -> dict[str, NDArray[np.float64]]:
    """By label: 1 where an image was named right, [T, N]."""
    family = metarl.make_family(TASK, images=images)
    return {life.label: life.rewards for life in lives(run, family, REFERENCES, num_tasks)}


def accuracy_figure(
    right: dict[str, dict[str, NDArray[np.float64]]], support: int, options: Options
) -> Figure:
    """A panel for each kind of image: how many are named right, at each place in the episode."""
    figure = Figure(figsize=(3.6 * len(right), 3.4), dpi=300, layout="constrained")
    panels = figure.subplots(1, len(right), sharey=True, squeeze=False)[0]
    for panel, (images, by_label) in zip(panels, right.items(), strict=True):
        draw_steps(panel, by_label, first=1)
        panel.axvspan(support + 0.5, panel.get_xlim()[1], color="0.95", zorder=-1)
        panel.set_title(f"{images}, unseen classes")
        panel.set_xlabel("image of the episode (grey: queries)")
    panels[0].set_ylabel("named right")
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
