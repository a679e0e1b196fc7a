"""Ways through the plane as a picture: steps of a few trials go in, a path per episode comes out.

Axes: `S` steps. What can be drawn is decided by the shape of what was lived.
"""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.plots.style import QUIET, add_note, new_figure, sources
from metarl.results.step_log import TrialLog, common_tasks


class Stage(NamedTuple):
    """How far adaptation had come when a path was walked."""

    phase: int  # adaptation steps before
    episode: int  # of experience in the task, from 1 on


def paths_figure(logs: Sequence[TrialLog], *, tasks: int = 6) -> Figure:
    """Where an agent went in each of its episodes, from the first (light) to the last (dark).

    Args:
        logs: of agents and references, lived in the same tasks.
        tasks: how many of them to draw.

    Raises:
        ConfigError: observations are not points of a plane, or there are no common tasks.
    """
    for log in logs:
        _require_paths(log)
    chosen = common_tasks(logs, tasks)
    columns = len(chosen) if len(logs) > 1 else min(3, len(chosen))
    rows = len(logs) if len(logs) > 1 else -(-len(chosen) // columns)
    low, high = window(logs, chosen)
    width = 2.2 if columns <= 3 else 1.6
    height = width * float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.4, 2.0))
    figure = new_figure(0.6 + width * columns, 0.95 + (height + 0.2) * rows)
    figure.set_layout_engine("compressed")  # panels of equal aspect stand close together
    grid = figure.subplots(
        rows,
        columns,
        squeeze=False,
        sharex=True,
        sharey=True,
        subplot_kw={"xlim": (low[0], high[0]), "ylim": (low[1], high[1]), "aspect": "equal"},
    )
    shown = stages(logs)
    places = [(log, task) for log in logs for task in chosen]
    for axes, (log, task) in zip(grid.flat, places, strict=False):
        _draw_paths(axes, log.where(log.task == task), shown)
    for axes, task in zip(grid.flat, chosen, strict=False):
        axes.set_title(f"task {task}", loc="left", fontsize=8, color=QUIET, pad=3)
    for axes in grid.flat[len(places) :]:
        axes.set_axis_off()
    if len(logs) > 1:
        for axes, log in zip(grid[:, 0], logs, strict=True):
            axes.set_ylabel(textwrap.fill(log.label, 18), fontsize=9)
    _explain_paths(figure, logs, shown)
    whose = f"{logs[0].label} in " if len(logs) == 1 else ""
    cut = "; paths of references are cut at the frame" * _leaves(logs, chosen, low, high)
    many = sources(logs[0].split, len(chosen))
    add_note(figure, f"{whose}{logs[0].family}: {_copies(logs)} in each of {many}{cut}")
    return figure


def stages(logs: Sequence[TrialLog]) -> list[Stage]:
    """Every stage that somebody lived, in order; one for all who had as much experience then."""
    phases: dict[int, int] = {}
    for log in logs:
        for phase, episode in np.unique(np.stack([log.phase, log.episode], 1), axis=0).tolist():
            # References take no adaptation steps; agents that do say how many there were.
            phases[episode] = max(phase, phases.get(episode, 0))
    return [Stage(phases[episode], episode) for episode in sorted(phases)]


def path(log: TrialLog, episode: int, copy: int = 0) -> NDArray[np.float64]:
    """[S + 1, 2] the points of one episode, its last included, of a log of one task.

    Empty where the episode was not lived.
    """
    life = log.where((log.episode == episode) & (log.copy == copy))
    return np.concatenate([life.observation, life.next_observation[-1:]])


def window(
    logs: Sequence[TrialLog], tasks: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower left and upper right corner, [2] each, of what all panels show.

    That is the goals and the paths of agents; references that wander far off are cut, or nothing
    else could be seen.
    """
    whose = [log for log in logs if log.role == "agent"] or logs
    parts = [log.where(np.isin(log.task, tasks)) for log in whose]
    points = [part.observation for part in parts] + [part.next_observation for part in parts]
    if logs[0].parameter.shape[1] == 2:
        points += [part.parameter for part in parts]
    low, high = np.concatenate(points).min(0), np.concatenate(points).max(0)
    # A path along an axis is not squeezed into a line.
    middle, half = (low + high) / 2, np.maximum(high - low, 0.2 * (high - low).max() + 1e-9) / 2
    return middle - 1.2 * half, middle + 1.2 * half


def _copies(logs: Sequence[TrialLog]) -> str:
    """How often each task was lived in at once, as far as it was written down."""
    counts = sorted({len(np.unique(log.copy)) for log in logs})
    if counts[-1] == 1:
        return "one trial"
    return f"{' or '.join(map(str, counts))} trials at once"


def _leaves(
    logs: Sequence[TrialLog],
    tasks: Sequence[int],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> bool:
    """Whether anybody was outside the window."""
    points = [log.next_observation[np.isin(log.task, tasks)] for log in logs]
    return any(bool(((point < low) | (point > high)).any()) for point in points)


def _draw_paths(axes: Axes, log: TrialLog, shown: Sequence[Stage]) -> None:
    for stage, colour, width in _looks(shown):
        for copy in np.unique(log.copy):
            points = path(log, stage.episode, int(copy))
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
    "markerfacecolor": "#F7C9A960",  # what happens at the goal is what one wants to see
    "markeredgecolor": "#D55E00",
    "linestyle": "none",
    "zorder": 5,
}


def _looks(shown: Sequence[Stage]) -> list[tuple[Stage, str, float]]:
    """Light and broad first, dark and narrow last: told apart in print, and nothing is hidden."""
    share = np.linspace(0, 1, len(shown)) if len(shown) > 1 else np.ones(1)
    scale = matplotlib.colormaps["viridis"]
    return [
        (stage, matplotlib.colors.to_hex(scale(0.82 - 0.82 * part)), 1.9 - 0.9 * part)
        for stage, part in zip(shown, share, strict=True)
    ]


def _name(stage: Stage, shown: Sequence[Stage]) -> str:
    phases = {other.phase for other in shown}
    episode = f"episode {stage.episode}"
    steps = f"after {stage.phase} step{'s' * (stage.phase != 1)}"
    if len(phases) == 1 or len(phases) < len(shown):
        return f"{episode}, {steps}" if stage.phase else episode
    return steps if stage.phase else "before adapting"


def _explain_paths(figure: Figure, logs: Sequence[TrialLog], shown: Sequence[Stage]) -> None:
    handles = [
        Line2D([], [], color=colour, linewidth=width, label=_name(stage, shown))
        for stage, colour, width in _looks(shown)
    ]
    handles.append(Line2D([], [], label="start", **_START))
    if logs[0].parameter.shape[1] == 2:
        handles.append(Line2D([], [], label="goal, not shown to the agent", **_GOAL))
    for columns in range(min(len(handles), 5), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside upper center", ncols=columns, frameon=False
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def _require_paths(log: TrialLog) -> None:
    if log.observation.shape[1] != 2:
        raise ConfigError(
            f"{log.family} cannot be drawn as paths: its observations have "
            f"{log.observation.shape[1] or 'too many'} components. A picture of paths takes "
            "observations of two components for points of a plane, and tasks of two parameters for "
            "goals; see the adaptation."
        )
