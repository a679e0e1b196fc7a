"""All agents on point navigation: one table, one picture, on common axes and unseen goals.

RL^2 adapts in its memory, three episodes in a row; MAML and its kin adapt by gradient steps, 40
trajectories each; floors and the ceiling live as long as they do. The axis of all is the number of
episodes of experience in a goal's task.

    python experiments/compare_agents.py                    # hours on two CPU cores; resumable
    python experiments/compare_agents.py --only maml rl2 --seeds 1

Every number is of the final model, in goals it has never seen. The table and the picture go to
`experiments/results/`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

import metarl

TASK = "metarl/PointNavigation-v0"
RESULTS = Path(__file__).parent / "results"
PRESETS = {
    "rl2": "episodes-3",
    "maml": "finn-2017",
    "fomaml": "finn-2017",
    "emaml": "finn-2017",
    "promp": "finn-2017",
    "meta_sgd": "finn-2017",
    "reptile": "finn-2017",
    "pretrained": "finn-2017",
}
"""agents, and the hyper-parameters that each is trained with"""
STEPS = 3
"""gradient steps that are shown"""
EVALUATION_SEED = 1_000_000
"""goals that no search for hyper-parameters has looked at"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """All agents on point navigation: one table, one picture."""

    only: tuple[str, ...] = ()
    """agents; by default all"""
    seeds: int = 3
    """training seeds of each"""
    goals: int = 1000
    """unseen goals"""
    trajectories: int = 40
    """episodes lived for each gradient step"""
    runs: Path = Path("runs/reproduce")
    """where the run folders go"""
    threads: int | None = None
    """CPU threads; by default torch's own choice"""
    out: Path = RESULTS / "agents-on-point-navigation"
    """of the table (.md) and the picture (.png, .svg)"""


def main(options: Options) -> None:
    """Trains what is missing, lives all in the same goals, writes."""
    if unknown := set(options.only) - set(PRESETS):
        raise SystemExit(f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(PRESETS)}.")
    runs = {name: trained(name, options) for name in options.only or PRESETS}
    longest = next(
        (name for name in runs if name != "rl2"), "rl2"
    )  # who references live as long as
    curves = {
        name: [
            evaluated(run, options, references=name == longest and not number)
            for number, run in enumerate(several)
        ]
        for name, several in runs.items()
    }
    folders = [run.path for several in runs.values() for run in several]
    pictures = metarl.plot(folders, out=options.out)
    lines = table(runs, curves, options)
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines), *pictures, sep="\n")


def trained(name: str, options: Options) -> list[metarl.Run]:
    """The runs of an agent, one for each seed: lived, resumed or known."""
    folder = "point-navigation" if name == "rl2" else f"{name}-point-navigation"
    return [
        metarl.train(
            name,
            TASK,
            preset=PRESETS[name],
            seed=seed,
            out=options.runs / folder / f"seed{seed}",
            threads=options.threads,
            resume=True,
        )
        for seed in range(options.seeds)
    ]


def evaluated(run: metarl.Run, options: Options, *, references: bool) -> list[metarl.Curve]:
    """The agent's curve, then those of the references if they are wanted."""
    of_gradient = {"copies": options.trajectories, "evaluation_steps": STEPS}
    return metarl.evaluate(
        run,
        num_tasks=options.goals,
        seed=EVALUATION_SEED,
        agent_options={} if run.config.agent == "rl2" else of_gradient,
        references=references,
        progress=True,
    )


def table(
    runs: dict[str, list[metarl.Run]],
    curves: dict[str, list[list[metarl.Curve]]],
    options: Options,
) -> list[str]:
    """Returns by gradient step or episode, each with its 95% interval."""
    lines = [
        "# Agents on point navigation",
        "",
        f"Mean return in {options.goals} unseen goals, with its 95% bootstrap interval over goals",
        f"and training seeds ({options.seeds}); final models. Gradient agents: before adapting and",
        f"after each step on {options.trajectories} trajectories, the later steps at the share of",
        "the inner rate that their preset says. RL²: its first, second and third episode.",
        "",
        "| agent | episodes lived before | return | environment steps | minutes a seed |",
        "|---|---|---|---|---|",
    ]
    for name, several in curves.items():
        own = [found[0] for found in several]
        metrics = [metarl.read_metrics(run.path / "metrics.csv")[-1] for run in runs[name]]
        minutes = [float(last["seconds"]) / 60 for last in metrics]
        steps = float(metrics[0]["env_steps"]) / 1e6
        lines.append(
            f"| {returns(own)} | {steps:.1f} million | {min(minutes):.0f} to {max(minutes):.0f} |"
        )
    references = max((several[0] for several in curves.values()), key=len)[1:]
    lines += [f"| {returns([reference])} | | |" for reference in references]
    return lines


def returns(curves: list[metarl.Curve]) -> str:
    """Cells of one row: label, episodes before each point, return of each."""
    mean, low, high = metarl.bootstrap_mean(np.stack([curve.returns for curve in curves]))
    before = ", ".join(str(episode - 1) for episode in curves[0].episode)
    cells = " / ".join(
        f"{one:.2f} [{bottom:.2f}, {top:.2f}]"
        for one, bottom, top in zip(mean, low, high, strict=True)
    )
    return f"{curves[0].label} | {before} | {cells}"


if __name__ == "__main__":
    main(tyro.cli(Options))
