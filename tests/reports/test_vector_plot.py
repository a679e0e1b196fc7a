import re
from dataclasses import replace

import numpy as np
import pytest

from metarl.plots.style import MARKERS, new_figure
from metarl.reports.vector_plot import (
    BOTTOM,
    LEFT,
    MAX_HOVERED,
    MAX_VERTICES,
    RIGHT,
    TOP,
    PlottedCurve,
    agent_marker,
    agent_style,
    hovered,
    legend,
    plot_svg,
)
from tests.reports.pages import Page


def made(points=3, **changes):
    x = np.arange(1.0, points + 1)
    curve = PlottedCurve(
        label="<RL²>",
        style="agent-0",
        dashes="-",
        x=x,
        mean=x,
        low=x - 0.5,
        high=x + 0.5,
        names=[f"episode {i:.0f}" for i in x],
    )
    return replace(curve, **changes)


def drawn(*curves, log=False):
    """The plot in axes from 0 to 4 (from 1 to 100 where logarithmic) and from 0 to 10."""
    axes = new_figure(4, 3).add_subplot()
    axes.set_xscale("log" if log else "linear")
    axes.set_xlim((1, 100) if log else (0, 4))
    axes.set_ylim(0, 10)
    axes.set_ylabel("Return\n<of>")
    return Page(plot_svg(axes, curves, name="Plot", clip="one").text)


def centres(page):
    return [(float(one["cx"]), float(one["cy"])) for one in page.all("circle") if one["r"] == "6"]


def test_points_are_at_the_place_of_their_values():
    x = [LEFT + (RIGHT - LEFT) * share for share in (0.25, 0.5, 0.75)]
    y = [BOTTOM + (TOP - BOTTOM) * share for share in (0.1, 0.2, 0.3)]
    expected = list(zip(x, y, strict=True))
    page = drawn(made())
    assert centres(page) == [pytest.approx(point, abs=0.06) for point in expected]
    (line,) = (one for one in page.all("path") if one.get("class") == "line")
    numbers = np.reshape([float(n) for n in re.findall(r"[-\d.]+", line["d"])], (-1, 2))
    np.testing.assert_allclose(numbers, expected, atol=0.06)
    (band,) = (one for one in page.all("path") if one.get("class") == "band")
    assert band["d"].count(" ") == 2 * 6 - 1


def test_a_logarithmic_axis_is_kept():
    page = drawn(made(x=np.array([1.0, 10.0, 100.0])), log=True)
    expected = [LEFT, (LEFT + RIGHT) / 2, RIGHT]
    assert [x for x, _ in centres(page)] == [pytest.approx(x, abs=0.06) for x in expected]


def test_a_point_shows_its_label_its_name_and_its_interval():
    page = drawn(made(), made(label="exact", low=made().mean, high=made().mean))
    assert "<RL²>, episode 2: 2 [1.5, 2.5]" in page.text
    assert "exact, episode 2: 2" in page.text
    assert "exact, episode 2: 2 [" not in page.text


def test_markers_come_with_error_bars_in_place_of_a_band():
    for marker in MARKERS:
        page = drawn(made(marker=marker))
        classes = [attributes.get("class") for _, attributes in page.elements]
        assert "band" not in classes
        assert classes.count("bar") == 1
        assert classes.count("marker") == 3


def test_axes_have_labels_and_ticks():
    page = drawn(made())
    assert "Return <of>" in page.text
    assert page.all("svg")[0]["role"] == "img"
    for y in ("0", "2", "4", "6", "8", "10"):
        assert y in page.text


def test_limits_are_those_of_what_is_drawn():
    axes = new_figure(4, 3).add_subplot()
    axes.plot([1e6, 3e6], [1, 3])
    curve = made(x=np.array([1e6, 2e6, 3e6]))
    page = Page(plot_svg(axes, [curve], name="Plot", clip="one").text)
    assert all(LEFT < x < RIGHT for x, _ in centres(page))


def test_long_curves_are_thinned_and_keep_their_ends():
    page = drawn(made(points=5000))
    (line,) = (one for one in page.all("path") if one.get("class") == "line")
    assert line["d"].count(" ") == 2 * MAX_VERTICES - 1
    assert len(centres(page)) == MAX_HOVERED
    assert hovered(5000)[[0, -1]].tolist() == [0, 4999]
    assert hovered(3).tolist() == [0, 1, 2]


def test_the_legend_lists_all_curves_with_their_dashes():
    page = Page(legend([made(marker="o"), made(label="floor", dashes=(0, (1, 2)))]).text)
    assert page.text == "<RL²>floor"
    assert [one.get("stroke-dasharray") for one in page.all("path")] == [None, "1.6 3.2"]


def test_a_curve_without_positions_is_in_the_legend_only():
    empty = np.array([])
    hidden = made(x=empty, mean=empty, low=empty, high=empty)
    assert not centres(drawn(hidden))
    assert "<RL²>" in Page(legend([hidden]).text).text


def test_neighbouring_agents_differ_in_colour_and_marker():
    assert len({agent_style(i) for i in range(6)}) == 6
    assert len({(agent_style(i), agent_marker(i)) for i in range(42)}) == 42
