"""Agents with few points far apart and agents that live episode after episode, in one picture."""

import itertools
from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from metarl.errors import ConfigError
from metarl.plots.adaptation import FEW_POINTS, adaptation_figure, regret_figure
from metarl.plots.style import STYLE, add_note
from tests.plots.test_plot import CEILING, FLOOR, legend_labels, lines_by_label
from tests.results.test_curves import make_curve

SHORT, LONG = [1, 2, 3], [1, 21, 41, 61]


def curve_at(episodes, *, height=0.0, **names):
    """Near `height`, in four tasks, at these episodes."""
    curve = make_curve(points=len(episodes), **names)
    return replace(curve, episode=np.array(episodes), returns=height + curve.returns / 1e7)


def evaluated(episodes, *, height=0.0, **names):
    """What a run leaves: an agent between its floor and its ceiling, at the same points."""
    return [
        curve_at(episodes, height=height, **names),
        curve_at(episodes, height=-5.0, **FLOOR),
        curve_at(episodes, height=5.0, **CEILING),
    ]


def mixed():
    """A memory that lives three episodes, and gradient steps after every twenty."""
    short = evaluated(SHORT, height=1.0, agent="rl2", label="RL²")
    return short + evaluated(LONG, agent="maml", label="MAML")


def ticks(figure):
    """The numbers under the axis, as they are read."""
    figure.canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    labels = axes.xaxis.get_ticklabels(which="both")
    return [label.get_text() for label in labels if low <= label.get_position()[0] <= high]


def test_short_and_long_lives_stand_in_one_picture():
    figure = adaptation_figure(mixed())
    lines = lines_by_label(figure)
    np.testing.assert_allclose(lines["RL²"].get_xdata(), SHORT, rtol=0.04)
    np.testing.assert_allclose(lines["MAML"].get_xdata(), LONG, rtol=0.04)
    for label in ("floor: random policy", "ceiling: goal-knowing oracle"):
        assert lines[label].get_xdata().tolist() == LONG
    assert sorted(legend_labels(figure)) == sorted(lines)
    assert len(lines) == 4  # each reference once, though both runs brought it along
    assert lines["RL²"].get_marker() != lines["MAML"].get_marker() != ""


def test_an_axis_on_which_a_line_would_be_squeezed_is_logarithmic_with_plain_numbers():
    figure = adaptation_figure(mixed())
    assert figure.axes[0].get_xscale() == "log"
    assert ticks(figure) == ["1", "2", "3", "21", "41", "61"]
    assert np.diff(places(figure, "RL²")).min() > 12


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
    ids=["far apart", "few", "many", "one", "one and far apart", "half as long"],
)
def test_where_nothing_is_squeezed_the_axis_is_plain(curves):
    assert adaptation_figure(curves).axes[0].get_xscale() == "linear"


def test_many_points_on_a_logarithmic_axis_have_round_numbers():
    short = evaluated(list(range(1, 21)), agent="rl2", label="RL²")
    figure = adaptation_figure(short + evaluated([1, 1001, 2001], agent="maml", label="MAML"))
    assert figure.axes[0].get_xscale() == "log"
    assert ticks(figure)[:4] == ["1", "2", "5", "10"]
    assert ticks(figure)[-3:] == ["500", "1000", "2000"]


def test_numbers_under_the_axis_do_not_touch():
    pairs = [1, 2, 21, 22, 41, 42, 61, 62]
    long = [1, 1001, 2001, 3001, 4001, 5001]
    for curves in (evaluated(pairs), evaluated(long), mixed(), mixed() + evaluated(long, run="c")):
        one_label = [replace(c, label=f"{c.label} {len(c.episode)}") for c in curves]
        with matplotlib.rc_context(STYLE):
            figure = adaptation_figure(one_label)
            figure.canvas.draw()
        labels = figure.axes[0].xaxis.get_ticklabels()
        boxes = [label.get_window_extent() for label in labels if label.get_text()]
        assert len(boxes) >= 4
        for left, right in itertools.pairwise(boxes):
            assert left.x1 + 2 < right.x0


def places(figure, name):
    """Where the markers of an agent are, across, in points of type."""
    figure.canvas.draw()
    line = lines_by_label(figure)[name]
    return figure.axes[0].transData.transform(line.get_xydata())[:, 0] / figure.dpi * 72


def test_the_last_episode_of_a_line_has_its_number_before_others():
    short = evaluated(list(range(1, 11)), agent="rl2", label="RL²")
    long = evaluated([1, 21, 31, 41, 51, 61, 71, 81, 91], agent="maml", label="MAML")
    assert set(ticks(adaptation_figure(short + long))) > {"1", "10", "91"}


@pytest.mark.parametrize("episodes", [SHORT, LONG])
def test_intervals_of_agents_at_the_same_point_stand_side_by_side(episodes):
    one, two = (evaluated(episodes, agent=name, label=name)[0] for name in "ab")
    for beside in ([], mixed()):  # on a plain axis and on a logarithmic one
        figure = adaptation_figure([one, two, *beside])
        apart = places(figure, "b") - places(figure, "a")
        assert (apart > 2.5).all()
        assert (apart < 5.0).all()


def test_everything_drawn_is_within_the_frame():
    curves = [*mixed(), curve_at(SHORT, height=-50.0, agent="c", label="far below")]
    figure = adaptation_figure(curves)
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    for line in lines_by_label(figure).values():
        assert (low < line.get_ydata()).all()
        assert (line.get_ydata() < high).all()
    assert low < -50


def test_where_episodes_were_not_measured_no_interval_is_drawn():
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
    with pytest.raises(ConfigError, match=r"episodes 1, 21, 41, 61: regret .* see the adaptation"):
        regret_figure(mixed())
    regret_figure(mixed()[:3])  # the control


def test_long_names_of_families_are_broken_into_lines_within_the_picture():
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
        add_note(figure, f"{family}: " + "what there is to know about it, " * 4)
        figure.canvas.draw()
        note = figure._supxlabel.get_window_extent()
        assert 0 <= note.x0 < note.x1 <= figure.bbox.x1
