"""Reproduces published numbers: trains, evaluates the final models on unseen tasks, writes tables.

    python experiments/reproduce.py --only bandit-5x10     # one reproduction
    python experiments/reproduce.py                        # all of them: hours on two CPU cores
    python experiments/reproduce.py --list

Resumable: a run continues from its checkpoint, and a seed that has a result is skipped.
Results go to `experiments/results/NAME.json`; `experiments/results/README.md` is their table.
Every number is measured on the final model (never the best over training) in unseen tasks.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from reporting import EVALUATION_SEED, half_interval, version, write_text

import metarl

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One published number and the settings that reproduce it."""

    name: str
    title: str
    agent: str
    task: str
    preset: str
    # "trial" (total return), "last" (return of the last episode), "success" (of the last episode)
    # or "steps" (return after each gradient step; the last one is compared)
    measure: str
    published: str
    ceiling: str  # name of the reference that bounds every agent from above
    task_options: dict[str, Any] = field(default_factory=dict)
    seeds: int = 3
    test_tasks: int = 10_000
    evaluation: dict[str, Any] = field(default_factory=dict)  # agent options

    def points(self, curve: metarl.Curve) -> dict[str, list[dict[str, float]]]:
        """Results before adaptation and after each gradient step, or in each episode."""
        if self.measure == "trial":
            return {}
        values = curve.success if self.measure == "success" else curve.returns
        name = "steps" if self.measure == "steps" else "episodes"
        return {name: [mean_and_interval(value) for value in values]}

    def task_results(self, curve: metarl.Curve) -> NDArray[np.float64]:
        """The number that is compared, for each task [N]."""
        by_measure: dict[str, NDArray[np.float64]] = {
            "trial": curve.returns.sum(0),
            "last": curve.returns[-1],
            "steps": curve.returns[-1],
            "success": curve.success[-1],
        }
        return by_measure[self.measure]


def bandit(
    arms: int, pulls: int, published: str, ceiling: str, *, seeds: int, preset: str = ""
) -> Reproduction:
    """One row of Duan et al. 2016, table 1."""
    return Reproduction(
        name=f"bandit-{arms}x{pulls}",
        title=f"RL², bandit, {arms} arms, {pulls} pulls: reward of a trial",
        agent="rl2",
        task="metarl/BernoulliBandit-v0",
        preset=preset or f"pulls-{pulls}",
        task_options={"arms": arms},
        measure="trial",
        published=published,
        ceiling=ceiling,
        seeds=seeds,
    )


IMITATED_INDEX = Reproduction(
    name="dpt-bandit-50x500",
    title="DPT of the Gittins index, GRU, bandit, 50 arms, 500 pulls: reward of a trial",
    agent="dpt",
    task="metarl/BernoulliBandit-v0",
    preset="pulls-500-arms-50",
    measure="trial",
    published="RL²: 438.9 (Duan et al. 2016); SNAIL: 442.6 (Mishra et al. 2018)",
    ceiling="gittins",
    seeds=1,
    test_tasks=4000,
)


def gradient_agent(agent: str, label: str) -> Reproduction:
    """One agent in the protocol of Finn et al. 2017: 40 unseen goals, 40 trajectories per step."""
    return Reproduction(
        name=f"{agent}-point-navigation",
        title=f"{label}, point navigation, 40 goals: return after 1 / 2 / 3 gradient steps, the "
        "later ones shorter (`finn-2017`)",
        agent=agent,
        task="metarl/PointNavigation-v0",
        preset="finn-2017",
        measure="steps",
        published="-11.68 / -3.33 / -3.23 (Finn et al. 2017, 40 goals)" if agent == "maml" else "-",
        ceiling="oracle",
        test_tasks=40,
        evaluation={"rollouts_per_task": 40, "evaluation_steps": 3},
    )


REPRODUCTIONS = (
    bandit(5, 10, "6.7 (Duan et al. 2016)", "bayes_optimal", seeds=5),
    bandit(5, 100, "78.7 (Duan et al. 2016)", "gittins", seeds=3),
    bandit(10, 100, "83.5 (Duan et al. 2016)", "gittins", seeds=3, preset="pulls-100-arms-10"),
    bandit(50, 100, "84.9 (Duan et al. 2016)", "gittins", seeds=3, preset="pulls-100-arms-50"),
    IMITATED_INDEX,
    Reproduction(
        name="point-navigation",
        title="RL², point navigation: return of the third episode",
        agent="rl2",
        task="metarl/PointNavigation-v0",
        preset="episodes-3",
        measure="last",
        published="-3.23 (MAML after 3 steps, Finn et al. 2017)",
        ceiling="oracle",
        test_tasks=1000,
    ),
    Reproduction(
        name="sparse-navigation",
        title="RL², sparse navigation: share of unseen goals found in the first / sixth episode",
        agent="rl2",
        task="metarl/SparsePointNavigation-v0",
        preset="episodes-6",
        measure="success",
        published="curves only (PEARL)",
        ceiling="oracle",
        test_tasks=1000,
    ),
    Reproduction(
        name="tabular-mdp",
        title="RL² with attention, tabular MDP, 10 episodes: return of a trial",
        agent="rl2",
        task="metarl/TabularMDP-v0",
        preset="episodes-10",
        measure="trial",
        published="156.2 with a GRU (Duan et al. 2016); SNAIL: about 159.1 (derived from Mishra "
        "et al. 2018)",
        ceiling="oracle",
    ),
    Reproduction(
        name="grid-navigation",
        title="RL², grid navigation: return of the fourth episode",
        agent="rl2",
        task="metarl/GridNavigation-v0",
        preset="varibad",
        measure="last",
        published="curves only (VariBAD)",
        ceiling="bayes_optimal",
        test_tasks=2100,
    ),
    Reproduction(
        name="two-step",
        title="RL², two-step task: reward of 100 rounds",
        agent="rl2",
        task="metarl/TwoStep-v0",
        preset="wang-2018",
        measure="trial",
        published="curves only (Wang et al. 2018)",
        ceiling="bayes_optimal",
        test_tasks=2000,
    ),
    gradient_agent("maml", "MAML"),
    gradient_agent("fomaml", "FOMAML"),
    gradient_agent("emaml", "E-MAML"),
    gradient_agent("promp", "ProMP"),
    gradient_agent("meta_sgd", "Meta-SGD"),
    gradient_agent("reptile", "Reptile"),
    gradient_agent("pretrained", "Pretrained"),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Reproduces published numbers."""

    only: tuple[str, ...] = ()
    """names of reproductions; by default all"""
    seeds: int | None = None
    """training seeds of each; by default those of the reproduction"""
    out: Path = Path("runs/reproduce")
    """parent of the run folders"""
    threads: int = 1
    """CPU threads"""
    list: bool = False
    """only list the reproductions"""


def main(options: Options) -> None:
    """Runs the missing seeds and writes the tables."""
    known = {reproduction.name: reproduction for reproduction in REPRODUCTIONS}
    if options.list:
        print("\n".join(f"{name:20} {item.title}" for name, item in known.items()))
        return
    if unknown := set(options.only) - set(known):
        raise SystemExit(f"Unknown: {', '.join(sorted(unknown))}. Known: {', '.join(known)}.")
    for name in options.only or known:
        for seed in range(options.seeds or known[name].seeds):
            reproduce(known[name], seed, options)
            write_table()


def reproduce(item: Reproduction, seed: int, options: Options) -> None:
    """One seed: trains or resumes, evaluates, adds the result."""
    path = RESULTS / f"{item.name}.json"
    result = json.loads(path.read_text()) if path.exists() else {"seeds": {}}
    if result["seeds"]:
        require_same(item, result["settings"]["agent_options"], path)
    if str(seed) in result["seeds"]:
        print(f"{item.name}, seed {seed}: has a result")
        return
    run = metarl.train(
        item.agent,
        item.task,
        preset=item.preset,
        task_options=item.task_options,
        seed=seed,
        out=options.out / item.name / f"seed{seed}",
        threads=options.threads,
        resume=True,
    )
    agent, ceiling = metarl.evaluate(
        run,
        num_tasks=item.test_tasks,
        seed=EVALUATION_SEED,
        references=[item.ceiling],
        agent_options=item.evaluation,
        progress=True,
    )
    last = metarl.read_metrics(run.path / "metrics.csv")[-1]
    result["seeds"][str(seed)] = {
        **mean_and_interval(item.task_results(agent)),
        **item.points(agent),
        "minutes": round(float(last["seconds"]) / 60, 1),
        "env_steps": int(last["env_steps"]),
    }
    result |= {
        **{
            key: asdict(item)[key]
            for key in ("title", "published", "measure", "test_tasks", "evaluation")
        },
        "evaluation_seed": EVALUATION_SEED,
        "ceiling": {"name": ceiling.label, **mean_and_interval(item.task_results(ceiling))},
        "command": f"python experiments/reproduce.py --only {item.name}",
        "settings": asdict(run.config),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("metarl-suite", "torch", "gymnasium", "numpy")},
    }
    RESULTS.mkdir(exist_ok=True)
    write_text(path, json.dumps(result, indent=2) + "\n")
    print(f"{item.name}, seed {seed}: {result['seeds'][str(seed)]}")


def require_same(item: Reproduction, recorded: Mapping[str, Any], path: Path) -> None:
    """Refuses to add seeds to a file whose seeds were trained with other hyper-parameters."""
    preset = metarl.presets(item.agent, item.task)[item.preset]
    now = json.loads(json.dumps(asdict(metarl.agent_config(item.agent)(**preset.agent_options))))
    other = {name: value for name, value in recorded.items() if now.get(name, value) != value}
    if other:
        raise SystemExit(
            f"{path} holds seeds that were trained with {other}, which differs from the current "
            f"preset {item.preset!r}. To start again, move the file and the run folders away."
        )


def mean_and_interval(value: NDArray[np.float64]) -> dict[str, float]:
    """Mean over tasks and the half width of its 95% interval."""
    return {"mean": round(float(value.mean()), 4), "interval": round(half_interval(value), 4)}


def table_points(measure: str, seed: dict[str, Any]) -> list[dict[str, float]]:
    """Points of a seed in the table: each gradient step, first and last success, or one number."""
    steps: list[dict[str, float]] = seed.get("steps", [])[1:]
    return steps or ([seed["episodes"][0], seed] if measure == "success" else [seed])


def cell(points: list[dict[str, float]]) -> str:
    """The results of one seed as a cell of the table."""
    return " / ".join(f"{point['mean']:.2f} ± {point['interval']:.2f}" for point in points)


def means(rows: list[list[dict[str, float]]]) -> str:
    """The mean over seeds at each point."""
    values = [[point["mean"] for point in row] for row in rows]
    return " / ".join(f"{mean:.2f}" for mean in np.mean(values, 0))


def write_table() -> None:
    """One line per reproduction that has results."""
    lines = [
        "# Reproductions",
        "",
        "Final models on test tasks that were not seen in training, except for grid navigation and",
        "the two-step task, whose few tasks are shared by the splits. By seed: mean ± 95% interval",
        "over tasks (sparse navigation has only 20 test goals, drawn with repetition, so its",
        "intervals are too narrow). The ceiling was measured in the same tasks; a mean above it is",
        "noise. Minutes are wall time on a shared machine, with one or two threads. Settings and",
        "versions are in the JSON files of this folder.",
        "",
        "On the same 1000 goals: [all agents, one seed](agents-on-point-navigation.md),",
        "[MAML and Meta-SGD, three seeds](maml-and-meta-sgd.md). Policies without training:",
        "[references](reference-policies.md).",
        "",
        "The other pages of this folder, but for the two of references, were measured before each",
        "lane drew from a random stream of its own; the same settings now meet other noise.",
        "",
        "Gradient agents: in some seeds a few of the 40 goals diverge at the second step, as in",
        "seed 0 of MAML, E-MAML and Meta-SGD, which share goals and noise. That is not new: with",
        "one stream for all lanes, seeds 0 to 5 of MAML gave -3.7, -3.5, -3.9, -3.9, -7.6 and -5.1",
        "after two steps. Other runs took most of the longer minutes; ProMP's was paused for half",
        "an hour. The bandits of 10 and 50 arms were paused for hours, and trained in part by",
        "torch alone and in part by the compiled library.",
        "",
        "The tabular MDP: seed 0 starts to learn after 120 iterations, the others after 80 to 100.",
        "With one stream for all lanes, three seeds gave 158.03, 158.34 and 158.56. The longer",
        "minutes are of runs beside several others.",
        "",
        "RL² on bandits of 10 pulls, grids and point navigation was trained with the compiled",
        "library. Point navigation with torch alone, same seeds: -0.77, -0.77, -0.71. Gradients",
        "agree to rounding, which training amplifies; with either, returns of some seeds fall by",
        "dozens for a while in the first 110 of 300 iterations. Three seeds cannot settle it.",
        "",
        "| experiment | published | metarl, by seed | mean | ceiling | minutes per seed |",
        "|---|---|---|---|---|---|",
    ]
    for item in REPRODUCTIONS:
        path = RESULTS / f"{item.name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        seeds = list(result["seeds"].values())
        rows = [table_points(result["measure"], seed) for seed in seeds]
        by_seed = "; ".join(map(cell, rows))
        mean = means(rows)
        minutes = f"{min(s['minutes'] for s in seeds)} to {max(s['minutes'] for s in seeds)}"
        ceiling = f"{result['ceiling']['mean']:.2f} ({result['ceiling']['name']})"
        lines.append(
            f"| {item.title} | {item.published} | {by_seed} | {mean} | {ceiling} | {minutes} |"
        )
    write_text(RESULTS / "README.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
