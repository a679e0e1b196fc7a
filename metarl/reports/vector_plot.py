"""Curves as SVG within HTML: axes of matplotlib decide the scales and the ticks.

Axes: `P` points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from metarl.plots.style import COLOURS, MARKERS
from metarl.reports.markup import Markup, element

WIDTH, HEIGHT = 480, 300
"""of a plot, in units that are scaled to the width of the page"""
LEFT, RIGHT, TOP, BOTTOM = 66, 464, 34, 244
"""where its axes are"""
MARKER_SIZE = 4.5
MAX_VERTICES = 500
"""of a line: about one for each unit of the width"""
MAX_HOVERED = 60
"""points of a curve that show their values"""
DASH_UNIT = 1.6

_SHAPES = {
    "s": "M-1-1H1V1H-1Z",
    "^": "M0-1.2 1.1 .9H-1.1Z",
    "D": "M0-1.3 1.3 0 0 1.3-1.3 0Z",
    "v": "M0 1.2 1.1-.9H-1.1Z",
    "P": "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
    "X": "M-1-.6-.6-1 0-.4.6-1 1-.6.4 0 1 .6.6 1 0 .4-.6 1-1 .6-.4 0Z",
}
"""of the markers that are no circle, within a radius of 1"""


@dataclass(frozen=True, kw_only=True)
class PlottedCurve:
    """A curve with its intervals, in the units of the axes."""

    label: str
    style: str  # class of its colour, such as "agent-0" or "ceiling"
    dashes: Any  # of matplotlib
    x: NDArray[np.float64]  # [P]
    mean: NDArray[np.float64]  # [P]
    low: NDArray[np.float64]  # [P]
    high: NDArray[np.float64]  # [P]
    names: Sequence[str]  # of the points, such as "episode 3"; P of them
    marker: str = ""  # of matplotlib; draws error bars in place of a band


def agent_style(number: int) -> str:
    """Class of the colour of an agent."""
    return f"agent-{number % len(COLOURS)}"


def agent_marker(number: int) -> str:
    """Marker of an agent."""
    return MARKERS[number % len(MARKERS)]


def plot_svg(axes: Axes, curves: Sequence[PlottedCurve], *, name: str, clip: str) -> Markup:
    """The plot of curves, from back to front.

    Args:
        axes: with these curves drawn into them; their limits, scales, ticks and labels are taken.
        curves: what is drawn.
        name: what the plot shows, for those who cannot see it.
        clip: id of its clipping area, unique on the page.
    """
    axes.get_xlim(), axes.get_ylim()  # these bring the limits up to date with what is drawn
    border = element(
        "rect", x=LEFT - 6, y=TOP - 6, width=RIGHT - LEFT + 12, height=BOTTOM - TOP + 12
    )
    drawn = [_curve(axes, curve) for curve in curves if curve.x.size]
    points = [_points(axes, curve) for curve in curves if curve.x.size]
    return element(
        "svg",
        element("clipPath", border, id=clip),
        *_grid(axes),
        element("g", *drawn, *points, clip_path=f"url(#{clip})"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=name,
    )


def legend(curves: Sequence[PlottedCurve]) -> Markup:
    """A list of curves with their line and marker."""
    items = []
    for curve in curves:
        parts = [_path("M0 8H34", curve, "line")]
        if curve.marker:
            parts.append(_marker(curve.marker, 17, 8))
        sample = element(
            "svg", *parts, class_=f"sample {curve.style}", viewBox="0 0 34 16", aria_hidden="true"
        )
        items.append(element("li", sample, element("span", curve.label)))
    return element("ul", *items, class_="legend")


def hovered(count: int) -> NDArray[np.int64]:
    """Indices of the points that show their values: all, or `MAX_HOVERED` evenly spaced ones."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_HOVERED)).round().astype(np.int64))


def value_text(curve: PlottedCurve, point: int) -> str:
    """The mean of a point, with its interval if it has one."""
    mean, low, high = (f"{part[point]:.4g}" for part in (curve.mean, curve.low, curve.high))
    return mean if low == high else f"{mean} [{low}, {high}]"


def _place(axes: Axes, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """[P, 2] position of points in the plot."""
    scaled = axes.transScale.transform(np.column_stack([x, y]))
    share = axes.transLimits.transform(scaled)
    corner, sides = np.array([LEFT, BOTTOM]), np.array([RIGHT - LEFT, TOP - BOTTOM])
    placed = corner + share * sides
    clipped: NDArray[np.float64] = np.clip(placed, -10 * WIDTH, 10 * WIDTH)
    return clipped


def _grid(axes: Axes) -> list[Markup]:
    """Grid lines, tick labels and axis labels."""
    parts = []
    low, high = sorted(axes.get_ylim())
    for value, label in _ticks(axes.yaxis, low, high):
        ((_, y),) = _place(axes, np.array([axes.get_xlim()[0]]), np.array([value]))
        parts.append(element("path", d=f"M{LEFT} {y:.1f}H{RIGHT}", class_="grid"))
        text = element("text", label, x=LEFT - 8, y=f"{y + 5:.1f}", text_anchor="end")
        parts.append(text)
    low, high = sorted(axes.get_xlim())
    for value, label in _ticks(axes.xaxis, low, high):
        ((x, _),) = _place(axes, np.array([value]), np.array([axes.get_ylim()[0]]))
        parts.append(element("path", d=f"M{x:.1f} {TOP}V{BOTTOM}", class_="grid"))
        text = element("text", label, x=f"{x:.1f}", y=BOTTOM + 20, text_anchor="middle")
        parts.append(text)
    label = " ".join(axes.get_ylabel().split())
    parts.append(element("text", label, x=4, y=16, class_="axis"))
    middle = (LEFT + RIGHT) // 2
    below = axes.get_xlabel()
    return [
        *parts,
        element("text", below, x=middle, y=HEIGHT - 10, text_anchor="middle", class_="axis"),
    ]


def _ticks(axis: Any, low: float, high: float) -> list[tuple[float, str]]:
    """Positions and labels of the ticks between two ends."""
    values = [value for value in axis.get_majorticklocs().tolist() if low <= value <= high]
    return list(zip(values, axis.get_major_formatter().format_ticks(values), strict=True))


def _curve(axes: Axes, curve: PlottedCurve) -> Markup:
    """Its band or its error bars, its line, and its markers."""
    centre, low, high = (_place(axes, curve.x, y) for y in (curve.mean, curve.low, curve.high))
    parts = []
    if curve.marker:
        ends = zip(low.tolist(), high.tolist(), strict=True)
        bars = "".join(f"M{x:.1f} {y:.1f}V{top:.1f}" for (x, y), (_, top) in ends)
        parts.append(element("path", d=bars, class_="bar"))
    elif (curve.low < curve.high).any():
        outline = np.concatenate([_thinned(low), _thinned(high)[::-1]])
        parts.append(element("path", d=_line(outline) + "Z", class_="band"))
    parts.append(_path(_line(_thinned(centre)), curve, "line"))
    if curve.marker:
        parts += [_marker(curve.marker, x, y) for x, y in centre.tolist()]
    return element("g", *parts, class_=curve.style)


def _points(axes: Axes, curve: PlottedCurve) -> Markup:
    """Invisible discs that show the values below the pointer."""
    centre = _place(axes, curve.x, curve.mean)
    discs = []
    for point in hovered(len(curve.x)).tolist():
        text = f"{curve.label}, {curve.names[point]}: {value_text(curve, point)}"
        x, y = centre[point]
        title = element("title", text)
        discs.append(element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=6))
    return element("g", *discs, class_=f"points {curve.style}")


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `MAX_VERTICES` of the points, evenly spaced; more could not be told apart."""
    kept = np.linspace(0, len(points) - 1, min(len(points), MAX_VERTICES)).round()
    return points[kept.astype(np.int64)]


def _line(points: NDArray[np.float64]) -> str:
    return "M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in points.tolist())


def _path(d: str, curve: PlottedCurve, kind: str) -> Markup:
    dashes = None
    if curve.dashes != "-":
        dashes = " ".join(f"{DASH_UNIT * length:g}" for length in curve.dashes[1])
    return element("path", d=d, class_=kind, stroke_dasharray=dashes)


def _marker(marker: str, x: float, y: float) -> Markup:
    if marker not in _SHAPES:
        return element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=MARKER_SIZE, class_="marker")
    place = f"translate({x:.1f} {y:.1f}) scale({MARKER_SIZE})"
    return element("path", d=_SHAPES[marker], transform=place, class_="marker")
