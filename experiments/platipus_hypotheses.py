"""PLATIPUS on sparse navigation: hypotheses before experience, and after it.

Each task samples several policies from the learned prior. They explore the half circle in parallel,
then all adapt to the experience of the task. The script draws their paths before and after, and
prints how far the hypotheses of a task end from each other.

    python experiments/platipus_hypotheses.py --seed 1      # ten minutes on one core
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from reporting import (
    EVALUATION_SEED,
    figure_style,
    format_interval,
    iteration_options,
    save_figure,
    write_page,
)

import metarl

TASK = "metarl/SparsePointNavigation-v0"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""of hypotheses, colour-blind safe (Okabe and Ito 2008); repeated where there are more"""
DRAWN_TASKS = 4
GOAL_RADIUS = 0.2


@dataclass(frozen=True, kw_only=True)
class Options:
    """PLATIPUS on sparse navigation: train, adapt in unseen tasks, draw all hypotheses."""

    iterations: int | None = None
    """meta-iterations; by default those of the preset"""
    seed: int = 0
    """root of all randomness"""
    test_tasks: int = 200
    """unseen tasks that the final agent is evaluated on"""
    threads: int = 1
    """CPU threads"""
    out: Path | None = None
    """run folder; by default runs/platipus-SparsePointNavigation-v0-seedSEED"""
    results: Path | None = None
    """path of the figure (.png, .svg) and the page (.md); by default in the run folder"""


@dataclass(frozen=True)
class Rollouts:
    """One phase of all tasks, its rollouts sorted by hypothesis."""

    path: NDArray[np.float64]  # [T, N, H, B / H, 2] positions
    success: NDArray[np.float64]  # [N] share of rollouts in which the goal was reached

    @property
    def spread(self) -> NDArray[np.float64]:
        """[N] root mean square distance of hypotheses' mean last positions from their centre."""
        return spread(self.path[-1].mean(2))

    @property
    def chance_spread(self) -> NDArray[np.float64]:
        """[N] the same where each group takes one rollout of each hypothesis, as far as possible.

        It shows how far means of equally many rollouts lie apart if hypotheses do not differ.
        """
        last = self.path[-1]
        return spread(last.swapaxes(1, 2).reshape(last.shape).mean(2))


def spread(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square distance of points [N, H, 2] from the mean of each row, [N]."""
    centred = points - points.mean(1, keepdims=True)
    return np.asarray(np.sqrt((centred**2).sum(2).mean(1)))


def main(options: Options) -> None:
    """Train, adapt, draw."""
    run = metarl.train(
        "platipus",
        TASK,
        preset="hypotheses-4",
        seed=options.seed,
        threads=options.threads,
        out=options.out,
        resume=True,
        **iteration_options(options.iterations),
    )
    goals, phases = adapt(run, options.test_tasks)
    table = [("inner steps", "goal reached", "spread of hypotheses", "spread by chance")]
    for step, phase in enumerate(phases):
        cells = [mean_of(each) for each in (phase.success, phase.spread, phase.chance_spread)]
        table.append((str(step), cells[0], cells[1], cells[2]))
    for row in table:
        print("  ".join(f"{cell:>20}" for cell in row))
    out = options.results or run.path / "hypotheses"
    with figure_style():
        figures = save_figure(paths_figure(goals, phases), out)
    title = f"PLATIPUS: hypotheses before and after experience, {options.test_tasks:,} unseen tasks"
    print(write_page(out, title, table, [run]), *figures, sep="\n")


def mean_of(value: NDArray[np.float64]) -> str:
    """Mean over tasks with its interval."""
    (mean,), (low,), (high,) = metarl.bootstrap_mean(value[None, None])
    return format_interval(mean, low, high)


def adapt(run: metarl.Run, num_tasks: int) -> tuple[NDArray[np.float64], list[Rollouts]]:
    """Goals [N, 2] of unseen tasks, and the rollouts before and after each inner step."""
    family, config = run.config.make_family(), run.config.make_agent_config()
    agent = run.make_agent(family)
    run.load(agent)
    seeds = metarl.Seeds(EVALUATION_SEED)
    tasks = family.sample_tasks(num_tasks, seeds.torch("tasks"), "test")
    batch = metarl.rollout_phases(
        agent,
        family,
        tasks,
        adaptation_steps=agent.evaluation_steps,
        spec=metarl.RolloutSpec(episodes=1, rollouts_per_task=config.rollouts_per_task),
        seeds=seeds.child("hypotheses"),
    )
    hypotheses = run.config.agent_options["hypotheses"]
    return tasks.double().numpy(), [_sorted(each, hypotheses) for each in batch.trajectories]


def _sorted(trajectory: metarl.Trajectory, hypotheses: int) -> Rollouts:
    position = trajectory.obs.double().numpy()
    steps, tasks, rollouts, size = position.shape
    path = position.reshape(steps, tasks, hypotheses, rollouts // hypotheses, size)
    success = trajectory.episode_success(1)[0].double().mean(1).numpy()
    return Rollouts(path, success)


def paths_figure(goals: NDArray[np.float64], phases: list[Rollouts]) -> Figure:
    """A column for each of some tasks; above before experience, below after all inner steps."""
    shown = min(DRAWN_TASKS, len(goals))
    figure = Figure(figsize=(2.2 * shown, 3.4), dpi=300, layout="constrained")
    panels = figure.subplots(2, shown, sharex=True, sharey=True, squeeze=False)
    titles = ("before experience", f"after {len(phases) - 1} inner steps")
    for row, phase, title in zip(panels, (phases[0], phases[-1]), titles, strict=True):
        row[0].set_ylabel(title)
        for task, panel in enumerate(row):
            draw_paths(panel, phase.path[:, task], goals[task])
    figure.supxlabel("a colour for each hypothesis; circle: the goal, unseen in training")
    return figure


def draw_paths(panel: Axes, path: NDArray[np.float64], goal: NDArray[np.float64]) -> None:
    """Paths [T, H, B / H, 2] of one task."""
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = goal + GOAL_RADIUS * np.stack((np.cos(angle), np.sin(angle)), 1)
    panel.fill(*circle.T, color="0.8", zorder=0)
    for hypothesis in range(path.shape[1]):
        colour = COLOURS[hypothesis % len(COLOURS)]
        for rollout in range(path.shape[2]):
            panel.plot(*path[:, hypothesis, rollout].T, color=colour, linewidth=0.7, alpha=0.8)
    panel.set_aspect("equal")
    panel.set_xlim(-1.4, 1.4)
    panel.set_ylim(-0.6, 1.4)


if __name__ == "__main__":
    main(tyro.cli(Options))
