"""Drawing of curves over episodes of experience, shared by adaptation and regret.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.plots.style import (
    COLOURS,
    FONT_SIZES,
    MARKERS,
    MUTED,
    REFERENCE_STYLES,
    LegendLayout,
    add_legend,
    add_note,
    agent_dashes,
    new_figure,
    reference_dashes,
    tasks_text,
)
from metarl.results.adaptation_curves import Curve
from metarl.results.bootstrap import (
    ROLES,
    JoinedCurve,
    bootstrap_mean,
)

Elementwise: TypeAlias = Callable[[Any], NDArray[np.float64]]

WIDTH, HEIGHT = 6.4, 3.4
"""inches of a figure with few labels"""
PLOTTED_COLUMNS = ("agent", "label", "role", "num_runs", "episode", "mean", "low", "high")
MAX_OUTLYING = 4.0
"""ranges of all other curves that a curve may lie apart from them, without being cut off"""
TITLE_CHARS = 48
"""of a title that fit above the axes, left of the legend"""
FEW_POINTS = 12
"""up to this number, points are drawn with markers and error bars, not as a band"""
MIN_WIDTH_SHARE = 0.2
"""if a curve covers a smaller share of the axis, the axis is logarithmic"""


class EpisodeCurves(NamedTuple):
    """What a figure over episodes shows."""

    one: Curve  # names the family and the tasks
    curves: Sequence[JoinedCurve]
    label: str  # of the y-axis
    tasks: str | None = None  # text in place of the tasks of `one`


class DrawnCurve(NamedTuple):
    """A curve in a figure."""

    curve: JoinedCurve
    number: int  # among the curves of its role
    dashes: Any
    handle: Any  # of the legend, labelled

    @property
    def positions(self) -> NDArray[np.float64]:
        """[P] positions of its points on the x-axis; empty if it is listed in the legend only."""
        line = getattr(self.handle, "lines", [self.handle])[0]
        x = np.asarray(line.get_xdata(), np.float64)
        return x[~np.isnan(x)]  # in gaps of a band


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a figure looks, where the user chose it."""

    size: tuple[float, float] | None = None
    """width and height in inches"""
    ylim: tuple[float, float] | None = None
    """ends of the y-axis"""
    axes: Axes | None = None
    """axes to draw into, in place of a new figure"""


def curves_figure(shown: EpisodeCurves, look: Look | None = None) -> Figure:
    """Curves of agents and references.

    Raises:
        ConfigError: there are no curves.
    """
    curves, look = shown.curves, look or Look()
    if not curves:
        raise ConfigError("There are no curves to draw: no agent, and no reference was chosen.")
    width = look.size[0] if look.size else WIDTH
    labels = [_legend_label(curve, -np.inf) for curve in curves]
    layout = LegendLayout.of(labels, width, look.size[1] if look.size else None)
    if look.axes is None:
        above = layout.columns is not None
        height = HEIGHT + layout.height if above else max(HEIGHT, 0.5 + layout.height)
        axes = new_figure(*(look.size or (width, height))).add_subplot()
    else:
        axes = look.axes
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    drawn, note = draw_curves(axes, shown, look.ylim)
    _add_legend(axes, drawn, layout, inside=look.axes is not None)
    if look.axes is None:
        add_note(figure, note)
    return figure


def draw_curves(
    axes: Axes, shown: EpisodeCurves, ylim: tuple[float, float] | None = None
) -> tuple[list[DrawnCurve], str]:
    """Draws curves into axes, without a legend.

    Args:
        axes: to draw into.
        shown: at least one curve.
        ylim: ends of the y-axis; None: a curve that would squeeze all others is cut off.

    Returns:
        The curves from back to front, and a note on what they show.
    """
    drawn = _draw(axes, shown.curves)
    axes.set_title(textwrap.fill(shown.one.family, TITLE_CHARS), loc="left", color=MUTED)
    axes.set_xlabel("Episodes of experience in the task")
    axes.set_ylabel(shown.label)
    axes.grid(color="0.92", linewidth=0.8)
    cut = _limit_heights(axes, shown.curves) if ylim is None else ""
    if ylim is not None:
        axes.set_ylim(*ylim)
    tasks = shown.tasks or tasks_text(shown.one.split, shown.one.num_tasks)
    return drawn, _note(tasks, shown.curves) + cut


def plotted_rows(curves: Sequence[JoinedCurve]) -> Iterator[tuple[object, ...]]:
    """What the figure shows, in the order of `PLOTTED_COLUMNS`."""
    for curve in curves:
        mean, low, high = bootstrap_mean(curve.returns)
        for point, episode in enumerate(curve.episode.tolist()):
            numbers = float(mean[point]), float(low[point]), float(high[point])
            yield curve.agent, curve.label, curve.role, curve.num_runs, episode, *numbers


def _limit_heights(axes: Axes, curves: Sequence[JoinedCurve]) -> str:
    """Cuts off a curve that would squeeze all others; returns a sentence about it, or nothing.

    It is cut off where the distance between its end and that of the next curve is more than
    `MAX_OUTLYING` times the range of all others.
    """
    bottom = _lowest_drawn(curves)
    drawn = [curve for curve in curves if curve.mean.max() >= bottom]
    text = ""
    for sign, word in ((1, "down"), (-1, "up")):
        lowest, *rest = sorted(drawn, key=lambda curve: float((sign * curve.mean).min()))
        if len(rest) < 2:
            continue
        low, high = (sign * rest[0].mean).min(), max((sign * one.mean).max() for one in rest)
        end = float((sign * lowest.mean).min())
        if low - end > MAX_OUTLYING * (high - low) > 0:
            ends = sign * (low - 0.3 * (high - low)), sign * (high + 0.1 * (high - low))
            axes.set_ylim(*sorted(map(float, ends)))
            text += f"; cut off at the axis: {lowest.label}, {word} to {sign * end:.3g}"
    return text


def _drawing_order(curves: Sequence[JoinedCurve]) -> list[JoinedCurve]:
    """References first, so that agents are drawn on top."""
    return sorted(curves, key=lambda curve: curve.role == "agent")


def _draw(axes: Axes, curves: Sequence[JoinedCurve]) -> list[DrawnCurve]:
    """Draws the curves in their drawing order."""
    agents = sum(curve.role == "agent" for curve in curves)
    few = all(
        len(curve.episode) <= FEW_POINTS for curve in curves if curve.role == "agent" or not agents
    )
    count: dict[str, int] = dict.fromkeys(ROLES, 0)
    reference_styles = {
        role: reference_dashes(role, [curve.agent for curve in curves if curve.role == role])
        for role in REFERENCE_STYLES
    }
    bottom = _lowest_drawn(curves)
    axes.set_xscale("log" if _needs_log_scale(curves) else "linear")
    drawn: list[DrawnCurve] = []
    for curve in _drawing_order(curves):
        number = count[curve.role]
        count[curve.role] += 1
        if curve.role != "agent":
            dashes = reference_styles[curve.role][number]
            handle = _draw_reference(axes, curve, dashes, bottom)
        elif len(curve.episode) <= FEW_POINTS:
            # Small horizontal offsets keep the error bars of similar agents legible.
            offset = min(0.015, 0.06 / agents) * (number - (agents - 1) / 2) * few
            dashes = agent_dashes(number)
            x = _shifted(axes, curves, curve.episode, offset)
            handle = _draw_points(axes, curve, number, x)
        else:
            dashes = agent_dashes(number)
            handle = _draw_band(axes, curve, number)
        handle.set_label(_legend_label(curve, bottom))
        drawn.append(DrawnCurve(curve, number, dashes, handle))
    axes.margins(x=0.06 if few else 0.02)
    _set_ticks(axes, curves, few)
    return drawn


def _needs_log_scale(curves: Sequence[JoinedCurve]) -> bool:
    """Whether a linear axis would squeeze some curve into less than `MIN_WIDTH_SHARE` of it."""
    longest = max(curve.last_episode for curve in curves)
    widths = [int(np.ptp(curve.episode)) for curve in curves if len(curve.episode) > 1]
    return bool(widths) and min(widths) < MIN_WIDTH_SHARE * longest


def _scale(axes: Axes) -> tuple[Elementwise, Elementwise]:
    """Maps episodes to positions on the axis, in any unit, and positions to episodes."""
    return (np.log, np.exp) if axes.get_xscale() == "log" else (np.asarray, np.asarray)


def _shifted(
    axes: Axes, curves: Sequence[JoinedCurve], episode: NDArray[np.int64], share: float
) -> NDArray[np.float64]:
    """[P] episodes, shifted right by a share of the width of all curves."""
    position, inverse = _scale(axes)
    width = np.ptp(position(np.concatenate([curve.episode for curve in curves])))
    shifted: NDArray[np.float64] = inverse(position(episode) + share * width)
    return shifted


def _set_ticks(axes: Axes, curves: Sequence[JoinedCurve], few: bool) -> None:
    """Ticks at the measured episodes where there are few, else at round numbers."""
    logarithmic = axes.get_xscale() == "log"
    if few:
        agents = [curve for curve in curves if curve.role == "agent"] or curves
        points = np.unique(np.concatenate([curve.episode for curve in agents]))
        ends = np.concatenate([curve.episode[[0, -1]] for curve in agents])
        axes.set_xticks(_legible_ticks(points, _scale(axes)[0](points), ends))
    elif logarithmic:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if logarithmic:
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))


def _legible_ticks(
    points: NDArray[np.int64], positions: NDArray[np.float64], ends: NDArray[np.int64]
) -> list[int]:
    """The points whose tick labels do not overlap; `ends` have priority."""
    kept: list[int] = []
    for i in np.argsort(~np.isin(points, ends), kind="stable").tolist():
        gaps = [abs(positions[i] - positions[k]) / np.ptp(positions) for k in kept]
        digits = [len(str(max(points[i], points[k]))) for k in kept]
        if all(gap >= 0.03 + 0.025 * d for gap, d in zip(gaps, digits, strict=True)):
            kept.append(i)
    return [int(points[i]) for i in sorted(kept)]


def legend_order(drawn: Sequence[DrawnCurve]) -> list[DrawnCurve]:
    """The curves in the order of their heights at the right, the highest first."""
    # Mean of the last tenth: the last point alone may be noisier than the gap between two curves.
    height = [one.curve.mean[-1 - len(one.curve.mean) // 10 :].mean() for one in drawn]
    return [drawn[i] for i in np.argsort(height, kind="stable")[::-1]]


def _add_legend(
    axes: Axes, drawn: Sequence[DrawnCurve], layout: LegendLayout, *, inside: bool
) -> None:
    """Right of the axes if there is room, else above."""
    ordered = [one.handle for one in legend_order(drawn)]
    figure = axes.get_figure(root=True)
    assert figure is not None
    if inside:
        add_legend(axes, ordered, loc="best", fontsize=FONT_SIZES[-1], handlelength=3.2)
        return
    place: dict[str, Any] = {"loc": "outside right upper"}
    if layout.columns is not None:
        place = {"loc": "outside upper center", "ncols": layout.columns}
    add_legend(figure, ordered, fontsize=layout.font_size, handlelength=3.2, **place)


def _legend_label(curve: JoinedCurve, bottom: float) -> str:
    """The label of an agent or baseline, after the role of other references."""
    if curve.role == "agent":
        return curve.label
    name = curve.label if curve.role == "baseline" else f"{curve.role}: {curve.label}"
    return f"{name} (at {curve.mean.mean():.3g})" if curve.mean.max() < bottom else name


def _lowest_drawn(curves: Sequence[JoinedCurve]) -> float:
    """Floors below this return would flatten all other curves, so only the legend lists them."""
    others = [curve.mean for curve in curves if curve.role != "floor"]
    if not others:
        return -np.inf
    low, high = min(mean.min() for mean in others), max(mean.max() for mean in others)
    return float(low - 5 * (high - low)) if high > low else -np.inf


def _draw_reference(axes: Axes, curve: JoinedCurve, dashes: Any, bottom: float) -> Any:
    colour, _ = REFERENCE_STYLES[curve.role]
    hidden = bool(curve.mean.max() < bottom)
    if not hidden and len(curve.episode) > 1 and curve.role != "baseline":  # too many of these
        _, low, high = bootstrap_mean(curve.returns)
        axes.fill_between(curve.episode, low, high, color=colour, alpha=0.07, linewidth=0)
    (line,) = axes.plot(
        [] if hidden else curve.episode,
        [] if hidden else curve.mean,
        color=colour,
        linestyle=dashes,
        linewidth=1.0 if curve.role == "baseline" else 1.4,
        marker="_" if len(curve.episode) == 1 else "",  # a line of one point is invisible
    )
    return line


def _draw_points(axes: Axes, curve: JoinedCurve, index: int, x: NDArray[np.float64]) -> Any:
    mean, low, high = bootstrap_mean(curve.returns)
    return axes.errorbar(
        x,
        mean,
        yerr=[mean - low, high - mean],
        color=COLOURS[index % len(COLOURS)],
        linestyle=agent_dashes(index),
        linewidth=1.6,
        marker=MARKERS[index % len(MARKERS)],
        markersize=5,
        capsize=2.5,
    )


def _draw_band(axes: Axes, curve: JoinedCurve, index: int) -> Any:
    """A band with gaps where episodes were not measured; a thin line spans the gaps."""
    gaps = np.flatnonzero(np.diff(curve.episode) > 1) + 1
    episode = np.insert(curve.episode.astype(np.float64), gaps, np.nan)
    mean, low, high = (np.insert(part, gaps, np.nan) for part in bootstrap_mean(curve.returns))
    colour = COLOURS[index % len(COLOURS)]
    axes.fill_between(episode, low, high, color=colour, alpha=0.22, linewidth=0)
    if len(gaps):
        axes.plot(curve.episode, curve.mean, color=colour, linewidth=0.6)
    (line,) = axes.plot(
        episode,
        mean,
        color=colour,
        linestyle=agent_dashes(index),
        linewidth=1.8,
    )
    return line


def _note(tasks: str, curves: Sequence[JoinedCurve]) -> str:
    text = f"Mean and 95% bootstrap interval over {tasks}"
    runs = sorted({curve.num_runs for curve in curves if curve.role == "agent"})
    if not runs:
        return text
    if runs[-1] == 1:
        return f"{text}, one training seed"
    several = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else str(runs[0])
    return f"{text} and {several} training seeds"
