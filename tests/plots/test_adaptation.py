"""Tests of adaptation and regret figures, especially of curves with different episodes."""

import itertools
from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from metarl.errors import ConfigError
from metarl.plots.adaptation import adaptation_figure
from metarl.plots.episode_curves import FEW_POINTS
from metarl.plots.regret import regret_figure
from metarl.plots.style import STYLE, add_note
from tests.plots.test_plot import CEILING, FLOOR, legend_labels, lines_by_label
from tests.results.test_adaptation_curves import make_curve

SHORT, LONG = [1, 2, 3], [1, 21, 41, 61]


def curve_at(episodes, *, level=0.0, **names):
    """A curve in four tasks with these episodes and returns near `level`."""
    curve = make_curve(points=len(episodes), **names)
    return replace(curve, episode=np.array(episodes), returns=level + curve.returns / 1e7)


def evaluated(episodes, *, level=0.0, **names):
    """The curves of one run: an agent between its floor and its ceiling, at equal episodes."""
    return [
        curve_at(episodes, level=level, **names),
        curve_at(episodes, level=-5.0, **FLOOR),
        curve_at(episodes, level=5.0, **CEILING),
    ]


def rl2_and_maml():
    """Three consecutive episodes of one agent; four episodes of another, 20 apart."""
    short = evaluated(SHORT, level=1.0, agent="rl2", label="RL²")
    return short + evaluated(LONG, agent="maml", label="MAML")


def tick_labels(figure):
    """The visible tick labels of the horizontal axis."""
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    labels = axes.xaxis.get_ticklabels(which="both")
    return [label.get_text() for label in labels if low <= label.get_position()[0] <= high]


def test_short_and_long_curves_share_one_figure():
    figure = adaptation_figure(rl2_and_maml())
    lines = lines_by_label(figure)
    np.testing.assert_allclose(lines["RL²"].get_xdata(), SHORT, rtol=0.04)
    np.testing.assert_allclose(lines["MAML"].get_xdata(), LONG, rtol=0.04)
    for label in ("floor: random policy", "ceiling: goal-knowing oracle"):
        assert lines[label].get_xdata().tolist() == LONG
    assert sorted(legend_labels(figure)) == sorted(lines)
    assert len(lines) == 4  # each reference once, though both runs contain it
    assert lines["RL²"].get_marker() != lines["MAML"].get_marker() != ""


def test_the_axis_is_logarithmic_with_plain_numbers_if_a_curve_is_short():
    figure = adaptation_figure(rl2_and_maml())
    assert figure.axes[0].get_xscale() == "log"
    assert tick_labels(figure) == ["1", "2", "3", "21", "41", "61"]
    assert np.diff(marker_positions(figure, "RL²")).min() > 12


@pytest.mark.parametrize(
    "curves",
    [
        evaluated(LONG),
        evaluated(SHORT),
        evaluated(list(range(1, 101))),
        evaluated([1]),
        evaluated([1]) + evaluated(LONG, agent="maml", label="MAML"),
        evaluated(list(range(1, 31))) + evaluated(LONG, agent="maml", label="MAML"),
    ],
    ids=["sparse", "few", "many", "one", "one and sparse", "half as long"],
)
def test_the_axis_is_linear_if_all_curves_are_long_enough(curves):
    assert adaptation_figure(curves).axes[0].get_xscale() == "linear"


def test_many_points_on_a_logarithmic_axis_have_round_tick_labels():
    short = evaluated(list(range(1, 21)), agent="rl2", label="RL²")
    figure = adaptation_figure(short + evaluated([1, 1001, 2001], agent="maml", label="MAML"))
    assert figure.axes[0].get_xscale() == "log"
    assert tick_labels(figure)[:4] == ["1", "2", "5", "10"]
    assert tick_labels(figure)[-3:] == ["500", "1000", "2000"]


def test_tick_labels_do_not_touch():
    pairs = [1, 2, 21, 22, 41, 42, 61, 62]
    long = [1, 1001, 2001, 3001, 4001, 5001]
    two = rl2_and_maml()
    for curves in (evaluated(pairs), evaluated(long), two, two + evaluated(long, run="c")):
        one_label = [replace(c, label=f"{c.label} {len(c.episode)}") for c in curves]
        with matplotlib.rc_context(STYLE):
            figure = adaptation_figure(one_label)
            figure.canvas.draw()
        labels = figure.axes[0].xaxis.get_ticklabels()
        boxes = [label.get_window_extent() for label in labels if label.get_text()]
        assert len(boxes) >= 4
        for left, right in itertools.pairwise(boxes):
            assert left.x1 + 2 < right.x0


def marker_positions(figure, name):
    """Horizontal positions of an agent's markers, in typographic points."""
    figure.canvas.draw()
    line = lines_by_label(figure)[name]
    return figure.axes[0].transData.transform(line.get_xydata())[:, 0] / figure.dpi * 72


def test_the_last_episode_of_each_curve_has_a_tick_label():
    short = evaluated(list(range(1, 11)), agent="rl2", label="RL²")
    long = evaluated([1, 21, 31, 41, 51, 61, 71, 81, 91], agent="maml", label="MAML")
    assert set(tick_labels(adaptation_figure(short + long))) > {"1", "10", "91"}


@pytest.mark.parametrize("episodes", [SHORT, LONG])
def test_error_bars_of_agents_at_the_same_episode_are_side_by_side(episodes):
    one, two = (evaluated(episodes, agent=name, label=name)[0] for name in "ab")
    for others in ([], rl2_and_maml()):  # on a linear and on a logarithmic axis
        figure = adaptation_figure([one, two, *others])
        distance = marker_positions(figure, "b") - marker_positions(figure, "a")
        assert (distance > 2.5).all()
        assert (distance < 5.0).all()


def test_all_curves_are_within_the_axes():
    curves = [*rl2_and_maml(), curve_at(SHORT, level=-9.0, agent="c", label="below")]
    figure = adaptation_figure(curves)
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    for line in lines_by_label(figure).values():
        assert (low < line.get_ydata()).all()
        assert (line.get_ydata() < high).all()
    assert low < -9


def test_the_band_has_gaps_where_episodes_were_not_measured():
    phases = [200 * phase + episode for phase in range(3) for episode in range(1, 6)]
    assert len(phases) > FEW_POINTS
    curve = curve_at(phases)
    figure = adaptation_figure([curve])
    (band,) = figure.axes[0].collections
    assert len(band.get_paths()) == 3
    drawn = lines_by_label(figure)[curve.label]
    assert np.isnan(drawn.get_xdata()).sum() == 2
    measured = np.isfinite(drawn.get_xdata())
    assert drawn.get_xdata()[measured].tolist() == phases
    np.testing.assert_allclose(drawn.get_ydata()[measured], curve.returns.mean(1))
    thin = [line for line in figure.axes[0].lines if line.get_linewidth() < 1]
    assert [line.get_xdata().tolist() for line in thin] == [phases]
    without = adaptation_figure([curve_at(list(range(1, 16)))])
    assert len(without.axes[0].lines) == 1


def test_regret_of_agents_that_skip_episodes_is_refused():
    with pytest.raises(ConfigError, match=r"episodes 1, 21, 41, 61: regret .* plot the adaptation"):
        regret_figure(rl2_and_maml())
    regret_figure(rl2_and_maml()[:3])  # complete curves are accepted


def test_long_family_names_are_wrapped_within_the_figure():
    family = "metarl/MetaWorldML1-v0 (benchmark=ML1, goals_seed=1, thing=reach-v3, and=another)"
    curves = [make_curve(family=family), make_curve(family=family, **FLOOR)]
    with matplotlib.rc_context(STYLE):
        figure = adaptation_figure(curves)
        figure.canvas.draw()
        title = figure.axes[0].get_title(loc="left")
        (legend,) = figure.legends or [figure.axes[0].get_legend()]
        drawn = figure.axes[0]._left_title.get_window_extent()
        assert title.replace("\n", " ") == family
        assert not drawn.overlaps(legend.get_window_extent())
        add_note(figure, f"{family}: " + "a note of several lines, " * 5)
        figure.canvas.draw()
        note = figure._supxlabel.get_window_extent()
        assert 0 <= note.x0 < note.x1 <= figure.bbox.x1
