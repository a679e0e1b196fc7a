"""Adaptation and regret as pictures: curves go in, figures of lines over episodes come out.

Axes: `R` runs (the seeds of one agent), `P` points, `N` tasks.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.figures import COLOURS, DASHES, GREYS, MARKERS, QUIET, add_note, new_figure, sources
from metarl.measures import cumulative_regret, regret_reference
from metarl.rows import Curve
from metarl.statistics import ROLES, Line, bootstrap_mean, choose_references, join_curves

FEW_POINTS = 12
"""up to here each point is worth a marker of its own"""


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
    axes.set_title(one.family, loc="left", color=QUIET)
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
    bottom = _bottom(lines)
    for line in _drawing_order(lines):
        index = drawn[line.role]
        drawn[line.role] += 1
        if line.role != "agent":
            _draw_reference(axes, line, index, bottom)
        elif len(line.episode) <= FEW_POINTS:
            # Side by side, so that the intervals of equally good agents stay legible.
            _draw_points(axes, line, index, shift=0.06 * (index - (agents - 1) / 2) * few)
        else:
            _draw_band(axes, line, index)
    if few:
        axes.set_xticks(sorted({int(k) for line in lines for k in line.episode}))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.06 if few else 0.02)


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


def _draw_reference(axes: Axes, line: Line, index: int, bottom: float) -> None:
    colour, dashes = GREYS[line.role]
    far = bool(line.mean.max() < bottom)
    name = line.label if line.role == "baseline" else f"{line.role}: {line.label}"
    axes.plot(
        [] if far else line.episode,
        [] if far else line.mean,
        color=colour,
        linestyle=dashes[index % len(dashes)],
        linewidth=1.0 if line.role == "baseline" else 1.4,
        marker="_" if len(line.episode) == 1 else "",  # a line of one point is not seen
        label=f"{name} (at {line.mean.mean():.3g})" if far else name,
    )


def _draw_points(axes: Axes, line: Line, index: int, *, shift: float) -> None:
    mean, low, high = bootstrap_mean(line.returns)
    axes.errorbar(
        line.episode + shift,
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
    mean, low, high = bootstrap_mean(line.returns)
    colour = COLOURS[index % len(COLOURS)]
    axes.fill_between(line.episode, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(
        line.episode,
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
