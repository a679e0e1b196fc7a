"""Figures of trajectories in the plane: one path per episode in a few tasks.

Axes: `S` steps. A log can be drawn if its observations are points [S, 2].
"""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.plots.style import MUTED, add_note, panel_figure, tasks_text
from metarl.results.step_log import StepLog, common_tasks

MAX_TASKS = 6
"""drawn by default"""


class Stage(NamedTuple):
    """The progress of adaptation at an episode."""

    phase: int  # number of adaptation steps before
    episode: int  # of experience in the task, from 1 on


def paths_figure(
    logs: Sequence[StepLog],
    *,
    tasks: int = MAX_TASKS,
    size: tuple[float, float] | None = None,
    target: Axes | FigureBase | None = None,
) -> FigureBase:
    """The path of each episode, from the first (light) to the last (dark).

    Args:
        logs: of agents and references, in the same tasks.
        tasks: number of tasks to draw.
        size: width and height in inches.
        target: axes, a figure or a subfigure to draw into, in place of a new one.

    Raises:
        ConfigError: observations are not points of a plane, or the logs are of different tasks.
    """
    for log in logs:
        _require_paths(log)
    chosen = common_tasks(logs, tasks)
    columns = len(chosen) if len(logs) > 1 else min(3, len(chosen))
    rows = len(logs) if len(logs) > 1 else -(-len(chosen) // columns)
    low, high = axis_limits(logs, chosen)
    width = 2.2 if columns <= 3 else 1.6
    height = width * float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.4, 2.0))
    figure = panel_figure(target, size or (0.6 + width * columns, 0.95 + (height + 0.2) * rows))
    if target is None and isinstance(figure, Figure):
        figure.set_layout_engine("compressed")  # removes the space around panels of equal aspect
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=True,
        sharey=True,
        subplot_kw={"xlim": (low[0], high[0]), "ylim": (low[1], high[1]), "aspect": "equal"},
    )
    shown = stages(logs)
    panels = [(log, task) for log in logs for task in chosen]
    for axes, (log, task) in zip(grid.flat, panels, strict=False):
        _draw_paths(axes, log.where(log.task == task), shown)
    for axes, task in zip(grid.flat, chosen, strict=False):
        axes.set_title(f"task {task}", loc="left", fontsize=8, color=MUTED, pad=3)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    if len(logs) > 1:
        for axes, log in zip(grid[:, 0], logs, strict=True):
            axes.set_ylabel(textwrap.fill(log.label, 18), fontsize=9)
    _add_legend(figure, logs, shown)
    if not isinstance(figure, Figure) or target is not None:
        return figure
    agent = f"{logs[0].label} in " if len(logs) == 1 else ""
    cut = "; paths of references are cut at the frame" * _exceeds(logs, chosen, low, high)
    many = tasks_text(logs[0].split, len(chosen))
    add_note(figure, f"{agent}{logs[0].family}: {_trials_text(logs)} in each of {many}{cut}")
    return figure


PATHS_COLUMNS = ("label", "role", "task", "rollout", "phase", "episode", "point", "x", "y")


def paths_rows(logs: Sequence[StepLog], *, tasks: int = MAX_TASKS) -> Iterator[tuple[object, ...]]:
    """What the figure of these arguments shows, in the order of `PATHS_COLUMNS`."""
    for log in logs:
        _require_paths(log)
    for task, log in itertools.product(common_tasks(logs, tasks), logs):
        part = log.where(log.task == task)
        for stage in stages(logs):
            for rollout in np.unique(part.rollout).tolist():
                points = episode_path(part, stage.episode, rollout).tolist()
                for number, (x, y) in enumerate(points):
                    where = (task, rollout, stage.phase, stage.episode, number)
                    yield log.label, log.role, *where, x, y


def stages(logs: Sequence[StepLog]) -> list[Stage]:
    """The stages of all logs, in order, one for each amount of experience."""
    phases: dict[int, int] = {}
    for log in logs:
        for phase, episode in np.unique(np.stack([log.phase, log.episode], 1), axis=0).tolist():
            # References take no adaptation steps, so the number of steps comes from the agents.
            phases[episode] = max(phase, phases.get(episode, 0))
    return [Stage(phases[episode], episode) for episode in sorted(phases)]


def episode_path(log: StepLog, episode: int, rollout: int = 0) -> NDArray[np.float64]:
    """[S + 1, 2] all points of one episode, including the last, from a log of one task.

    Empty where the log lacks the episode.
    """
    steps = log.where((log.episode == episode) & (log.rollout == rollout))
    return np.concatenate([steps.observation, steps.next_observation[-1:]])


def axis_limits(
    logs: Sequence[StepLog], tasks: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower left and upper right corner of all panels, [2] each.

    They contain the goals and the paths of agents. Paths of references may leave the panel, so
    that distant references do not shrink the rest.
    """
    agents = [log for log in logs if log.role == "agent"] or logs
    parts = [log.where(np.isin(log.task, tasks)) for log in agents]
    points = [part.observation for part in parts] + [part.next_observation for part in parts]
    if logs[0].parameter.shape[1] == 2:
        points += [part.parameter for part in parts]
    low, high = np.concatenate(points).min(0), np.concatenate(points).max(0)
    # A minimum extent keeps panels of paths along one axis from collapsing.
    middle, half = (low + high) / 2, np.maximum(high - low, 0.2 * (high - low).max() + 1e-9) / 2
    return middle - 1.2 * half, middle + 1.2 * half


def _trials_text(logs: Sequence[StepLog]) -> str:
    """The number of logged trials in each task, as text."""
    counts = sorted({len(np.unique(log.rollout)) for log in logs})
    if counts[-1] == 1:
        return "one trial"
    return f"{' or '.join(map(str, counts))} trials at once"


def _exceeds(
    logs: Sequence[StepLog],
    tasks: Sequence[int],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> bool:
    """Whether some path leaves the axis limits."""
    points = [log.next_observation[np.isin(log.task, tasks)] for log in logs]
    return any(bool(((point < low) | (point > high)).any()) for point in points)


def _draw_paths(axes: Axes, log: StepLog, shown: Sequence[Stage]) -> None:
    for stage, colour, width in _line_styles(shown):
        for rollout in np.unique(log.rollout):
            points = episode_path(log, stage.episode, int(rollout))
            if not len(points):
                continue
            axes.plot(*points.T, color=colour, linewidth=width, solid_joinstyle="round", zorder=3)
            axes.plot(*points[-1], "s", color=colour, markersize=1.5 + width, zorder=3)
            axes.plot(*points[0], **_START)
    if log.parameter.shape[1] == 2:
        axes.plot(*log.parameter[0], **_GOAL)
    axes.grid(color="0.92", linewidth=0.8)
    axes.tick_params(labelsize=7)


_START: dict[str, Any] = {
    "marker": "o",
    "markersize": 5,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
    "zorder": 4,
}
_GOAL: dict[str, Any] = {
    "marker": "*",
    "markersize": 13,
    "clip_on": False,
    "markerfacecolor": "#F7C9A960",  # translucent, so that paths near the goal stay visible
    "markeredgecolor": "#D55E00",
    "linestyle": "none",
    "zorder": 5,
}


def _line_styles(shown: Sequence[Stage]) -> list[tuple[Stage, str, float]]:
    """Colour and width of each stage: from light and broad to dark and narrow.

    Distinguishable in print, and later paths do not hide earlier ones.
    """
    share = np.linspace(0, 1, len(shown)) if len(shown) > 1 else np.ones(1)
    scale = matplotlib.colormaps["viridis"]
    return [
        (stage, matplotlib.colors.to_hex(scale(0.82 - 0.82 * part)), 1.9 - 0.9 * part)
        for stage, part in zip(shown, share, strict=True)
    ]


def _stage_name(stage: Stage, shown: Sequence[Stage]) -> str:
    phases = {other.phase for other in shown}
    episode = f"episode {stage.episode}"
    steps = f"after {stage.phase} step{'s' * (stage.phase != 1)}"
    if len(phases) == 1 or len(phases) < len(shown):
        return f"{episode}, {steps}" if stage.phase else episode
    return steps if stage.phase else "before adapting"


def _add_legend(figure: FigureBase, logs: Sequence[StepLog], shown: Sequence[Stage]) -> None:
    handles = [
        Line2D([], [], color=colour, linewidth=width, label=_stage_name(stage, shown))
        for stage, colour, width in _line_styles(shown)
    ]
    handles.append(Line2D([], [], label="start", **_START))
    if logs[0].parameter.shape[1] == 2:
        handles.append(Line2D([], [], label="goal, not shown to the agent", **_GOAL))
    for columns in range(min(len(handles), 5), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside upper center", ncols=columns, frameon=False
        )
        width = figure.bbox.width  # type: ignore[attr-defined]
        if columns == 1 or legend.get_window_extent().width <= width:
            return
        legend.remove()


def _require_paths(log: StepLog) -> None:
    if log.observation.shape[1] != 2:
        raise ConfigError(
            f"{log.family} cannot be drawn as paths: its observations have "
            f"{log.observation.shape[1] or 'too many'} components. A figure of paths needs "
            "observations of two components as points, and takes tasks of two parameters as "
            "goals; plot the adaptation instead."
        )
