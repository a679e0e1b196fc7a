"""The figures of a report, with the numbers that `metarl plot` draws."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from metarl.plots.adaptation import adaptation_curves
from metarl.plots.episode_curves import FEW_POINTS, DrawnCurve, draw_curves, legend_order
from metarl.plots.learning import (
    FAINT,
    HELD_OUT,
    LEARNING_COLUMNS,
    learning_figure,
    learning_rows,
    time_unit,
)
from metarl.plots.style import STYLE, agent_dashes, new_figure
from metarl.reports.markup import Markup, details, element, table
from metarl.reports.vector_plot import (
    PlottedCurve,
    agent_marker,
    agent_style,
    hovered,
    legend,
    plot_svg,
    value_text,
)
from metarl.results.adaptation_curves import Curve
from metarl.results.bootstrap import bootstrap_mean
from metarl.results.learning_curves import LearningCurve

SIZE = 6.4, 3.4
"""inches of the figures whose scales and ticks are taken"""


def adaptation_plot(curves: Sequence[Curve], reference: Sequence[str] | None) -> Markup:
    """The return of each episode in unseen tasks, of agents and references."""
    with matplotlib.rc_context(STYLE):
        axes = new_figure(*SIZE).add_subplot()
        drawn, note = draw_curves(axes, adaptation_curves(curves, reference=reference))
        plotted = {one.curve.label + one.curve.agent: _plotted(one) for one in drawn}
        svg = plot_svg(axes, list(plotted.values()), name="Adaptation curves", clip="adaptation")
    ordered = [plotted[one.curve.label + one.curve.agent] for one in legend_order(drawn)]
    return _figure([svg], ordered, note, "episode")


def learning_plot(
    curves: Sequence[LearningCurve], *, smooth: int | None, join_unfinished: bool
) -> Markup:
    """A metric of training over environment steps and over wall time.

    Raises:
        ConfigError: the families differ.
    """
    _, unit = time_unit(max(curve.seconds[-1] for curve in curves))
    with matplotlib.rc_context(STYLE):
        figure = learning_figure(curves, smooth=smooth, join_unfinished=join_unfinished)
        assert isinstance(figure, Figure)  # of its own, where none is given
        by_steps, by_time = figure.axes
        by_time.set_ylabel(by_steps.get_ylabel())
        rows = learning_rows(curves, smooth=smooth, join_unfinished=join_unfinished)
        groups = {label: list(found) for label, found in groupby(rows, key=lambda row: str(row[1]))}
        numbers = {label: number for number, label in enumerate(groups)}
        steps, times = zip(
            *(
                _learned(numbers.get(label.removesuffix(HELD_OUT), 0), label, found, unit)
                for label, found in groups.items()
            ),
            strict=True,
        )
        plots = [
            plot_svg(axes, plotted, name=f"Learning curves over {over}", clip=f"learning-{over}")
            for axes, plotted, over in ((by_steps, steps, "steps"), (by_time, times, "time"))
        ]
    note = " ".join(figure.get_supxlabel().split())  # the page has no faint lines
    return _figure(plots, steps, note.removesuffix(FAINT), "training")


def _plotted(drawn: DrawnCurve) -> PlottedCurve:
    """A curve of the figure of adaptation, at the positions of that figure."""
    curve, is_agent = drawn.curve, drawn.curve.role == "agent"
    x = drawn.positions
    parts = tuple(part if x.size else x for part in bootstrap_mean(curve.returns))
    gaps = (np.diff(curve.episode) > 1).any()  # a band would cover what was not measured
    few = len(curve.episode) <= FEW_POINTS or gaps
    return PlottedCurve(
        label=drawn.handle.get_label(),
        style=agent_style(drawn.number) if is_agent else curve.role,
        dashes=drawn.dashes,
        x=x,
        mean=parts[0],
        low=parts[1],
        high=parts[2],
        names=[f"episode {episode}" for episode in curve.episode.tolist()],
        marker=agent_marker(drawn.number) if is_agent and few else "",
    )


def _learned(
    index: int, label: str, rows: Iterable[tuple[object, ...]], unit: float
) -> tuple[PlottedCurve, PlottedCurve]:
    """The curve of an agent over steps and over time, from rows of `LEARNING_COLUMNS`."""
    columns = dict(zip(LEARNING_COLUMNS, zip(*rows, strict=True), strict=True))
    numbers = ("env_steps", "seconds", "mean", "low", "high")
    steps, seconds, mean, low, high = (np.asarray(columns[n], np.float64) for n in numbers)
    over_steps = PlottedCurve(
        marker=agent_marker(index) if label.endswith(HELD_OUT) else "",
        label=label,
        style=agent_style(index),
        dashes=agent_dashes(index),
        x=steps,
        mean=mean,
        low=low,
        high=high,
        names=[
            f"{step:,.0f} steps, {second:,.0f} s"
            for step, second in zip(steps.tolist(), seconds.tolist(), strict=True)
        ],
    )
    return over_steps, replace(over_steps, x=seconds / unit)


def _figure(
    plots: Sequence[Markup], curves: Sequence[PlottedCurve], note: str, points: str
) -> Markup:
    """Plots with a common legend, a note and a table of their numbers."""
    rows = [
        (curve.label, curve.names[point], value_text(curve, point))
        for curve in curves
        for point in (hovered(len(curve.names)).tolist() if curve.x.size else ())
    ]
    return element(
        "figure",
        legend(curves),
        element("div", *plots, class_="plots"),
        element("figcaption", " ".join(note.split()) + "."),
        details("The numbers of this figure", table(("curve", points, "mean and interval"), rows)),
        class_="single" if len(plots) == 1 else None,
    )
