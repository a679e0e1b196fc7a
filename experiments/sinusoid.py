"""Few-shot regression of sine waves: squared error against experience.

RL^2 observes the true values of the first points. MAML learns in two ways: from rewards of whole
episodes, which give the size of an error but not its sign, and from the true values, as published.
The published protocol takes all gradient steps on the same five points; MAML, Meta-SGD and
Meta-LSTM are measured by it.

    python experiments/sinusoid.py --seed 1           # about a quarter of an hour on one idle core

The waves are those of Finn et al. 2017 (arXiv:1703.03400, section 5.1). Published squared errors
after 1, 5 and 10 gradient steps on five points: .67, .38, .35 (MAML).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reporting import (
    EVALUATION_SEED,
    draw_steps,
    evaluation_rollouts,
    figure_style,
    format_intervals,
    iteration_options,
    save_figure,
    write_page,
)

import metarl

TASK = "metarl/Sinusoid-v0"
SHOTS, QUERIES = 5, 5
REFERENCES = ("bayesian_fit", "prior", "zero")
STEPS = 5
"""gradient steps on rewards in the evaluation"""
SUPERVISED = ("maml", "meta_sgd", "meta_lstm")
GRADIENT_STEPS = (0, 1, 5, 10)
"""gradient steps on the values of the same points"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Agents on sine waves: train, evaluate on unseen waves, plot."""

    iterations: int | None = None
    """meta-iterations of each; by default those of the presets"""
    seed: int = 0
    """root of all randomness"""
    test_tasks: int = 2000
    """unseen waves"""
    threads: int = 1
    """CPU threads"""
    out: Path = Path("runs/sinusoid")
    """parent of the run folders"""
    results: Path | None = None
    """path of the figure (.png, .svg) and the page (.md); by default in that folder"""


def main(options: Options) -> None:
    """Train, evaluate, plot."""
    rl2, maml = (train(agent, "shots-5", options) for agent in ("rl2", "maml"))
    supervised = [train(agent, "supervised-shots-5", options) for agent in SUPERVISED]
    family = metarl.make_family(TASK, shots=SHOTS, queries=QUERIES)
    rollouts = evaluation_rollouts(rl2, family, REFERENCES, options.test_tasks)
    by_point = {rollout.label: -rollout.rewards for rollout in rollouts}
    agent, *_ = metarl.evaluate(
        maml,
        num_tasks=options.test_tasks,
        seed=EVALUATION_SEED,
        agent_options={"evaluation_steps": STEPS},
        references=False,
        progress=True,
    )
    by_step = {agent.label: -agent.returns / family.episode_steps}
    table = [("policy", "measured", "squared error")]
    for label, error in by_point.items():
        table.append((label, "queries", format_intervals(error[SHOTS:].mean(0)[None, None])))
    table.append(
        (agent.label, "after 0, 1, ... steps", format_intervals(by_step[agent.label][None]))
    )
    for run in supervised:
        label, errors = supervised_errors(run, options.test_tasks)
        steps = f"after {', '.join(map(str, GRADIENT_STEPS))} steps, same points"
        table.append((label, steps, format_intervals(errors[None])))
    for cells in table:
        print("{:24} {:32} {}".format(*cells))
    out = options.results or options.out / "sinusoid"
    with figure_style():
        figures = save_figure(error_figure(by_point, by_step, agent.episode - 1, options), out)
    title = f"Predicting {options.test_tasks:,} unseen sine waves"
    print(write_page(out, title, table, [rl2, maml, *supervised]), *figures, sep="\n")


def supervised_errors(run: metarl.Run, num_tasks: int) -> tuple[str, NDArray[np.float64]]:
    """The agent's label, and its squared error at queries after each number of steps, [P, N]."""
    errors = []
    for steps in GRADIENT_STEPS:
        curve, *_ = metarl.evaluate(
            run,
            num_tasks=num_tasks,
            seed=EVALUATION_SEED,
            agent_options={"gradient_steps": max(steps, 1), "evaluation_steps": min(steps, 1)},
            references=False,
        )
        errors.append(-curve.returns[-1] / QUERIES)
    return run.config.make_agent_config().label, np.stack(errors)


def train(agent: str, preset: str, options: Options) -> metarl.Run:
    """The run of an agent: trained, resumed or already complete."""
    return metarl.train(
        agent,
        TASK,
        preset=preset,
        seed=options.seed,
        threads=options.threads,
        out=options.out / f"{agent}-{preset}-seed{options.seed}",
        resume=True,
        **iteration_options(options.iterations),
    )


def error_figure(
    by_point: Mapping[str, NDArray[np.float64]],
    by_step: Mapping[str, NDArray[np.float64]],
    episodes: NDArray[np.int64],
    options: Options,
) -> Figure:
    """Squared errors: by point for RL^2 and the references, by gradient step for MAML."""
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
