"""Compares several agents on one family: one table, one figure, the same unseen tasks.

RL^2 adapts in its memory over a few episodes. MAML and related agents adapt by gradient steps on
many trajectories each. Floors and the ceiling run for as many episodes. The common axis is the
number of episodes of experience in a task.

    python experiments/compare_agents.py                    # hours on two CPU cores; resumable
    python experiments/compare_agents.py --only maml rl2 --seeds 1
    python experiments/compare_agents.py --on tabular-mdp   # RL^2 and posterior sampling
    python experiments/compare_agents.py --on cheetah-dir   # RL^2 and MAML, half an hour
    python experiments/compare_agents.py --on cheetah-vel
    python experiments/compare_agents.py --on reach         # RL^2 on a robot of Meta-World

Every number is measured on the final model, in unseen tasks. The table and the figure go to
`experiments/results/`. Cheetahs need the extra `mujoco`, Meta-World the extra `metaworld`, in
separate Python environments.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from reporting import (
    EVALUATION_SEED,
    format_intervals,
    iteration_options,
    one_line_errors,
    write_text,
)

import metarl

RESULTS = Path(__file__).parent / "results"
STEPS = 3
"""gradient steps in the evaluation"""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The agents of one comparison, and the family they are compared on."""

    task: str
    presets: Mapping[str, str]  # presets by name of agent or control
    tasks: int  # number of unseen tasks
    trajectories: int = 20  # episodes of experience per gradient step
    seeds: int = 1
    workers: int | None = None  # processes that step the physics


CONTROLS: Mapping[str, tuple[str, dict[str, Any]]] = {"blind": ("rl2", {"memory": "none"})}
"""by name of a control: its agent and the options that differ"""
POINT = dict.fromkeys(
    ("maml", "fomaml", "emaml", "promp", "meta_sgd", "reptile", "pretrained"), "finn-2017"
)
CHEETAH = {"rl2": "two-cores", "maml": "two-cores"}
COMPARISONS: Mapping[str, Setup] = {
    "point-navigation": Setup(
        task="metarl/PointNavigation-v0",
        presets={"rl2": "episodes-3", **POINT},
        tasks=1000,
        trajectories=40,
        seeds=3,
    ),
    "tabular-mdp": Setup(
        task="metarl/TabularMDP-v0",
        presets={"rl2": "episodes-10"},
        tasks=2000,
        seeds=3,
    ),
    "cheetah-dir": Setup(
        task="metarl/HalfCheetahDir-v0", presets=CHEETAH, tasks=40, trajectories=20, workers=2
    ),
    "cheetah-vel": Setup(
        task="metarl/HalfCheetahVel-v0", presets=CHEETAH, tasks=40, trajectories=20, workers=2
    ),
    "reach": Setup(
        task="metarl/MetaWorldML1-v0",
        presets={"rl2": "goals-500", "blind": "goals-500"},
        tasks=50,
        trajectories=20,
        workers=2,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compares several agents on one family: one table, one figure."""

    on: str = "point-navigation"
    """point-navigation, tabular-mdp, cheetah-dir, cheetah-vel or reach"""
    only: tuple[str, ...] = ()
    """names of agents; by default all"""
    seeds: int | None = None
    """training seeds of each; by default those of the comparison"""
    iterations: int | None = None
    """meta-iterations of each; by default those of the presets"""
    tasks: int | None = None
    """unseen tasks; by default those of the comparison"""
    trajectories: int | None = None
    """episodes of experience per gradient step; by default those of the comparison"""
    runs: Path = Path("runs/reproduce")
    """parent of the run folders"""
    threads: int = 1
    """CPU threads"""
    out: Path | None = None
    """path of the table (.md) and the figure (.png, .svg); by default in `experiments/results/`"""


def main(options: Options) -> None:
    """Trains the missing runs, evaluates all in the same tasks, writes table and figures."""
    if options.on not in COMPARISONS:
        raise SystemExit(f"Unknown: {options.on}. Known: {', '.join(COMPARISONS)}.")
    comparison = with_options(COMPARISONS[options.on], options)
    runs = {name: train_seeds(name, comparison, options) for name in comparison.presets}
    # References run for as many episodes as the agent they are evaluated with.
    longest = next((name for name in runs if name != "rl2"), "rl2")
    curves = {
        name: [
            evaluate(run, comparison, references=name == longest and not number)
            for number, run in enumerate(runs_of_agent)
        ]
        for name, runs_of_agent in runs.items()
    }
    out = options.out or RESULTS / f"agents-on-{options.on}"
    folders = [run.path for runs_of_agent in runs.values() for run in runs_of_agent]
    with one_line_errors():
        figures = metarl.plot(folders, out=out)
        learning = metarl.plot(folders, kind="learning", out=out.with_name(f"{out.name}-learning"))
    family = next(iter(runs.values()))[0].config.family
    lines = [*heading(options.on, family, comparison), *table(runs, curves)]
    write_text(out.with_suffix(".md"), "\n".join(lines) + "\n")
    print("\n".join(lines), *figures, *learning, sep="\n")


def with_options(comparison: Setup, options: Options) -> Setup:
    """The comparison with the given options applied."""
    if unknown := set(options.only) - set(comparison.presets):
        known = ", ".join(comparison.presets)
        raise SystemExit(f"Unknown: {', '.join(sorted(unknown))}. Known: {known}.")
    names = options.only or tuple(comparison.presets)
    return replace(
        comparison,
        presets={name: comparison.presets[name] for name in names},
        seeds=options.seeds or comparison.seeds,
        tasks=options.tasks or comparison.tasks,
        trajectories=options.trajectories or comparison.trajectories,
    )


def train_seeds(name: str, comparison: Setup, options: Options) -> list[metarl.Run]:
    """The runs of an agent, one for each seed: trained, resumed or already complete."""
    folder = options.on if name == "rl2" else f"{name}-{options.on}"
    agent, overrides = CONTROLS.get(name, (name, {}))
    return [
        metarl.train(
            agent,
            comparison.task,
            preset=comparison.presets[name],
            seed=seed,
            out=options.runs / folder / f"seed{seed}",
            threads=options.threads,
            workers=comparison.workers,
            resume=True,
            **overrides,
            **iteration_options(options.iterations),
        )
        for seed in range(comparison.seeds)
    ]


def evaluate(run: metarl.Run, comparison: Setup, *, references: bool) -> list[metarl.Curve]:
    """The agent's curve, followed by those of the references if `references` is set."""
    gradient_options = {"rollouts_per_task": comparison.trajectories, "evaluation_steps": STEPS}
    return metarl.evaluate(
        run,
        num_tasks=comparison.tasks,
        seed=EVALUATION_SEED,
        agent_options={} if run.config.agent == "rl2" else gradient_options,
        references=references,
        workers=comparison.workers,
        progress=True,
    )


def heading(on: str, family: str, comparison: Setup) -> list[str]:
    """The text above the table: what is measured, and how."""
    gradient_protocol = [
        "Agents that adapt by gradient steps: before adaptation and after each step on",
        f"{comparison.trajectories} trajectories; their presets scale down the inner learning rate",
        "of the later steps.",
    ]
    shared = metarl.make_family(comparison.task).splits_share_tasks
    drawn = "new draws of the few tasks" if shared else "unseen tasks"
    return [
        f"# Agents on {on.replace('-', ' ')}",
        "",
        f"Mean return in {comparison.tasks} {drawn} of",
        f"`{family}`,",
        "with its 95% bootstrap interval over tasks and training seeds",
        f"({comparison.seeds}); final models.",
        *(gradient_protocol if set(comparison.presets) - {"rl2", *CONTROLS} else ()),
        "RL²: the first, second, ... episode. Success, where it is defined: the share of episodes",
        "in which the task was solved at some step.",
        "",
    ]


def table(
    runs: Mapping[str, list[metarl.Run]], curves: Mapping[str, list[list[metarl.Curve]]]
) -> list[str]:
    """Returns (and success rates) by gradient step or episode, each with its 95% interval."""
    lines = [
        "| agent | earlier episodes | return | success | environment steps | minutes per seed |",
        "|---|---|---|---|---|---|",
    ]
    for name, evaluations in curves.items():
        agent_curves = [evaluation[0] for evaluation in evaluations]
        metrics = [metarl.read_metrics(run.path / "metrics.csv")[-1] for run in runs[name]]
        seconds = [float(last["seconds"]) for last in metrics]
        steps = float(metrics[0]["env_steps"])
        speed = steps / float(np.median(seconds))
        minutes = dict.fromkeys(f"{end / 60:.0f}" for end in (min(seconds), max(seconds)))
        size = f"{steps / 1e6:.1f} million ({speed:,.0f} per second)"
        lines.append(f"| {result_cells(agent_curves)} | {size} | {' to '.join(minutes)} |")
    references = max((evaluations[0] for evaluations in curves.values()), key=len)[1:]
    lines += [f"| {result_cells([reference])} | | |" for reference in references]
    return lines


def result_cells(curves: list[metarl.Curve]) -> str:
    """Cells of one row: label, earlier episodes of each point, return and success of each."""
    before = ", ".join(str(episode - 1) for episode in curves[0].episode)
    success = np.stack([curve.success for curve in curves])
    cells = [
        curves[0].label,
        before,
        format_intervals(np.stack([curve.returns for curve in curves])),
        "" if np.isnan(success).all() else format_intervals(success),
    ]
    return " | ".join(cells)


if __name__ == "__main__":
    main(tyro.cli(Options))
