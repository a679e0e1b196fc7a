"""Adaptation and regret as pictures: curves go in, figures of lines over episodes come out.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks.
"""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from metarl.plots.style import (
    COLOURS,
    DASHES,
    GREYS,
    MARKERS,
    QUIET,
    add_note,
    new_figure,
    reference_dashes,
    sources,
)
from metarl.results.bootstrap import ROLES, Line, bootstrap_mean, choose_references, join_curves
from metarl.results.curves import Curve
from metarl.results.scores import cumulative_regret, regret_reference

Numbers: TypeAlias = Callable[[Any], NDArray[np.float64]]
"""from numbers to as many others, one by one"""

TITLE_LETTERS = 48
"""of a title that fit above the axes, beside a legend"""
FEW_POINTS = 12
"""up to here each point is worth a marker of its own"""
SQUEEZED = 0.2
"""share of the axis below which a line cannot be read, so that the axis becomes logarithmic"""


def adaptation_figure(curves: Iterable[Curve], *, reference: Sequence[str] | None = None) -> Figure:
    """The adaptation curve of each agent over its floors and ceilings."""
    curves = list(curves)
    lines = join_curves(choose_references(curves, reference))
    return _figure(curves[0], lines, "Return of the episode")


def regret_figure(curves: Iterable[Curve], *, reference: Sequence[str] | None = None) -> Figure:
    """What each agent has lost against the highest ceiling by the end of each episode.

    Raises:
        ConfigError: there is no ceiling, or episodes are missing from a curve.
    """
    curves = list(curves)
    ceiling = regret_reference(join_curves(curves))
    lines = [
        replace(line, returns=cumulative_regret(line, ceiling))
        for line in join_curves(choose_references(curves, reference))
        if line.label != ceiling.label
    ]
    return _figure(curves[0], lines, f"Cumulative regret against\n{ceiling.label}")


def _figure(one: Curve, lines: Sequence[Line], label: str) -> Figure:
    figure = new_figure(6.4, 3.4)
    axes = figure.add_subplot()
    _draw(axes, lines)
    axes.set_title(textwrap.fill(one.family, TITLE_LETTERS), loc="left", color=QUIET)
    axes.set_xlabel("Episodes of experience in the task")
    axes.set_ylabel(label)
    axes.grid(color="0.92", linewidth=0.8)
    _add_legend(figure, axes, lines)
    add_note(figure, _note(one, lines))
    return figure


def _drawing_order(lines: Sequence[Line]) -> list[Line]:
    """References first, so that agents lie on top."""
    return sorted(lines, key=lambda line: line.role == "agent")


def _draw(axes: Axes, lines: Sequence[Line]) -> None:
    few = all(len(line.episode) <= FEW_POINTS for line in lines)
    agents = sum(line.role == "agent" for line in lines)
    drawn: dict[str, int] = dict.fromkeys(ROLES, 0)
    dashes = {
        role: reference_dashes(role, [line.agent for line in lines if line.role == role])
        for role in GREYS
    }
    bottom = _bottom(lines)
    axes.set_xscale("log" if _is_squeezed(lines) else "linear")
    for line in _drawing_order(lines):
        index = drawn[line.role]
        drawn[line.role] += 1
        if line.role != "agent":
            _draw_reference(axes, line, dashes[line.role][index], bottom)
        elif len(line.episode) <= FEW_POINTS:
            # Side by side, so that the intervals of equally good agents stay legible.
            shift = min(0.015, 0.06 / agents) * (index - (agents - 1) / 2) * few
            _draw_points(axes, line, index, _moved(axes, lines, line.episode, shift))
        else:
            _draw_band(axes, line, index)
    axes.margins(x=0.06 if few else 0.02)
    _set_ticks(axes, lines, few)


def _is_squeezed(lines: Sequence[Line]) -> bool:
    """Whether some line would be pressed into a small part of an axis without logarithm."""
    longest = max(line.last_episode for line in lines)
    widths = [int(np.ptp(line.episode)) for line in lines if len(line.episode) > 1]
    return bool(widths) and min(widths) < SQUEEZED * longest


def _scale(axes: Axes) -> tuple[Numbers, Numbers]:
    """From episodes to places on the axis, and back; whose unit does not matter."""
    return (np.log, np.exp) if axes.get_xscale() == "log" else (np.asarray, np.asarray)


def _moved(
    axes: Axes, lines: Sequence[Line], episode: NDArray[np.int64], share: float
) -> NDArray[np.float64]:
    """[P] a little to the right, by a share of the width that all lines take together."""
    place, back = _scale(axes)
    width = np.ptp(place(np.concatenate([line.episode for line in lines])))
    moved: NDArray[np.float64] = back(place(episode) + share * width)
    return moved


def _set_ticks(axes: Axes, lines: Sequence[Line], few: bool) -> None:
    """Plain numbers: of the points themselves where there are few, else round ones."""
    logarithmic = axes.get_xscale() == "log"
    if few:
        points = np.unique(np.concatenate([line.episode for line in lines]))
        ends = np.concatenate([line.episode[[0, -1]] for line in lines])
        axes.set_xticks(_apart(points, _scale(axes)[0](points), ends))
    elif logarithmic:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if logarithmic:
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))


def _apart(
    points: NDArray[np.int64], places: NDArray[np.float64], ends: NDArray[np.int64]
) -> list[int]:
    """The points whose numbers have room beside each other where they stand, `ends` first."""
    kept: list[int] = []
    for i in np.argsort(~np.isin(points, ends), kind="stable").tolist():
        room = [abs(places[i] - places[k]) / np.ptp(places) for k in kept]
        digits = [len(str(max(points[i], points[k]))) for k in kept]
        if all(r >= 0.03 + 0.025 * d for r, d in zip(room, digits, strict=True)):
            kept.append(i)
    return [int(points[i]) for i in sorted(kept)]


def _add_legend(figure: Figure, axes: Axes, lines: Sequence[Line]) -> None:
    """Beside the axes, in the order in which the eye meets the lines at the right edge."""
    handles, labels = axes.get_legend_handles_labels()
    # Some points, not one: the last alone may be noisier than the gap between two lines.
    height = [line.mean[-1 - len(line.mean) // 10 :].mean() for line in _drawing_order(lines)]
    order = np.argsort(height, kind="stable")[::-1]
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside right upper",
        frameon=False,
        handlelength=3.2,
    )


def _bottom(lines: Sequence[Line]) -> float:
    """Below this a floor would press everything else flat, so it is only named in the legend."""
    above = [line.mean for line in lines if line.role != "floor"]
    if not above:
        return -np.inf
    low, high = min(mean.min() for mean in above), max(mean.max() for mean in above)
    return float(low - 5 * (high - low)) if high > low else -np.inf


def _draw_reference(axes: Axes, line: Line, dashes: Any, bottom: float) -> None:
    colour, _ = GREYS[line.role]
    far = bool(line.mean.max() < bottom)
    name = line.label if line.role == "baseline" else f"{line.role}: {line.label}"
    axes.plot(
        [] if far else line.episode,
        [] if far else line.mean,
        color=colour,
        linestyle=dashes,
        linewidth=1.0 if line.role == "baseline" else 1.4,
        marker="_" if len(line.episode) == 1 else "",  # a line of one point is not seen
        label=f"{name} (at {line.mean.mean():.3g})" if far else name,
    )


def _draw_points(axes: Axes, line: Line, index: int, places: NDArray[np.float64]) -> None:
    mean, low, high = bootstrap_mean(line.returns)
    axes.errorbar(
        places,
        mean,
        yerr=[mean - low, high - mean],
        color=COLOURS[index % len(COLOURS)],
        linestyle=DASHES[index // len(COLOURS) % len(DASHES)],
        linewidth=1.6,
        marker=MARKERS[index % len(MARKERS)],
        markersize=5,
        capsize=2.5,
        label=line.label,
    )


def _draw_band(axes: Axes, line: Line, index: int) -> None:
    """Broken where episodes were not measured, with a thin line across the gap."""
    gaps = np.flatnonzero(np.diff(line.episode) > 1) + 1
    episode = np.insert(line.episode.astype(np.float64), gaps, np.nan)
    mean, low, high = (np.insert(part, gaps, np.nan) for part in bootstrap_mean(line.returns))
    colour = COLOURS[index % len(COLOURS)]
    axes.fill_between(episode, low, high, color=colour, alpha=0.22, linewidth=0)
    if len(gaps):
        axes.plot(line.episode, line.mean, color=colour, linewidth=0.6)
    axes.plot(
        episode,
        mean,
        color=colour,
        linestyle=DASHES[index % len(DASHES)],
        linewidth=1.8,
        label=line.label,
    )


def _note(one: Curve, lines: Sequence[Line]) -> str:
    text = f"Mean and 95% bootstrap interval over {sources(one.split, one.num_tasks)}"
    runs = sorted({line.num_runs for line in lines if line.role == "agent"})
    if not runs:
        return text
    if runs[-1] == 1:
        return f"{text}, one training seed"
    several = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else str(runs[0])
    return f"{text} and {several} training seeds"
