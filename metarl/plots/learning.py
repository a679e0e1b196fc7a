"""Figures of a training metric over environment steps and wall time.

Axes: `R` runs (the seeds of one agent), `I` meta-iterations.
"""

import json
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.plots.style import (
    COLOURS,
    MARKERS,
    LegendLayout,
    add_legend,
    add_note,
    agent_dashes,
    panel_figure,
)
from metarl.results.learning_curves import LearningCurve

WIDTH, HEIGHT = 6.8, 3.2
"""inches of a figure with few labels"""
LEARNING_COLUMNS = ("metric", "label", "num_runs", "env_steps", "seconds", "mean", "low", "high")
SMOOTHED_SHARE = 1 / 50
"""default width of the running mean, as a share of all iterations"""
FAINT = ", faint: each iteration"
"""end of the note of a figure in which each iteration is drawn, too"""


HELD_OUT = ", held-out tasks"
"""end of the label of evaluations in the course of training"""

MetricSeries: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""x and values of one run, [I] each"""


class MetricBand(NamedTuple):
    """Mean, minimum and maximum over several runs, each [I]."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def learning_figure(
    curves: Sequence[LearningCurve],
    *,
    smooth: int | None = None,
    join_unfinished: bool = False,
    size: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    target: Axes | FigureBase | None = None,
) -> FigureBase:
    """A metric over environment steps and over wall time, in two panels.

    Args:
        curves: of one family and one metric; runs that differ in the seed only are joined.
        smooth: meta-iterations in each running mean, 1 for none; by default a fiftieth of the run.
        join_unfinished: join runs that have not ended with others; by default each unfinished run
            is a line, whose label says so.
        size: width and height in inches.
        ylim: ends of the y-axis.
        target: axes, a figure or a subfigure to draw into, in place of a new one.

    Raises:
        ConfigError: the families differ, or `smooth` is not positive.
    """
    _require_one_family(curves)
    window, groups = _window(curves, smooth), _by_agent(curves, join_unfinished)
    width = size[0] if size else WIDTH
    evaluated = {label: band for label, runs in groups.items() if (band := held_out_bands(runs))}
    labels = [*groups, *(label + HELD_OUT for label in evaluated)]
    layout = LegendLayout.of(labels, width, size[1] if size else None)
    columns = layout.columns or 2
    rows = layout.height if len(labels) > columns else 0.0
    figure = panel_figure(target, size or (width, HEIGHT + rows))
    axes = figure.subplots(1, 2, sharey=True)
    name, unit = time_unit(max(curve.seconds[-1] for curve in curves))
    handles: list[Any] = []
    for index, (label, runs) in enumerate(groups.items()):
        by_steps = [(run.env_steps, run.values) for run in runs]
        handles.append(_draw(axes[0], label, by_steps, window, index))
        _draw(axes[1], label, [(run.seconds / unit, run.values) for run in runs], window, index)
        if label in evaluated:
            steps, seconds = evaluated[label]
            handles.append(_draw_held_out(axes[0], label, steps, index))
            _draw_held_out(axes[1], label, seconds._replace(x=seconds.x / unit), index)
    axes[0].set_xlabel("Environment steps")
    axes[0].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[1].set_xlabel(f"{name} of training")
    axes[0].set_ylabel(curves[0].metric.replace("_", " ").capitalize())
    for each in axes:
        each.grid(color="0.92", linewidth=0.8)
        each.margins(x=0.02)
    if ylim is not None:
        axes[0].set_ylim(*ylim)
    place = {"loc": "outside upper center", "ncols": columns, "fontsize": layout.font_size}
    add_legend(figure, handles, handlelength=3.2, **place)
    if isinstance(figure, Figure) and target is None:
        add_note(figure, f"{curves[0].family}: {_note(groups, window)}")
    return figure


def learning_rows(
    curves: Sequence[LearningCurve], *, smooth: int | None = None, join_unfinished: bool = False
) -> Iterator[tuple[object, ...]]:
    """What the figure of these arguments shows, in the order of `LEARNING_COLUMNS`."""
    window, groups = _window(curves, smooth), _by_agent(curves, join_unfinished)
    for label, runs in groups.items():
        values = [running_mean(run.values, window) for run in runs]
        steps = join_runs(list(zip([run.env_steps for run in runs], values, strict=True)))
        seconds = join_runs(list(zip([run.seconds for run in runs], values, strict=True)))
        yield from _band_rows((runs[0].metric, label, len(runs)), steps, seconds)
    for label, runs in groups.items():
        if bands := held_out_bands(runs):
            count = sum(run.held_out is not None for run in runs)
            yield from _band_rows((runs[0].metric, label + HELD_OUT, count), *bands)


def _band_rows(
    names: tuple[object, ...], steps: MetricBand, seconds: MetricBand
) -> Iterator[tuple[object, ...]]:
    numbers = steps.x, seconds.x, steps.mean, steps.low, steps.high
    for row in zip(*(column.tolist() for column in numbers), strict=True):
        yield *names, *row


def held_out_bands(runs: Sequence[LearningCurve]) -> tuple[MetricBand, MetricBand] | None:
    """Evaluations in the course of training, over steps and over seconds; None if there are none.

    Of several runs that were evaluated: after the same steps alone.
    """
    found = [run.held_out for run in runs if run.held_out is not None]
    common = reduce(np.intersect1d, [each.env_steps for each in found]) if found else np.empty(0)
    if not common.size:
        return None
    shared = [np.isin(each.env_steps, common) for each in found]
    by_steps, by_seconds = (
        join_runs([(x[at], each.values[at]) for x, each, at in zip(xs, found, shared, strict=True)])
        for xs in ([each.env_steps for each in found], [each.seconds for each in found])
    )
    return by_steps, by_seconds


def _window(curves: Sequence[LearningCurve], smooth: int | None) -> int:
    """Iterations in each running mean."""
    if smooth is not None and smooth < 1:
        raise ConfigError(f"smooth={smooth} must be at least 1, which leaves the curves unchanged.")
    longest = max(len(curve.values) for curve in curves)
    return smooth or max(1, round(longest * SMOOTHED_SHARE))


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Centred running mean, [I]; the window is cut off at both ends.

    out[i] = mean(values[max(0, i - h) : i + h + 1]),   h = window // 2
    """
    index, half = np.arange(len(values)), window // 2
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    total = np.concatenate([[0.0], values.cumsum()])
    mean: NDArray[np.float64] = (total[high] - total[low]) / (high - low)
    return mean


def join_runs(runs: Sequence[MetricSeries]) -> MetricBand:
    """Mean and range over runs at each iteration, up to the end of the shortest run.

    Args:
        runs: x [I] and values [I] of each; where x differs, its mean is taken.
    """
    length = min(len(values) for _, values in runs)
    x, values = (np.stack([run[part][:length] for run in runs]) for part in (0, 1))
    return MetricBand(x.mean(0), values.mean(0), values.min(0), values.max(0))


def time_unit(seconds: float) -> tuple[str, float]:
    """A suitable unit for a duration, and its length in seconds."""
    if seconds < 120:
        return "Seconds", 1.0
    return ("Minutes", 60.0) if seconds < 3 * 3600 else ("Hours", 3600.0)


def _draw(axes: Axes, label: str, runs: Sequence[MetricSeries], window: int, index: int) -> Line2D:
    """Draws the runs of one agent as a line with a band; returns the line."""
    colour = COLOURS[index % len(COLOURS)]
    band = join_runs([(x, running_mean(values, window)) for x, values in runs])
    style: dict[str, Any] = {"color": colour, "linestyle": agent_dashes(index)}
    if len(runs) > 1:
        axes.fill_between(band.x, band.low, band.high, color=colour, alpha=0.22, linewidth=0)
    elif window > 1:
        axes.plot(*runs[0], color=colour, alpha=0.28, linewidth=0.7)
    (line,) = axes.plot(band.x, band.mean, linewidth=1.8, label=label, **style)
    return line


def _draw_held_out(axes: Axes, label: str, band: MetricBand, index: int) -> ErrorbarContainer:
    """Draws evaluations as points, with the range over runs; returns what the legend shows."""
    ends = np.stack([band.mean - band.low, band.high - band.mean])
    return axes.errorbar(
        band.x,
        band.mean,
        yerr=ends if ends.any() else None,
        label=label + HELD_OUT,
        color=COLOURS[index % len(COLOURS)],
        linestyle="none",
        marker=MARKERS[index % len(MARKERS)],
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linewidth=1.0,
        zorder=3,
    )


def _by_agent(
    curves: Sequence[LearningCurve], join_unfinished: bool
) -> dict[str, list[LearningCurve]]:
    """Runs grouped by label; runs of one group differ in the seed only."""
    groups: dict[str, list[LearningCurve]] = {}
    for curve in curves:
        part = None if join_unfinished else curve.unfinished
        key = json.dumps([curve.agent, curve.label, dict(curve.options), part], sort_keys=True)
        groups.setdefault(key, []).append(curve)
    members = list(groups.values())
    trained = [None if join_unfinished else group[0].unfinished for group in members]
    names = [
        (group[0].label or group[0].agent) + (f" (trained {part})" if part else "")
        for group, part in zip(members, trained, strict=True)
    ]
    labels = [
        name if len(namesakes) == 1 else f"{name} ({_differing_options(group, namesakes)})"
        for name, group in zip(names, members, strict=True)
        for namesakes in [[one for one, other in zip(members, names, strict=True) if other == name]]
    ]
    return dict(zip(labels, members, strict=True))


def _differing_options(
    group: Sequence[LearningCurve], namesakes: Sequence[Sequence[LearningCurve]]
) -> str:
    """The options of a group in which it differs from groups of the same name."""
    options = group[0].options
    differing = [
        name
        for name in options
        if any(other[0].options.get(name) != options[name] for other in namesakes)
    ]
    return ", ".join(f"{name}={options[name]}" for name in differing) or group[0].run


def _note(groups: dict[str, list[LearningCurve]], window: int) -> str:
    seeds = sorted({len(runs) for runs in groups.values()})
    text = "training tasks"
    if window > 1:
        text += f"; running mean over {2 * (window // 2) + 1} iterations"
    if seeds[-1] > 1:
        several = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
        return f"{text}; line and shade: mean and range of {several} training seeds"
    return text + FAINT if window > 1 else text


def _require_one_family(curves: Sequence[LearningCurve]) -> None:
    for curve in curves:
        if curve.family != curves[0].family:
            raise ConfigError(
                f"{curves[0].run!r} was trained on {curves[0].family} and {curve.run!r} on "
                f"{curve.family}; one figure shows one family, so plot them separately."
            )
