"""What users may choose of a figure, and where its legend and its limits are."""

import csv
import struct
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import metarl
from metarl.errors import ConfigError
from metarl.plots.adaptation import adaptation_figure
from metarl.plots.options import PlotOptions
from metarl.plots.paths import episode_path
from metarl.plots.plot import plot
from metarl.plots.style import COLOURS, STYLE, LegendLayout, agent_dashes
from metarl.results.bootstrap import bootstrap_mean
from metarl.results.evaluation_files import STEPS_FILE
from metarl.results.step_log import read_step_logs
from tests.foreign_runs import train_tiny
from tests.plots.test_plot import make_curve, make_run


def curves(*levels, label="agent {}"):
    """Agents whose returns are near these levels, a floor at 0 and a ceiling at 3."""
    made = []
    agents = [("agent", label.format(i), level) for i, level in enumerate(levels)]
    for role, name, level in [("floor", "floor", 0.0), ("ceiling", "ceiling", 3.0), *agents]:
        one = make_curve(role=role, agent=name, label=name, run=name if role == "agent" else "")
        wave = 0.1 * np.sin(np.arange(one.returns.size)).reshape(one.returns.shape)
        made.append(replace(one, returns=level + wave))
    return made


def drawn(figure):
    """The figure after its layout, and boxes of axes and legend in shares of it."""
    with matplotlib.rc_context(STYLE):
        figure.canvas.draw()
    to_share = figure.transFigure.inverted()
    boxes = figure.axes[0].get_window_extent(), figure.legends[0].get_window_extent()
    return [box.transformed(to_share) for box in boxes]


@pytest.mark.parametrize("label", ["rl2 {}", "rl2 {} (learning_rate=0.003, hidden_size=128)"])
@pytest.mark.parametrize("count", [1, 2, 7, 24])
def test_the_axes_keep_half_of_the_width_and_no_label_is_cut(count, label):
    axes, legend = drawn(adaptation_figure(curves(*np.linspace(1, 2, count), label=label)))
    assert axes.width >= 0.5
    assert axes.width * axes.height > 0.15
    assert min(legend.x0, legend.y0) >= -0.01
    assert max(legend.x1, legend.y1) <= 1.01
    assert legend.x0 >= axes.x1 - 0.01 or legend.y0 >= axes.y1 - 0.01


def test_twenty_four_agents_differ_in_colour_or_dashes():
    styles = {(COLOURS[i % len(COLOURS)], str(agent_dashes(i))) for i in range(24)}
    assert len(styles) == 24


def test_a_legend_without_room_is_above_the_axes_and_smaller_in_a_figure_of_fixed_size():
    assert LegendLayout.of(["short"] * 3, 6.4) == (None, pytest.approx(0.585), 9)
    assert LegendLayout.of(["word " * 8] * 4, 6.4)[0] == 1
    assert LegendLayout.of(["word " * 8] * 8, 6.4, 2.5)[2] == 7


def test_one_curve_far_from_all_others_is_cut_off_and_the_caption_says_so():
    figure = adaptation_figure(curves(1.0, 1.5, -160.0))
    low, high = figure.axes[0].get_ylim()
    assert -2 < low < -0.5
    assert 3 < high < 4
    assert "cut off at the axis: agent 2, down to -1" in figure.get_supxlabel().replace("\n", " ")
    figure = adaptation_figure(curves(1.0, 1.5, 160.0))
    assert figure.axes[0].get_ylim()[1] < 5
    assert "agent 2, up to 16" in figure.get_supxlabel().replace("\n", " ")
    figure = adaptation_figure(curves(1.0, 1.5, -3.0))
    assert "cut off" not in figure.get_supxlabel()


@pytest.fixture
def folders(tmp_path):
    for index, name in enumerate("ab"):
        make_run(tmp_path / name, level=float(index))
    return [tmp_path / "a", tmp_path / "b"]


def test_labels_name_the_runs_and_data_holds_what_is_drawn(folders, tmp_path):
    path = tmp_path / "data.csv"
    plot(folders, labels=["one", "two"], data=path, out=tmp_path / "x.svg", size=(4, 3))
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert {row["label"] for row in rows if row["role"] == "agent"} == {"one", "two"}
    (agent, *_) = make_run(tmp_path / "c")
    mean, low, high = bootstrap_mean(agent.returns[None])
    of_one = [row for row in rows if row["label"] == "one"]
    for column, expected in (("mean", mean), ("low", low), ("high", high)):
        np.testing.assert_allclose([float(row[column]) for row in of_one], expected)
    assert [int(row["episode"]) for row in of_one] == agent.episode.tolist()
    with pytest.raises(ConfigError, match="Got 1 labels for 2 runs"):
        plot(folders, labels=["one"])


def test_a_figure_of_ones_own_is_drawn_into(folders):
    axes = Figure().subplots(1, 2)
    assert plot(folders, ax=axes[1], ylim=(-1, 9)) == []
    assert axes[1].get_ylim() == (-1, 9)
    assert len(axes[1].get_lines()) > 2
    assert axes[1].get_legend() is not None
    assert not axes[0].get_lines()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of a bandit agent, and one of navigation, with all rows."""
    folder = tmp_path_factory.mktemp("trained")
    runs = [train_tiny(folder / f"bandit{seed}", seed=seed) for seed in (0, 1)]
    options = {"num_tasks": 4, "iterations": 2, "threads": 1, "progress": False}
    run = metarl.train("rl2", "metarl/PointNavigation-v0", out=folder / "paths", **options)
    metarl.evaluate(run, num_tasks=8)
    return {"learning": runs, "pulls": runs[:1], "regret": runs, "paths": [run.path]}


PANELS = {"learning": 2, "pulls": 4 * 2, "paths": 6, "adaptation": 1, "regret": 1}


@pytest.mark.parametrize("kind", PANELS)
def test_every_kind_is_drawn_into_a_figure_of_ones_own(trained, kind, tmp_path):
    runs = trained.get(kind, trained["regret"])
    figure = Figure(figsize=(9, 6), layout="constrained")
    left, right = figure.subfigures(1, 2)
    axes = left.subplots(2, 1)
    before = sorted(runs[0].iterdir())
    assert plot(runs, kind=kind, ax=axes[1]) == []
    assert plot(runs, kind=kind, ax=right) == []
    assert len(right.axes) == PANELS[kind]
    panels = [*left.axes, *(each for part in left.subfigs for each in part.axes)]
    assert len(panels) == 1 + PANELS[kind]
    assert axes[0] in panels
    assert not axes[0].has_data()
    assert any(each.has_data() for each in panels)
    figure.savefig(tmp_path / "figure.png")
    assert sorted(runs[0].iterdir()) == before


@pytest.mark.parametrize("kind", ["learning", "pulls", "paths"])
def test_axes_outside_a_grid_and_other_objects_are_refused(trained, kind):
    axes = Figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ConfigError, match="not part of a grid"):
        plot(trained[kind], kind=kind, ax=axes)
    for wrong in (3, "x", [axes], object):
        with pytest.raises(ConfigError, match=r"ax=.* must be axes of Matplotlib"):
            plot(trained[kind], kind=kind, ax=wrong)


@pytest.mark.parametrize("kind", ["learning", "pulls", "paths"])
def test_given_axes_stay_where_a_plot_is_refused(trained, kind):
    kept, in_space = Figure().add_subplot(), Figure().add_subplot(projection="3d")
    with pytest.raises(ConfigError, match=r"ax are 3d axes"):
        plot(trained[kind], kind=kind, ax=in_space)
    with pytest.raises(ConfigError, match=r"out=.*saved by you, with savefig"):
        plot(trained[kind], kind=kind, ax=kept, out="figure.png")
    other = {"learning": "learning", "pulls": "paths", "paths": "pulls"}[kind]
    wrong = {"smooth": 0} if kind == "learning" else {}
    with pytest.raises(ConfigError, match=r"smooth=0|not a bandit|as paths"):
        plot(trained[other], kind=kind, ax=kept, **wrong)
    assert kept.figure.axes == [kept]  # nothing is removed before all is checked


@pytest.mark.parametrize("kind", ["pulls", "paths"])
def test_single_trials_have_names_sizes_and_data(trained, kind, tmp_path):
    data, picture = tmp_path / "data.csv", tmp_path / "x.png"
    options = {"kind": kind, "data": data, "out": picture, "size": (4.0, 3.0), "labels": ["mine"]}
    assert plot(trained[kind], tasks=2, **options) == [picture]
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1200, 900)  # at 300 dpi
    rows = list(csv.DictReader(data.read_text().splitlines()))
    assert {row["label"] for row in rows} == {"mine"}
    assert len({row["task"] for row in rows}) == 2
    (log,) = (one for one in read_step_logs(trained[kind][0] / STEPS_FILE) if one.role == "agent")
    first = log.where((log.task == log.task[0]) & (log.rollout == 0))
    ours = [row for row in rows if int(row["task"]) == log.task[0]]
    if kind == "pulls":
        assert [int(row["arm"]) for row in ours] == first.action[:, 0].astype(int).tolist()
        assert [float(row["reward"]) for row in ours] == first.reward.tolist()
    else:
        path = [row for row in ours if row["episode"] == "1"]
        points = [[float(row["x"]), float(row["y"])] for row in path]
        np.testing.assert_array_equal(points, episode_path(first, 1))
    with pytest.raises(ConfigError, match="Got 2 labels for 1 runs"):
        plot(trained[kind], kind=kind, labels=["a", "b"])


@pytest.mark.parametrize("kind", ["pulls", "paths"])
def test_single_trials_have_no_heights(kind):
    with pytest.raises(ConfigError, match=f"ylim is no option of a figure of {kind}"):
        PlotOptions(kind=kind, ylim=(0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0.5, 3.0)}, r"size=\(0.5, 3.0\) must be sides of 1 to"),
        ({"size": (640.0, 480.0)}, "must be sides of 1 to 60 inches"),
        ({"size": (3.0,)}, "size=.* must be a list"),
        ({"ylim": (1.0, 0.0)}, "must be two finite numbers, the lower one first"),
        ({"data": ""}, "data='.' must be the path of a file"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        PlotOptions(**options)
