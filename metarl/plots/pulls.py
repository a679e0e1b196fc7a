"""Figures of the arms pulled in a few bandit tasks.

Axes: `S` steps, `A` arms. A log can be drawn if it has discrete actions, episodes of one step and
constant observations.
"""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.plots.style import add_note, panel_figure, tasks_text
from metarl.results.step_log import StepLog, common_tasks

MAX_LABELLED_ARMS = 10
"""up to this number, each arm has a label"""
MAX_ARMS = 500
"""more cannot be told apart"""
MAX_OUTLINED_PULLS = 50
"""up to this number, pulls are separated by white lines"""

COLOUR_0, COLOUR_1 = "#F0B840", "#0B3C5D"
"""of rewards 0 and 1: light and dark, so that they differ in black-and-white print too"""


MAX_TASKS = 4
"""drawn by default"""
PULLS_COLUMNS = ("label", "role", "task", "pull", "arm", "reward", "expected_payout")


def pulls_rows(logs: Sequence[StepLog], *, tasks: int = MAX_TASKS) -> Iterator[tuple[object, ...]]:
    """What the figure of these arguments shows, in the order of `PULLS_COLUMNS`."""
    for log in logs:
        _require_pulls(log)
    for task, log in itertools.product(common_tasks(logs, tasks), logs):
        part, expected = log.where((log.task == task) & (log.rollout == 0)), payouts(logs[0], task)
        arms = part.action[:, 0].astype(int).tolist()
        for pull, (arm, reward) in enumerate(zip(arms, part.reward.tolist(), strict=True), 1):
            payout = "" if expected is None else float(expected[arm])
            yield log.label, log.role, task, pull, arm, reward, payout


def pulls_figure(
    logs: Sequence[StepLog],
    *,
    tasks: int = MAX_TASKS,
    size: tuple[float, float] | None = None,
    target: Axes | FigureBase | None = None,
) -> FigureBase:
    """The arm of each pull, with the best arm on top, next to the expected payouts of the arms.

    Args:
        logs: of agents and references, in the same tasks.
        tasks: number of tasks to draw.
        size: width and height in inches.
        target: axes, a figure or a subfigure to draw into, in place of a new one.

    Raises:
        ConfigError: the tasks are not bandits, or the logs are of different tasks.
    """
    for log in logs:
        _require_pulls(log)
    chosen = common_tasks(logs, tasks)
    arms = logs[0].num_actions or 1
    height = max(0.75, min(0.16 * arms, 6.5 / len(chosen)))
    width = 1.5 + min(6.0, 2.6 + 2.0 * len(logs))
    figure = panel_figure(target, size or (width, 1.1 + (height + 0.22) * len(chosen)))
    expected = [payouts(logs[0], task) for task in chosen]
    has_payouts = expected[0] is not None
    grid = figure.subplots(
        len(chosen),
        len(logs) + has_payouts,
        squeeze=False,
        sharey="row",
        sharex="col",
        width_ratios=[1.1] * has_payouts + [6 / len(logs)] * len(logs),
    )
    rasters = _RasterPanels(logs, chosen)
    for row, (task, payout) in enumerate(zip(chosen, expected, strict=True)):
        order = np.arange(arms) if payout is None else np.argsort(-payout, kind="stable")
        for axes, log in zip(grid[row, int(has_payouts) :], logs, strict=True):
            rasters.draw(axes, log, task, order)
        if payout is not None:
            _draw_payouts(grid[row, 0], payout[order])
        _label_arms(grid[row, 0], task, order)
    for axes, log in zip(grid[0, int(has_payouts) :], logs, strict=True):
        axes.set_title(textwrap.fill(log.label, 60 // len(logs)), loc="left")
    for axes in grid[-1, int(has_payouts) :]:
        axes.set_xlabel("Pull")
    if has_payouts:
        grid[-1, 0].set_xlabel("Expected payout")
    rasters.add_legend(figure)
    if not isinstance(figure, Figure) or target is not None:
        return figure
    order_text = "the best arm on top" if has_payouts else "arms by number"
    add_note(
        figure,
        f"{logs[0].family}: one trial in each of {tasks_text(logs[0].split, len(chosen))}, "
        f"{order_text}",
    )
    return figure


def raster(log: StepLog, task: int) -> NDArray[np.float64]:
    """[A, S] reward of each pull in a task, in the row of the pulled arm, else NaN."""
    steps = log.where((log.task == task) & (log.rollout == 0))
    cells = np.full((log.num_actions or 1, len(steps.reward)), np.nan)
    cells[steps.action[:, 0].astype(int), np.arange(len(steps.reward))] = steps.reward
    return cells


def payouts(log: StepLog, task: int) -> NDArray[np.float64] | None:
    """[A] expected payout of each arm; None where the log does not contain it.

    If a task has as many parameters as arms, the parameters are taken as expected payouts.
    """
    steps = log.where(log.task == task)
    for column in (steps.expected_reward, steps.parameter):
        if column.shape[1] == log.num_actions:
            first: NDArray[np.float64] = column[0]
            return first
    return None


class _RasterPanels:
    """Draws rasters with common colours: two for rewards 0 and 1, else a continuous scale."""

    def __init__(self, logs: Sequence[StepLog], tasks: Sequence[int]) -> None:
        rewards = np.concatenate([log.reward[np.isin(log.task, tasks)] for log in logs])
        self._binary = bool(np.isin(rewards, (0.0, 1.0)).all())
        self._range = (0.0, 1.0) if self._binary else (float(rewards.min()), float(rewards.max()))
        self._colours = ListedColormap([COLOUR_0, COLOUR_1]) if self._binary else "viridis_r"
        self._meshes: list[QuadMesh] = []

    def draw(self, axes: Axes, log: StepLog, task: int, order: NDArray[np.int64]) -> None:
        cells = raster(log, task)[order]
        arms, pulls = cells.shape
        outlined = pulls <= MAX_OUTLINED_PULLS
        mesh = axes.pcolormesh(
            np.arange(pulls + 1) + 0.5,
            np.arange(arms + 1) - 0.5,
            np.ma.masked_invalid(cells),
            cmap=self._colours,
            vmin=self._range[0],
            vmax=self._range[1],
            edgecolors="white" if outlined else "none",
            linewidth=0.6 if outlined else 0.0,
        )
        self._meshes.append(mesh)
        for border in np.arange(arms - 1) + 0.5:
            axes.axhline(border, color="0.9", linewidth=0.6, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=2))
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set(visible=True, color="0.6")

    def add_legend(self, figure: FigureBase) -> None:
        """Adds a legend for binary rewards, else a colour bar."""
        if not self._binary:
            panels: Any = figure.axes
            bar = figure.colorbar(self._meshes[0], ax=panels, shrink=0.6, pad=0.02)
            bar.set_label("Reward of the pull")
            return
        patches = [
            Patch(color=COLOUR_1, label="pulled, paid 1"),
            Patch(color=COLOUR_0, label="pulled, paid 0"),
        ]
        figure.legend(handles=patches, loc="outside upper right", ncols=2, frameon=False)


def _draw_payouts(axes: Axes, payout: NDArray[np.float64]) -> None:
    rows = np.arange(len(payout))
    axes.barh(rows, payout, height=0.72, color="0.72")
    axes.axvline(0, color="0.3", linewidth=0.8)
    for spine in ("left", "top", "right"):
        axes.spines[spine].set_visible(False)
    if len(payout) <= MAX_LABELLED_ARMS:
        for y, value in zip(rows, payout, strict=True):
            text = f"{value:.2f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.2f}"
            axes.annotate(
                text,
                (max(value, 0.0), y),
                (2, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
        axes.margins(x=0.25)


def _label_arms(axes: Axes, task: int, order: NDArray[np.int64]) -> None:
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_ylabel(f"task {task}")
    axes.tick_params(axis="y", length=0, labelsize=7)
    if len(order) <= MAX_LABELLED_ARMS:
        axes.set_yticks(np.arange(len(order)), [f"arm {arm}" for arm in order])
    else:
        axes.set_yticks([])


def _require_pulls(log: StepLog) -> None:
    reason = None
    if log.num_actions is None:
        reason = "its actions are continuous"
    elif log.step.max() > 1:
        reason = f"its episodes last up to {log.step.max()} steps"
    elif log.phase.max() > 0:
        raise ConfigError(
            f"{log.label} adapts between phases of many trials, so its pulls are not a single "
            "trial; plot the adaptation instead."
        )
    elif log.observation.size and np.ptp(log.observation, axis=0).any():
        reason = "its observations change"
    elif not 1 <= log.num_actions <= MAX_ARMS:
        reason = f"it has {log.num_actions} actions, where a figure shows at most {MAX_ARMS}"
    elif log.action.shape[1] != 1 or not np.isin(log.action, np.arange(log.num_actions)).all():
        reason = f"some actions are not one of 0 to {log.num_actions - 1}"
    if reason:
        raise ConfigError(
            f"{log.family} is not a bandit: {reason}. A figure of pulls needs discrete actions, "
            "episodes of one step and a constant observation; plot the adaptation or the paths "
            "instead."
        )
