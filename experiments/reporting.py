"""Code shared by the scripts: rollouts of an agent and of references, figures, result pages.

Axes: `T` steps of a trial, `N` tasks.
"""

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import metarl

EVALUATION_SEED = 1_000_000
"""seed of tasks that were not used in any search for hyper-parameters"""
NORMAL_95 = 1.96
"""standard errors on each side of a mean that make a 95% interval"""
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "metarl",
}
"""text is saved as text, and equal data give equal files"""
AGENTS: Mapping[str, dict[str, Any]] = {
    "RL²": {"color": "#0072B2", "marker": "o", "linewidth": 1.8},
    "MAML": {"color": "#D55E00", "marker": "s", "linewidth": 1.8},
    "Matching Networks": {"color": "#009E73", "marker": "^", "linewidth": 1.8},
    "Prototypical Networks": {"color": "#CC79A7", "marker": "D", "linewidth": 1.8},
}
"""colour-blind safe colours of Okabe and Ito 2008"""
REFERENCES: tuple[dict[str, Any], ...] = (
    {"color": "0.35", "linestyle": (0, (6, 2))},
    {"color": "black", "linestyle": (0, (5, 2, 1, 2))},
    {"color": "0.55", "linestyle": (0, (1, 1.2))},
)
"""styles of references in drawing order, distinguishable without colour"""


def version(distribution: str) -> str:
    """The version of a distribution; that of metarl is known without an installation, too."""
    ours = distribution == "metarl-suite"
    return metarl.__version__ if ours else installed_version(distribution)


@dataclass(frozen=True, kw_only=True)
class EvaluationRollout:
    """One trial of one policy in every task."""

    label: str
    trajectory: metarl.Trajectory

    @property
    def rewards(self) -> NDArray[np.float64]:
        """[T, N] rewards of the first rollout of each task."""
        return self.trajectory.reward[..., 0].double().cpu().numpy()


def evaluation_rollouts(
    run: metarl.Run,
    family: metarl.TaskDistribution,
    references: Sequence[str],
    num_tasks: int,
) -> Iterator[EvaluationRollout]:
    """One trial of the agent of `run` and of each reference, with equal tasks and equal noise.

    Args:
        run: its final agent is evaluated. `family` may differ from the training family if the
            spaces are equal.
        family: the tasks.
        references: names of references of the family.
        num_tasks: number of unseen tasks.
    """
    episodes = family.trial_episodes
    tasks, seeds = evaluation_tasks(family, num_tasks)
    agent = run.make_agent(family)
    run.load(agent)
    known = family.references(episodes)
    start = metarl.LaneNoise.of(metarl.Seeds(EVALUATION_SEED), "start", num_tasks)
    policies = [
        (run.config.make_agent_config().label, agent.start(num_tasks, start)),
        *((known[name].label, known[name].build(tasks)) for name in references),
    ]
    for label, policy in policies:
        trajectory = metarl.collect(family, tasks, policy, episodes=episodes, seeds=seeds)
        yield EvaluationRollout(label=label, trajectory=trajectory)


def evaluation_tasks(family: metarl.TaskDistribution, num_tasks: int) -> tuple[Any, metarl.Seeds]:
    """Unseen tasks, a tensor [N, ...], and the seeds that every policy is rolled out with."""
    seeds = metarl.Seeds(EVALUATION_SEED)
    tasks = family.sample_tasks(num_tasks, seeds.torch("lived tasks"), "test")
    return tasks, seeds.child("lives")


def iteration_options(iterations: int | None) -> dict[str, Any]:
    """Options of `metarl.train` that override the iterations of a preset; none for None."""
    return {} if iterations is None else {"iterations": iterations}


def draw_steps(axes: Axes, values: Mapping[str, NDArray[np.float64]], first: int = 0) -> None:
    """A line for each label: the mean of values [T, N] at each step, with its 95% interval."""
    reference_styles = iter(REFERENCES)
    for label, value in values.items():
        style = AGENTS.get(label) or next(reference_styles)
        mean, low, high = metarl.bootstrap_mean(value[None])
        steps = np.arange(first, first + len(value))
        axes.plot(steps, mean, label=label, markersize=4, **style)
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a draft that replaces `path` where the context ends without an error.

    A file that cannot be written, such as on a full disk, ends the script with one line; the file
    before stays whole.
    """
    with one_line_errors(), metarl.atomic_write(path) as draft:
        yield draft


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the script with one line where a file within the context cannot be written."""
    try:
        yield
    except OSError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


def write_text(path: Path, text: str) -> None:
    """Writes a text file of UTF-8, as `atomic_write` does."""
    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8")


def save_figure(figure: Figure, out: Path) -> list[Path]:
    """Writes PNG and SVG without a date, so that equal figures give equal files."""
    paths = [out.with_suffix(ending) for ending in (".png", ".svg")]
    for path in paths:
        with atomic_write(path) as draft:
            figure.savefig(draft, metadata={"Date": None} if path.suffix == ".svg" else {})
    return paths


def write_page(
    out: Path, title: str, table: Sequence[Sequence[str]], runs: Sequence[metarl.Run]
) -> Path:
    """Writes a page next to the figure of the same name: figure, table, settings of the runs.

    Args:
        out: path of figure and page, without suffix.
        title: first line of the page.
        table: rows of cells, the headings first.
        runs: the page lists their settings, seeds and minutes.
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
        *(f"- {describe_run(run)}" for run in runs),
        "",
        "Versions: "
        + ", ".join(f"{name} {version(name)}" for name in ("metarl-suite", "torch", "gymnasium"))
        + f", Python {platform.python_version()}.",
    ]
    path = out.with_suffix(".md")
    write_text(path, "\n".join(page) + "\n")
    return path


def describe_run(run: metarl.Run) -> str:
    """Agent, family, seed, size, and every option that differs from the agent's default."""
    config, last = run.config, metarl.read_metrics(run.path / "metrics.csv")[-1]
    default = asdict(metarl.agent_config(config.agent)())
    changed = ", ".join(
        f"{name}={value}"
        for name, value in asdict(config.make_agent_config()).items()
        if value != default[name]
    )
    return (
        f"`{config.agent}` on `{config.family}`, seed {config.seed}, "
        f"{int(last['env_steps']) / 1e6:.1f} million steps, {float(last['seconds']) / 60:.0f} "
        f"minutes; {changed}"
    )


def half_interval(values: NDArray[np.float64]) -> float:
    """Half width of the 95% interval of the mean of values [N], by the normal approximation."""
    return float(NORMAL_95 * values.std(ddof=1) / len(values) ** 0.5)


def format_interval(mean: float, low: float, high: float, decimals: int = 3) -> str:
    """Such as 0.481 [0.475, 0.488]."""
    return f"{mean:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def format_intervals(value: NDArray[np.float64], decimals: int = 2) -> str:
    """Means of [R, P, N] over runs and tasks at each point, with bootstrap intervals."""
    return " / ".join(
        format_interval(mean, low, high, decimals)
        for mean, low, high in zip(*metarl.bootstrap_mean(value), strict=True)
    )


def figure_style() -> Any:
    """The context in which figures are drawn and saved."""
    return matplotlib.rc_context(STYLE)
