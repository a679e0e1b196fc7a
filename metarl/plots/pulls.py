"""A bandit player's pulls as a picture: steps of a few trials go in, a raster of arms comes out.

Axes: `S` steps, `A` arms. What can be drawn is decided by the shape of what was lived.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.plots.style import add_note, new_figure, sources
from metarl.results.step_log import TrialLog, common_tasks

MOST_NAMED_ARMS = 10
"""up to here each arm has a tick and a number"""
MOST_FRAMED_PULLS = 50
"""up to here pulls are set apart by white lines"""

BLANK, PAID = "#F0B840", "#0B3C5D"
"""light and dark, so that they differ in print without colours too"""


def pulls_figure(logs: Sequence[TrialLog], *, tasks: int = 4) -> Figure:
    """Which arm was pulled when, the best arm on top, beside what the arms pay.

    Args:
        logs: of agents and references, lived in the same tasks.
        tasks: how many of them to draw.

    Raises:
        ConfigError: these are no bandits, or nothing was lived in common tasks.
    """
    for log in logs:
        _require_pulls(log)
    chosen = common_tasks(logs, tasks)
    arms = logs[0].num_actions or 1
    height = max(0.75, min(0.16 * arms, 6.5 / len(chosen)))
    figure = new_figure(1.5 + min(6.0, 2.6 + 2.0 * len(logs)), 1.1 + (height + 0.22) * len(chosen))
    paying = [payouts(logs[0], task) for task in chosen]
    beside = paying[0] is not None
    grid = figure.subplots(
        len(chosen),
        len(logs) + beside,
        squeeze=False,
        sharey="row",
        sharex="col",
        width_ratios=[1.1] * beside + [6 / len(logs)] * len(logs),
    )
    paint = _Paint(logs, chosen)
    for row, (task, payout) in enumerate(zip(chosen, paying, strict=True)):
        order = np.arange(arms) if payout is None else np.argsort(-payout, kind="stable")
        for axes, log in zip(grid[row, int(beside) :], logs, strict=True):
            paint.draw(axes, log, task, order)
        if payout is not None:
            _draw_payouts(grid[row, 0], payout[order])
        _number_arms(grid[row, 0], task, order)
    for axes, log in zip(grid[0, int(beside) :], logs, strict=True):
        axes.set_title(textwrap.fill(log.label, 60 // len(logs)), loc="left")
    for axes in grid[-1, int(beside) :]:
        axes.set_xlabel("Pull")
    if beside:
        grid[-1, 0].set_xlabel("Expected payout")
    paint.explain(figure)
    order_text = "the best arm on top" if beside else "arms by number"
    add_note(
        figure,
        f"{logs[0].family}: one trial in each of {sources(logs[0].split, len(chosen))}, "
        f"{order_text}",
    )
    return figure


def raster(log: TrialLog, task: int) -> NDArray[np.float64]:
    """[A, S] reward of each pull in a task, in the row of the arm that was pulled, else NaN."""
    life = log.where((log.task == task) & (log.copy == 0))
    cells = np.full((log.num_actions or 1, len(life.reward)), np.nan)
    cells[life.action[:, 0].astype(int), np.arange(len(life.reward))] = life.reward
    return cells


def payouts(log: TrialLog, task: int) -> NDArray[np.float64] | None:
    """[A] what each arm is expected to pay; None where the rows do not say.

    A task with as many parameters as there are arms is taken to be made of just that.
    """
    life = log.where(log.task == task)
    for said in (life.expected_reward, life.parameter):
        if said.shape[1] == log.num_actions:
            first: NDArray[np.float64] = said[0]
            return first
    return None


class _Paint:
    """Colours of rewards, the same in all panels: two where arms pay 1 or nothing, else a scale."""

    def __init__(self, logs: Sequence[TrialLog], tasks: Sequence[int]) -> None:
        rewards = np.concatenate([log.reward[np.isin(log.task, tasks)] for log in logs])
        self._two = bool(np.isin(rewards, (0.0, 1.0)).all())
        self._range = (0.0, 1.0) if self._two else (float(rewards.min()), float(rewards.max()))
        self._colours = ListedColormap([BLANK, PAID]) if self._two else "viridis_r"
        self._meshes: list[QuadMesh] = []

    def draw(self, axes: Axes, log: TrialLog, task: int, order: NDArray[np.int64]) -> None:
        cells = raster(log, task)[order]
        arms, pulls = cells.shape
        framed = pulls <= MOST_FRAMED_PULLS
        mesh = axes.pcolormesh(
            np.arange(pulls + 1) + 0.5,
            np.arange(arms + 1) - 0.5,
            np.ma.masked_invalid(cells),
            cmap=self._colours,
            vmin=self._range[0],
            vmax=self._range[1],
            edgecolors="white" if framed else "none",
            linewidth=0.6 if framed else 0.0,
        )
        self._meshes.append(mesh)
        for border in np.arange(arms - 1) + 0.5:
            axes.axhline(border, color="0.9", linewidth=0.6, zorder=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=2))
        axes.tick_params(axis="y", length=0)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set(visible=True, color="0.6")

    def explain(self, figure: Figure) -> None:
        """A legend, or a scale."""
        if not self._two:
            bar = figure.colorbar(self._meshes[0], ax=figure.axes, shrink=0.6, pad=0.02)
            bar.set_label("Reward of the pull")
            return
        patches = [
            Patch(color=PAID, label="pulled, paid 1"),
            Patch(color=BLANK, label="pulled, paid 0"),
        ]
        figure.legend(handles=patches, loc="outside upper right", ncols=2, frameon=False)


def _draw_payouts(axes: Axes, payout: NDArray[np.float64]) -> None:
    place = np.arange(len(payout))
    axes.barh(place, payout, height=0.72, color="0.72")
    axes.axvline(0, color="0.3", linewidth=0.8)
    for spine in ("left", "top", "right"):
        axes.spines[spine].set_visible(False)
    if len(payout) <= MOST_NAMED_ARMS:
        for y, value in zip(place, payout, strict=True):
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


def _number_arms(axes: Axes, task: int, order: NDArray[np.int64]) -> None:
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_ylabel(f"task {task}")
    axes.tick_params(axis="y", length=0, labelsize=7)
    if len(order) <= MOST_NAMED_ARMS:
        axes.set_yticks(np.arange(len(order)), [f"arm {arm}" for arm in order])
    else:
        axes.set_yticks([])


def _require_pulls(log: TrialLog) -> None:
    found = None
    if log.num_actions is None:
        found = "its actions are continuous"
    elif log.step.max() > 1:
        found = f"its episodes last up to {log.step.max()} steps"
    elif log.phase.max() > 0:
        raise ConfigError(
            f"{log.label} adapts between phases of many trials, so its pulls are not one trial to "
            "be drawn pull by pull; see the adaptation."
        )
    elif log.observation.size and np.ptp(log.observation, axis=0).any():
        found = "its observations change"
    if found:
        raise ConfigError(
            f"{log.family} is no bandit: {found}. A picture of pulls shows discrete actions in "
            "episodes of one step under an observation that never changes; see the adaptation, or "
            "the paths."
        )
