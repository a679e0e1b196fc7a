import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import metarl
from metarl.errors import ConfigError, RunFolderError, UnknownNameError
from metarl.plots.adaptation import adaptation_figure
from metarl.plots.episode_curves import FEW_POINTS
from metarl.plots.options import PlotOptions
from metarl.plots.plot import plot
from metarl.plots.regret import regret_figure
from metarl.plots.style import REFERENCE_STYLES, reference_dashes
from metarl.results.adaptation_curves import write_curves
from metarl.results.bootstrap import bootstrap_mean
from metarl.results.step_log import write_step_logs
from tests.known_ids import FAMILIES
from tests.plots.test_paths import walking_log
from tests.results.test_adaptation_curves import make_curve
from tests.results.test_learning_curves import make_training

FLOOR = {"agent": "random", "label": "random policy", "role": "floor", "run": ""}
CEILING = {"agent": "oracle", "label": "goal-knowing oracle", "role": "ceiling", "run": ""}


def make_run(folder, *, points=3, level=0.0, **names):
    """The folder of an evaluated run: an agent between its floor and its ceiling."""
    folder.mkdir(parents=True)
    agent = make_curve(points=points, run=folder.name, **names)
    floor, ceiling = (make_curve(points=points, **of) for of in (FLOOR, CEILING))
    levels = [(agent, level), (floor, -5.0), (ceiling, 10.0)]
    curves = [
        replace(curve, returns=base + curve.returns / 1e6 + np.arange(points)[:, None])
        for curve, base in levels
    ]
    write_curves(folder / "adaptation.csv", curves)
    return curves


def lines_by_label(figure):
    """The drawn lines by their labels in the legend."""
    (axes,) = figure.axes
    handles, labels = axes.get_legend_handles_labels()
    return {
        label: getattr(handle, "lines", [handle])[0]
        for handle, label in zip(handles, labels, strict=True)
    }


def legend_labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("points", [3, FEW_POINTS + 1])
def test_plotted_lines_are_the_means(tmp_path, points):
    curves = make_run(tmp_path / "a", points=points)
    lines = lines_by_label(adaptation_figure(curves))
    for curve in curves:
        prefix = "" if curve.role == "agent" else f"{curve.role}: "
        line = lines[prefix + curve.label]
        np.testing.assert_allclose(line.get_ydata(), curve.returns.mean(1))
        np.testing.assert_array_equal(line.get_xdata(), curve.episode)


def test_few_points_have_error_bars(tmp_path):
    curves = make_run(tmp_path / "a")
    figure = adaptation_figure(curves)
    (bars,) = figure.axes[0].containers
    _, low, high = bootstrap_mean(curves[0].returns[None])
    segments = np.array(bars.lines[2][0].get_segments())
    np.testing.assert_allclose(segments[:, :, 1], np.stack([low, high], 1))


def test_many_points_have_a_band(tmp_path):
    curves = make_run(tmp_path / "a", points=FEW_POINTS + 1)
    figure = adaptation_figure(curves)
    *references, band = figure.axes[0].collections
    assert len(references) == 2  # floor and ceiling
    _, low, high = bootstrap_mean(curves[0].returns[None])
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (low.min(), high.max())
    assert lines_by_label(figure)[curves[0].label].get_marker() in ("", "None")


def test_several_runs_of_an_agent_are_one_line_and_the_note_counts_them(tmp_path):
    curves = make_run(tmp_path / "a", level=0.0) + make_run(tmp_path / "b", level=4.0)
    figure = adaptation_figure(curves)
    line = lines_by_label(figure)[curves[0].label]
    np.testing.assert_allclose(line.get_ydata(), (curves[0].returns + 2.0).mean(1))
    assert legend_labels(figure) == [
        "ceiling: goal-knowing oracle",
        'RL^2, "GRU"',
        "floor: random policy",
    ]
    note = figure.get_supxlabel()
    assert note == "Mean and 95% bootstrap interval over 4 test tasks and 2 training seeds"


def test_agents_are_distinguishable_without_colour(tmp_path):
    for points in (3, FEW_POINTS + 1):
        curves = make_run(tmp_path / f"a{points}", points=points)
        curves += make_run(tmp_path / f"b{points}", points=points, agent="maml", label="MAML")
        lines = lines_by_label(adaptation_figure(curves))
        styles = [(line.get_marker(), line._dash_pattern) for line in lines.values()]
        assert len(lines) == 4
        assert len({str(style) for style in styles}) == 4


def styles_drawn(*references):
    """Colour and dashes of each reference, given as (role, name), in one figure."""
    given = [{"agent": name, "label": name, "role": role, "run": ""} for role, name in references]
    drawn = lines_by_label(adaptation_figure([make_curve(**one) for one in given]))
    return {
        label.split(": ")[-1]: (line.get_color(), line._unscaled_dash_pattern)
        for label, line in drawn.items()
    }


def test_a_reference_has_the_same_style_in_every_figure():
    families = [metarl.make_family(name) for name in FAMILIES]
    styles = {}
    for family in families:
        references = [(one.role, name) for name, one in family.references(10).items()]
        together = styles_drawn(*reversed(references))
        for role, name in references:
            styles.setdefault(name, []).append(together[name])
            styles[name].append(styles_drawn((role, name))[name])
    assert {"random", "thompson", "oracle"} < set(styles)
    for name, drawn in styles.items():
        assert all(style == drawn[0] for style in drawn), f"{name}: find another DASHES_SALT"


@pytest.mark.parametrize("role", REFERENCE_STYLES)
def test_references_of_one_role_have_distinct_dashes_while_there_are_enough(role):
    enough = len(REFERENCE_STYLES[role][1])
    names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"][:enough]
    assert len({str(reference_dashes(role, [name])) for name in names}) < enough  # a collision
    assert len(set(map(str, styles_drawn(*((role, name) for name in names)).values()))) == enough
    more = reference_dashes(role, [*names, *names])  # too many: dashes repeat
    assert (len(more), set(more)) == (2 * enough, set(REFERENCE_STYLES[role][1]))


def test_dashes_preferred_by_several_go_to_the_alphabetically_first():
    names = ["alpha", "beta", "delta", "epsilon", "gamma", "zeta"]
    preferred = {str(reference_dashes("baseline", [name])[0]): name for name in reversed(names)}
    assert len(preferred) < len(names)  # there are collisions
    for order in (names, names[::-1]):
        assigned = dict(zip(order, reference_dashes("baseline", order), strict=True))
        assert all(str(assigned[first]) == dashes for dashes, first in preferred.items())


def test_roles_have_no_dashes_in_common():
    dashes = [str(one) for _, of_role in REFERENCE_STYLES.values() for one in of_role]
    assert len(set(dashes)) == len(dashes)


def test_legend_does_not_overlap_the_axes(tmp_path):
    figure = adaptation_figure(make_run(tmp_path / "a"))
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    (axes,) = figure.axes
    assert not legend.overlaps(axes.get_window_extent())
    assert legend.x1 <= figure.bbox.x1


def test_only_the_requested_references_are_drawn(tmp_path):
    curves = make_run(tmp_path / "a")
    agent = 'RL^2, "GRU"'
    assert legend_labels(adaptation_figure(curves, reference=["random"])) == [
        agent,
        "floor: random policy",
    ]
    assert legend_labels(adaptation_figure(curves, reference=[])) == [agent]
    with pytest.raises(UnknownNameError, match="'thompson'; the rows hold oracle, random"):
        adaptation_figure(curves, reference=["thompson"])


def test_the_figure_of_one_run_is_written_into_its_folder(tmp_path):
    make_run(tmp_path / "a")
    written = plot([tmp_path / "a"])
    assert written == [tmp_path / "a" / "adaptation.png", tmp_path / "a" / "adaptation.svg"]
    png, svg = (path.read_bytes() for path in written)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) >= 6 * 200  # pixels: at least 200 dpi in print
    assert b">floor: random policy</text>" in svg


def test_the_figure_of_several_runs_is_written_next_to_them(tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / "runs" / name)
    folders = [tmp_path / "runs" / name for name in ("a", "b")]
    assert plot(folders, formats=["svg"]) == [tmp_path / "runs" / "adaptation.svg"]


def test_a_single_path_counts_as_a_list_of_one(tmp_path):
    make_run(tmp_path / "a")
    assert plot(str(tmp_path / "a"), formats=["svg"]) == [tmp_path / "a" / "adaptation.svg"]


def test_a_run_given_twice_counts_once(tmp_path):
    make_run(tmp_path / "a")
    plot([tmp_path / "a", tmp_path / "a" / ".." / "a"], out=tmp_path / "twice", formats=["svg"])
    assert "one training seed" in (tmp_path / "twice.svg").read_text()


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("deep/figure", ["figure.png", "figure.svg"]),
        ("figure.pdf", ["figure.pdf"]),
        ("gamma-0.9", ["gamma-0.9.png", "gamma-0.9.svg"]),
    ],
)
def test_out_sets_the_path_and_may_set_the_format(tmp_path, out, names):
    make_run(tmp_path / "a")
    written = plot([tmp_path / "a"], out=tmp_path / out)
    assert [path.name for path in written] == names
    assert all(path.stat().st_size > 1000 for path in written)


def test_equal_rows_give_equal_files(tmp_path):
    make_run(tmp_path / "a")
    formats = ["png", "svg", "pdf"]
    one, other = (plot([tmp_path / "a"], out=tmp_path / n, formats=formats) for n in "xy")
    for first, second in zip(one, other, strict=True):
        assert first.read_bytes() == second.read_bytes()
    assert not re.search(r"<dc:date>", one[1].read_text())


@pytest.mark.parametrize("points", [1, 100])
def test_very_few_and_many_points_are_plotted(tmp_path, points):
    make_run(tmp_path / "a", points=points)
    plot([tmp_path / "a"], formats=["png"])


def test_invalid_runs_and_formats_are_refused(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "other", family="metarl/GoalBandit-v0")
    (tmp_path / "fresh").mkdir()
    with pytest.raises(RunFolderError, match=r"`metarl evaluate .*fresh` writes it"):
        plot([tmp_path / "fresh"])
    with pytest.raises(ConfigError, match="one figure shows one family"):
        plot([tmp_path / "a", tmp_path / "other"])
    with pytest.raises(ConfigError, match=r"'bmp' is no format .* png, svg, pdf"):
        plot([tmp_path / "a"], formats=["bmp"])
    with pytest.raises(ConfigError, match="name at least one run folder"):
        plot([])
    with pytest.raises(RunFolderError, match=r"cannot be written .* another path"):
        plot([tmp_path / "a"], out=tmp_path / "a" / "adaptation.csv" / "figure")


def test_global_matplotlib_settings_are_unchanged(tmp_path):
    make_run(tmp_path / "a")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        before = dict(matplotlib.rcParams)
        plot([tmp_path / "a"], formats=["svg"])
        assert dict(matplotlib.rcParams) == before


def with_returns(curve, *returns):
    """The curve with these returns in all tasks."""
    return replace(curve, returns=np.array(returns)[:, None] + np.zeros((3, 4)))


def test_a_floor_far_below_is_only_in_the_legend():
    agent = with_returns(make_curve(), -2.0, -1.0, -1.0)
    ceiling = with_returns(make_curve(**CEILING), -0.5, -0.5, -0.5)
    floor = make_curve(**FLOOR)
    far = adaptation_figure([agent, ceiling, with_returns(floor, -60.0, -61.0, -62.0)])
    assert far.axes[0].get_ylim()[0] > -5
    assert len(lines_by_label(far)["floor: random policy (at -61)"].get_xdata()) == 0
    near = adaptation_figure([agent, ceiling, with_returns(floor, -5.0, -5.0, -5.0)])
    assert near.axes[0].get_ylim()[0] < -5
    assert len(lines_by_label(near)["floor: random policy"].get_xdata()) == 3


def test_regret_is_plotted_against_the_highest_ceiling(tmp_path):
    curves = make_run(tmp_path / "a")  # at 0, 1, 2; the ceiling at 10, 11, 12; the floor at -5
    best = with_returns(make_curve(**CEILING | {"agent": "best", "label": "best arm"}), 20, 20, 20)
    figure = regret_figure([*curves, best])
    lines = lines_by_label(figure)
    assert legend_labels(figure) == [
        "floor: random policy",
        'RL^2, "GRU"',
        "ceiling: goal-knowing oracle",
    ]
    np.testing.assert_allclose(lines['RL^2, "GRU"'].get_ydata(), [20, 39, 57], atol=3)
    expected = (20 - curves[0].returns).cumsum(0).mean(1)
    np.testing.assert_allclose(lines['RL^2, "GRU"'].get_ydata(), expected)
    assert figure.axes[0].get_ylabel() == "Cumulative regret against\nbest arm"
    hidden = regret_figure([*curves, best], reference=[])
    np.testing.assert_allclose(lines_by_label(hidden)['RL^2, "GRU"'].get_ydata(), expected)
    with pytest.raises(ConfigError, match="hold no ceiling"):
        regret_figure(curves[:2])


def test_each_kind_of_figure_reads_its_file(tmp_path):
    make_run(tmp_path / "a")
    make_training(tmp_path / "b" / "a")
    for file in (tmp_path / "b" / "a").iterdir():
        file.rename(tmp_path / "a" / file.name)
    logs = [walking_log(), walking_log(agent="random", label="random policy", role="floor")]
    write_step_logs(tmp_path / "a" / "trials.csv", logs)
    for kind in ("regret", "learning", "paths"):
        first, second = plot([tmp_path / "a"], kind=kind)
        assert (first.name, second.name) == (f"{kind}.png", f"{kind}.svg")
        again = plot([tmp_path / "a"], kind=kind, out=tmp_path / "again")
        assert [path.read_bytes() for path in again] == [first.read_bytes(), second.read_bytes()]
    with pytest.raises(ConfigError, match="is not a bandit: its actions are continuous"):
        plot([tmp_path / "a"], kind="pulls")
    with pytest.raises(ConfigError, match=r"kind='curves' of .* must be one of 'adaptation'"):
        plot([tmp_path / "a"], kind="curves")
    with pytest.raises(UnknownNameError, match="no metric 'loss'"):
        plot([tmp_path / "a"], kind="learning", metric="loss")


def test_single_trials_are_of_the_first_seed_and_requested_references(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "metarl.plots.plot.paths_figure",
        lambda logs, size, target, **limit: (
            calls.append(([(log.agent, log.run) for log in logs], limit)) or Figure()
        ),
    )
    random, oracle = (
        walking_log(run="", agent=name, label=name, role=role)
        for name, role in (("random", "floor"), ("oracle", "ceiling"))
    )
    for name in "ab":
        make_run(tmp_path / name)
        logs = [walking_log(run=name), random, oracle]
        write_step_logs(tmp_path / name / "trials.csv", logs)
    folders = [tmp_path / "a", tmp_path / "b"]
    figure = PlotOptions(kind="paths", formats=["svg"])
    plot(folders, options=figure)
    plot(folders, options=figure, reference=["random"], tasks=2)
    plot(folders, options=figure, references=["all"])
    plot(folders, options=figure, references=["none"])
    agent = ("rl2", "a")
    assert calls == [
        ([agent], {}),
        ([agent, ("random", "")], {"tasks": 2}),
        ([agent, ("random", ""), ("oracle", "")], {}),
        ([agent], {}),
    ]
    with pytest.raises(UnknownNameError, match="'thompson'; the rows hold oracle, random"):
        plot(folders, kind="paths", references=["thompson"])


def test_references_of_curves_are_all_none_or_given_by_name(tmp_path):
    make_run(tmp_path / "a")
    for references, count in ((None, 3), (["all"], 3), (["none"], 1), ([], 1), (["random"], 2)):
        (path,) = plot([tmp_path / "a"], formats=["svg"], references=references)
        assert path.read_text().count("floor: ") == (count > 1)
        assert path.read_text().count("ceiling: ") == (count > 2)
