"""RL^2 and MAML on few-shot regression of sine waves: squared errors fall as experience grows.

RL^2 reads the true values of the first points and has learnt what to make of them; MAML takes
gradient steps on the rewards of whole episodes, which say how far off a prediction was and not to
which side, so that it needs more of them.

    python experiments/sinusoid.py --seed 1           # some ten minutes on one idle core

Waves as in Finn et al. 2017 (arXiv:1703.03400, section 5.1), where a gradient step sees true
values; errors here are not comparable with theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from lived import (
    EVALUATION_SEED,
    changed,
    draw_steps,
    intervals,
    lives,
    report,
    save,
    styled,
)
from matplotlib.figure import Figure
from numpy.typing import NDArray

import metarl

TASK = "metarl/Sinusoid-v0"
SHOTS, QUERIES = 5, 5
REFERENCES = ("bayesian_fit", "prior", "zero")
STEPS = 5
"""gradient steps that are shown"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """RL^2 and MAML on sine waves: train, measure on unseen waves, draw."""

    iterations: int | None = None
    """meta-iterations of each; by default those of the presets"""
    seed: int = 0
    """root of all randomness"""
    test_tasks: int = 2000
    """unseen waves"""
    threads: int | None = None
    """CPU threads; by default torch's own choice"""
    out: Path = Path("runs/sinusoid")
    """folder of both runs"""
    results: Path | None = None
    """of the picture (.png, .svg) and the page (.md); by default in that folder"""


def main(options: Options) -> None:
    """Train, measure, draw."""
    rl2, maml = trained("rl2", options), trained("maml", options)
    family = metarl.make_family(TASK, shots=SHOTS, queries=QUERIES)
    by_point = {
        life.label: -life.rewards for life in lives(rl2, family, REFERENCES, options.test_tasks)
    }
    agent, *_ = metarl.evaluate(
        maml,
        num_tasks=options.test_tasks,
        seed=EVALUATION_SEED,
        agent_options={"evaluation_steps": STEPS},
        references=False,
        progress=True,
    )
    by_step = {agent.label: -agent.returns / family.episode_steps}
    table = [("who", "when", "squared error")]
    for label, error in by_point.items():
        table.append((label, "queries", intervals(error[SHOTS:].mean(0)[None, None])))
    table.append((agent.label, "after 0, 1, ... steps", intervals(by_step[agent.label][None])))
    for cells in table:
        print("{:24} {:22} {}".format(*cells))
    out = options.results or options.out / "sinusoid"
    with styled():
        pictures = save(error_figure(by_point, by_step, agent.episode - 1, options), out)
    title = f"Predicting {options.test_tasks:,} unseen sine waves"
    print(report(out, title, table, [rl2, maml]), *pictures, sep="\n")


def trained(agent: str, options: Options) -> metarl.Run:
    """A run of an agent: lived, resumed or known."""
    return metarl.train(
        agent,
        TASK,
        preset="shots-5",
        seed=options.seed,
        threads=options.threads,
        out=options.out / f"{agent}-seed{options.seed}",
        resume=True,
        **changed(options.iterations),
    )


def error_figure(
    by_point: Mapping[str, NDArray[np.float64]],
    by_step: Mapping[str, NDArray[np.float64]],
    episodes: NDArray[np.int64],
    options: Options,
) -> Figure:
    """Squared errors: of who has a memory, point by point; of MAML, step by step."""
    figure = Figure(figsize=(7.6, 3.4), dpi=300, layout="constrained")
    points, steps = figure.subplots(1, 2, sharey=True)
    draw_steps(points, by_point)
    points.set_xlabel(f"points seen before (values of the first {SHOTS} were shown)")
    points.set_ylabel("squared error")
    draw_steps(steps, by_step)
    steps.set_xlabel(f"gradient steps, {episodes[1]} episodes of experience each")
    points.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=len(by_point) + 1, frameon=False)
    figure.supxlabel(
        f"means of {options.test_tasks:,} unseen waves, 95% bootstrap intervals", fontsize=8
    )
    return figure


if __name__ == "__main__":
    main(tyro.cli(Options))
