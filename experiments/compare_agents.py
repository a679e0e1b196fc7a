"""Several agents on one family: one table, one picture, on common axes and unseen tasks.

RL^2 adapts in its memory, a few episodes in a row; MAML and its kin adapt by gradient steps, many
trajectories each; floors and the ceiling live as long as they do. The axis of all is the number of
episodes of experience in a task.

    python experiments/compare_agents.py                    # hours on two CPU cores; resumable
    python experiments/compare_agents.py --only maml rl2 --seeds 1
    python experiments/compare_agents.py --on tabular-mdp   # RL^2 beside posterior sampling
    python experiments/compare_agents.py --on cheetah-dir   # RL^2 and MAML, half an hour
    python experiments/compare_agents.py --on cheetah-vel
    python experiments/compare_agents.py --on reach         # RL^2 on a robot of Meta-World

Every number is of the final model, in tasks it has never seen. The table and the picture go to
`experiments/results/`. Cheetahs need the extra `mujoco`, Meta-World the extra `metaworld`, each in
an environment of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from lived import EVALUATION_SEED, changed, intervals

import metarl

RESULTS = Path(__file__).parent / "results"
STEPS = 3
"""gradient steps that are shown"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Who is compared on what."""

    task: str
    presets: Mapping[str, str]  # agents (or controls), and the hyper-parameters of each
    tasks: int  # unseen ones
    trajectories: int = 20  # episodes lived for each gradient step
    seeds: int = 1
    workers: int | None = None  # processes that step the physics


CONTROLS: Mapping[str, tuple[str, dict[str, Any]]] = {"blind": ("rl2", {"memory": "none"})}
"""names of controls: which agent each is, and with what changed"""
POINT = dict.fromkeys(
    ("maml", "fomaml", "emaml", "promp", "meta_sgd", "reptile", "pretrained"), "finn-2017"
)
CHEETAH = {"rl2": "two-cores", "maml": "two-cores"}
COMPARISONS: Mapping[str, Comparison] = {
    "point-navigation": Comparison(
        task="metarl/PointNavigation-v0",
        presets={"rl2": "episodes-3", **POINT},
        tasks=1000,
        trajectories=40,
        seeds=3,
    ),
    "tabular-mdp": Comparison(
        task="metarl/TabularMDP-v0",
        presets={"rl2": "episodes-10"},
        tasks=2000,
        seeds=3,
    ),
    "cheetah-dir": Comparison(
        task="metarl/HalfCheetahDir-v0", presets=CHEETAH, tasks=40, trajectories=20, workers=2
    ),
    "cheetah-vel": Comparison(
        task="metarl/HalfCheetahVel-v0", presets=CHEETAH, tasks=40, trajectories=20, workers=2
    ),
    "reach": Comparison(
        task="metarl/MetaWorldML1-v0",
        presets={"rl2": "goals-500", "blind": "goals-500"},
        tasks=50,
        trajectories=20,
        workers=2,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Several agents on one family: one table, one picture."""

    on: str = "point-navigation"
    """point-navigation, tabular-mdp, cheetah-dir, cheetah-vel or reach"""
    only: tuple[str, ...] = ()
    """agents; by default all"""
    seeds: int | None = None
    """training seeds of each; by default what the comparison says"""
    iterations: int | None = None
    """meta-iterations of each; by default those of the presets"""
    tasks: int | None = None
    """unseen tasks; by default what the comparison says"""
    trajectories: int | None = None
    """episodes lived for each gradient step; by default what the comparison says"""
    runs: Path = Path("runs/reproduce")
    """where the run folders go"""
    threads: int | None = None
    """CPU threads; by default torch's own choice"""
    out: Path | None = None
    """of the table (.md) and the picture (.png, .svg); by default in `experiments/results/`"""


def main(options: Options) -> None:
    """Trains what is missing, lives all in the same tasks, writes."""
    if options.on not in COMPARISONS:
        raise SystemExit(f"Unknown: {options.on}. Known: {', '.join(COMPARISONS)}.")
    comparison = chosen(COMPARISONS[options.on], options)
    runs = {name: trained(name, comparison, options) for name in comparison.presets}
    longest = next(
        (name for name in runs if name != "rl2"), "rl2"
    )  # who references live as long as
    curves = {
        name: [
            evaluated(run, comparison, references=name == longest and not number)
            for number, run in enumerate(several)
        ]
        for name, several in runs.items()
    }
    out = options.out or RESULTS / f"agents-on-{options.on}"
    folders = [run.path for several in runs.values() for run in several]
    pictures = metarl.plot(folders, out=out)
    learning = metarl.plot(folders, kind="learning", out=out.with_name(f"{out.name}-learning"))
    family = next(iter(runs.values()))[0].config.family
    lines = [*heading(options.on, family, comparison), *rows(runs, curves)]
    out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), *pictures, *learning, sep="\n")


def chosen(comparison: Comparison, options: Options) -> Comparison:
    """With what the options change."""
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


def trained(name: str, comparison: Comparison, options: Options) -> list[metarl.Run]:
    """The runs of an agent, one for each seed: lived, resumed or known."""
    folder = options.on if name == "rl2" else f"{name}-{options.on}"
    agent, altered = CONTROLS.get(name, (name, {}))
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
            **altered,
            **changed(options.iterations),
        )
        for seed in range(comparison.seeds)
    ]


def evaluated(run: metarl.Run, comparison: Comparison, *, references: bool) -> list[metarl.Curve]:
    """The agent's curve, then those of the references if they are wanted."""
    of_gradient = {"rollouts_per_task": comparison.trajectories, "evaluation_steps": STEPS}
    return metarl.evaluate(
        run,
        num_tasks=comparison.tasks,
        seed=EVALUATION_SEED,
        agent_options={} if run.config.agent == "rl2" else of_gradient,
        references=references,
        workers=comparison.workers,
        progress=True,
    )


def heading(on: str, family: str, comparison: Comparison) -> list[str]:
    """What the table says and how it came about."""
    of_gradient = [
        "Agents that adapt by gradient: before adapting and after each step on",
        f"{comparison.trajectories} trajectories, the later steps at the share of the inner rate",
        "that their preset says.",
    ]
    shared = metarl.make_family(comparison.task).splits_share_tasks
    drawn = "fresh draws of the few tasks" if shared else "unseen tasks"
    return [
        f"# Agents on {on.replace('-', ' ')}",
        "",
        f"Mean return in {comparison.tasks} {drawn} of",
        f"`{family}`,",
        "with its 95% bootstrap interval over tasks and training seeds",
        f"({comparison.seeds}); final models.",
        *(of_gradient if set(comparison.presets) - {"rl2", *CONTROLS} else ()),
        "RL²: its first, second, ... episode. Success, where it is defined: the share of episodes",
        "in which the task was solved at some step.",
        "",
    ]


def rows(
    runs: Mapping[str, list[metarl.Run]], curves: Mapping[str, list[list[metarl.Curve]]]
) -> list[str]:
    """Returns (and successes) by gradient step or episode, each with its 95% interval."""
    lines = [
        "| agent | episodes lived before | return | success | environment steps | minutes a seed |",
        "|---|---|---|---|---|---|",
    ]
    for name, several in curves.items():
        own = [found[0] for found in several]
        metrics = [metarl.read_metrics(run.path / "metrics.csv")[-1] for run in runs[name]]
        seconds = [float(last["seconds"]) for last in metrics]
        steps = float(metrics[0]["env_steps"])
        speed = steps / float(np.median(seconds))
        ends = dict.fromkeys(f"{end / 60:.0f}" for end in (min(seconds), max(seconds)))
        lived = f"{steps / 1e6:.1f} million ({speed:,.0f} a second)"
        lines.append(f"| {returns(own)} | {lived} | {' to '.join(ends)} |")
    references = max((several[0] for several in curves.values()), key=len)[1:]
    lines += [f"| {returns([reference])} | | |" for reference in references]
    return lines


def returns(curves: list[metarl.Curve]) -> str:
    """Cells of one row: label, episodes before each point, return and success of each."""
    before = ", ".join(str(episode - 1) for episode in curves[0].episode)
    success = np.stack([curve.success for curve in curves])
    cells = [
        curves[0].label,
        before,
        intervals(np.stack([curve.returns for curve in curves])),
        "" if np.isnan(success).all() else intervals(success),
    ]
    return " | ".join(cells)


if __name__ == "__main__":
    main(tyro.cli(Options))
