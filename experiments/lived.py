"""What several scripts share: agent and references live in the same unseen tasks, step by step.

Axes: `T` steps of a trial, `N` tasks.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import metarl

EVALUATION_SEED = 1_000_000
"""of tasks that no search for hyper-parameters has looked at"""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "metarl",
}
"""text stays text, and equal lives give equal files"""
AGENTS: Mapping[str, dict[str, Any]] = {
    "RL²": {"color": "#0072B2", "marker": "o", "linewidth": 1.8},
    "MAML": {"color": "#D55E00", "marker": "s", "linewidth": 1.8},
}
"""colours of Okabe and Ito 2008, told apart by the colour-blind too"""
REFERENCES: tuple[dict[str, Any], ...] = (
    {"color": "0.35", "linestyle": (0, (6, 2))},
    {"color": "black", "linestyle": (0, (5, 2, 1, 2))},
    {"color": "0.55", "linestyle": (0, (1, 1.2))},
)
"""in the order in which they are drawn; told apart without colour, too"""


@dataclass(frozen=True, kw_only=True)
class Life:
    """One trial of somebody in every task."""

    label: str
    trajectory: metarl.Trajectory

    @property
    def rewards(self) -> NDArray[np.float64]:
        """[T, N] rewards of the first copy."""
        return self.trajectory.reward[..., 0].double().cpu().numpy()


def lives(
    run: metarl.Run,
    family: metarl.TaskDistribution,
    references: Sequence[str],
    num_tasks: int,
) -> Iterator[Life]:
    """One trial each of the agent of `run` and of references, in the same tasks, the same luck.

    Args:
        run: whose final agent lives; `family` may be another than it was trained in, as long as
            the spaces are equal.
        family: the tasks.
        references: names of references of the family.
        num_tasks: unseen tasks.
    """
    episodes = family.trial_episodes
    seeds = metarl.Seeds(EVALUATION_SEED)
    tasks = family.sample_tasks(num_tasks, seeds.torch("lived tasks"), "test")
    agent = run.make_agent(family)
    run.load(agent)
    known = family.references(episodes)
    chosen = [
        (run.config.make_agent_config().label, agent.start(num_tasks)),
        *((known[name].label, known[name].build(tasks)) for name in references),
    ]
    for label, policy in chosen:
        trajectory = metarl.collect(
            family, tasks, policy, episodes=episodes, seeds=seeds.child("lives")
        )
        yield Life(label=label, trajectory=trajectory)


def changed(iterations: int | None) -> dict[str, Any]:
    """Options of a training that a preset does not settle; None leaves the preset's iterations."""
    return {} if iterations is None else {"iterations": iterations}


def draw_steps(axes: Axes, values: Mapping[str, NDArray[np.float64]], first: int = 0) -> None:
    """A line for each label: the mean of values [T, N] at each step, with its 95% interval."""
    others = iter(REFERENCES)
    for label, value in values.items():
        look = AGENTS.get(label) or next(others)
        mean, low, high = metarl.bootstrap_mean(value[None])
        steps = np.arange(first, first + len(value))
        axes.plot(steps, mean, label=label, markersize=4, **look)
        axes.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0)


def save(figure: Figure, out: Path) -> list[Path]:
    """Writes PNG and SVG; what would make equal pictures differ is left out."""
    paths = [out.with_suffix(ending) for ending in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})
    return paths


def report(
    out: Path, title: str, table: Sequence[Sequence[str]], runs: Sequence[metarl.Run]
) -> Path:
    """Writes a page beside the picture of that name: the table, then what the runs were.

    Args:
        out: of picture and page, without ending.
        title: first line of the page.
        table: rows of cells, the headings first.
        runs: whose settings, seeds and minutes are told.
    """
    lines = [["---"] * len(table[0]), *table[1:]]
    page = [
        f"# {title}",
        "",
        f"![{title}]({out.name}.png)",
        "",
        *(f"| {' | '.join(cells)} |" for cells in [table[0], *lines]),
        "",
        "Final models; in brackets 95% bootstrap intervals over tasks. The runs:",
        "",
        *(f"- {described(run)}" for run in runs),
        "",
        "Versions: "
        + ", ".join(f"{name} {version(name)}" for name in ("metarl-suite", "torch", "gymnasium"))
        + f", Python {platform.python_version()}.",
    ]
    path = out.with_suffix(".md")
    path.write_text("\n".join(page) + "\n", encoding="utf-8")
    return path


def described(run: metarl.Run) -> str:
    """Agent, family, seed, size, and every option that is not the agent's default."""
    config, last = run.config, metarl.read_metrics(run.path / "metrics.csv")[-1]
    default = asdict(metarl.agent_config(config.agent)())
    told = ", ".join(
        f"{name}={value}"
        for name, value in asdict(config.make_agent_config()).items()
        if value != default[name]
    )
    return (
        f"`{config.agent}` on `{config.family}`, seed {config.seed}, "
        f"{int(last['env_steps']) / 1e6:.1f} million steps, {float(last['seconds']) / 60:.0f} "
        f"minutes; {told}"
    )


def interval(mean: float, low: float, high: float, decimals: int = 3) -> str:
    """Such as .481 [.475, .488], with a zero before the point."""
    return f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def intervals(value: NDArray[np.float64], decimals: int = 2) -> str:
    """Means of [R, P, N] over runs and tasks at each point, and their intervals."""
    return " / ".join(
        interval(mean, low, high, decimals)
        for mean, low, high in zip(*metarl.bootstrap_mean(value), strict=True)
    )


def styled() -> Any:
    """The context in which figures are made and saved."""
    return matplotlib.rc_context(STYLE)
