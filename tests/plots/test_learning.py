import numpy as np
import pytest

from metarl.errors import ConfigError
from metarl.plots.learning import join_runs, learning_figure, learning_rows, running_mean
from metarl.results.learning_curves import HeldOut, LearningCurve


def learning_curve(*values, seed=0, seconds=1.0, label="RL²", **given):
    """A learning curve with iterations of 100 steps and `seconds` seconds."""
    count = np.arange(1.0, len(values) + 1)
    parts = {
        "run": f"run{seed}",
        "agent": "rl2",
        "label": label,
        "family": "lab/Task-v0",
        "seed": seed,
        "options": {"memory": "gru", "hidden_size": 8},
        "metric": "last_episode_return",
        "env_steps": 100 * count,
        "seconds": seconds * count,
        "values": np.array(values, dtype=float),
    }
    return LearningCurve(**(parts | given))


def lines(figure, panel=0):
    handles, labels = figure.axes[panel].get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


@pytest.mark.parametrize("window", [1, 2, 3, 7, 50])
def test_running_mean_is_centred(window):
    values = np.random.default_rng(0).standard_normal(20)
    half = window // 2
    by_definition = [values[max(0, i - half) : i + half + 1].mean() for i in range(20)]
    np.testing.assert_allclose(running_mean(values, window), by_definition)


def test_a_window_of_one_changes_nothing():
    values = np.random.default_rng(0).standard_normal(20)
    np.testing.assert_allclose(running_mean(values, 1), values)


def test_several_seeds_are_joined_up_to_the_end_of_the_shortest():
    one = np.array([1.0, 2.0, 3.0]), np.array([0.0, 4.0, 8.0])
    other = np.array([3.0, 4.0, 5.0, 6.0]), np.array([2.0, 2.0, 2.0, 99.0])
    band = join_runs([one, other])
    np.testing.assert_allclose(band.x, [2.0, 3.0, 4.0])
    np.testing.assert_allclose(band.mean, [1.0, 3.0, 5.0])
    np.testing.assert_allclose(band.low, [0.0, 2.0, 2.0])
    np.testing.assert_allclose(band.high, [2.0, 4.0, 8.0])


def test_the_panels_show_the_metric_over_steps_and_over_time():
    runs = [
        learning_curve(1, 2, 3, seed=0, seconds=60.0),
        learning_curve(3, 4, 5, seed=1, seconds=120.0),
    ]
    figure = learning_figure(runs, smooth=1)
    steps, minutes = (lines(figure, panel)["RL²"] for panel in (0, 1))
    np.testing.assert_allclose(steps.get_xydata(), [[100, 2], [200, 3], [300, 4]])
    np.testing.assert_allclose(minutes.get_xydata(), [[1.5, 2], [3.0, 3], [4.5, 4]])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (1.0, 5.0)
    assert figure.axes[0].get_xlabel() == "Environment steps"
    assert figure.axes[1].get_xlabel() == "Minutes of training"
    note = figure.get_supxlabel()
    assert note == (
        "lab/Task-v0: training tasks; line and shade: mean and range of 2 training seeds"
    )


def test_the_note_states_smoothing_and_a_single_run_shows_the_raw_values_too():
    noisy = np.random.default_rng(0).standard_normal(100)
    curve = learning_curve(*noisy)
    figure = learning_figure([curve], smooth=5)
    faint, smooth = figure.axes[0].lines
    np.testing.assert_allclose(faint.get_ydata(), noisy)
    np.testing.assert_allclose(smooth.get_ydata(), running_mean(noisy, 5))
    assert faint.get_alpha() < 0.5
    assert "running mean over 5 iterations, faint: each iteration" in figure.get_supxlabel()
    assert "running mean over 3 iterations" in learning_figure([curve]).get_supxlabel()
    assert "running" not in learning_figure([curve], smooth=1).get_supxlabel()


@pytest.mark.parametrize(
    ("seconds", "unit", "last"), [(1.0, "Seconds", 3.0), (60, "Minutes", 3.0), (7200, "Hours", 6.0)]
)
def test_the_time_unit_depends_on_the_duration(seconds, unit, last):
    figure = learning_figure([learning_curve(1, 2, 3, seconds=seconds)], smooth=1)
    assert figure.axes[1].get_xlabel() == f"{unit} of training"
    assert lines(figure, 1)["RL²"].get_xdata()[-1] == last


def test_agents_of_one_name_are_labelled_with_the_options_that_differ():
    runs = [
        learning_curve(1, 2, label=None),
        learning_curve(3, 4, label=None, seed=1, options={"memory": "lstm", "hidden_size": 8}),
        learning_curve(5, 6, label="MAML", options={}),
    ]
    assert list(lines(learning_figure(runs))) == ["rl2 (memory=gru)", "rl2 (memory=lstm)", "MAML"]


def test_the_legend_does_not_overlap_the_axes():
    figure = learning_figure(
        [learning_curve(1, 2), learning_curve(1, 2, label="another", options={})]
    )
    figure.canvas.draw()
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_different_families_and_invalid_smoothing_are_refused():
    one, other = learning_curve(1, 2), learning_curve(1, 2, seed=1, family="lab/Other-v0")
    with pytest.raises(ConfigError, match="'run0' was trained on lab/Task-v0 and 'run1' on lab/O"):
        learning_figure([one, other])
    with pytest.raises(ConfigError, match="smooth=0 must be at least 1"):
        learning_figure([one], smooth=0)


def test_evaluations_are_points_beside_the_curve_where_all_runs_have_one():
    one = HeldOut(*np.array([[0, 100, 200], [0, 1, 2], [1.0, 2.0, 3.0]]))
    other = HeldOut(*np.array([[0, 200, 300], [0, 4, 6], [3.0, 7.0, 9.0]]))
    runs = [learning_curve(1, 2, 3, held_out=one), learning_curve(1, 2, 3, seed=1, held_out=other)]
    runs.append(learning_curve(5, 6, 7, label="MAML", options={}))
    figure = learning_figure(runs, smooth=1)
    for panel, x in enumerate(([0, 200], [0, 3])):
        assert list(lines(figure, panel)) == ["RL²", "MAML", "RL², held-out tasks"]
        points, *_ = lines(figure, panel)["RL², held-out tasks"]
        np.testing.assert_allclose(points.get_xydata(), np.transpose([x, [2, 5]]))
        assert points.get_color() == lines(figure, panel)["RL²"].get_color()
    *_, first, last = learning_rows(runs, smooth=1)
    assert first == ("last_episode_return", "RL², held-out tasks", 2, 0.0, 0.0, 2.0, 1.0, 3.0)
    assert last == ("last_episode_return", "RL², held-out tasks", 2, 200.0, 3.0, 5.0, 3.0, 7.0)


def test_runs_that_were_evaluated_at_other_times_have_no_common_points():
    one, other = (HeldOut(*np.array([[at], [1.0], [1.0]])) for at in (100.0, 200.0))
    runs = [learning_curve(1, 2, held_out=one), learning_curve(1, 2, seed=1, held_out=other)]
    assert list(lines(learning_figure(runs))) == ["RL²"]
