from dataclasses import replace

import matplotlib.colors
import numpy as np
import pytest

from metarl.errors import ConfigError
from metarl.plots.paths import Stage, axis_limits, episode_path, paths_figure, stages
from tests.results.test_step_log import make_log


def note_of(figure) -> str:
    """The note below the figure, in one line."""
    return figure.get_supxlabel().replace("\n", " ")


def walking_log(*, tasks=2, episodes=3, steps=4, **given):
    """A log in which episode e of task t moves from the origin towards (t + 1, e + 1)."""
    grid = np.stack(np.meshgrid(*map(np.arange, (tasks, episodes, steps)), indexing="ij"), -1)
    task, episode, step = grid.reshape(-1, 3).T
    target = np.stack([task + 1, episode + 1], 1)
    parts = {
        "task": task,
        "rollout": np.zeros_like(task),
        "phase": np.zeros_like(task),
        "episode": episode + 1,
        "step": step + 1,
        "reward": np.zeros(len(task)),
        "success": np.zeros(len(task)),
        "parameter": np.stack([task + 1.0, np.full(len(task), 9.0)], 1),
        "expected_reward": np.zeros((len(task), 0)),
        "observation": target * step[:, None] / steps,
        "action": np.zeros((len(task), 2)),
        "next_observation": target * (step[:, None] + 1) / steps,
    }
    return make_log(**(parts | given))


def drawn_paths(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


def markers(axes, shape):
    return [line.get_xydata()[0] for line in axes.lines if line.get_marker() == shape]


def test_drawn_paths_include_the_final_observation():
    log = walking_log()
    figure = paths_figure([log])
    for task, axes in enumerate(figure.axes[:2]):
        assert axes.get_title(loc="left") == f"task {task}"
        lines = drawn_paths(axes)
        for episode, line in enumerate(lines, 1):
            expected = np.array([task + 1, episode]) * np.linspace(0, 1, 5)[:, None]
            np.testing.assert_allclose(line.get_xydata(), expected)
        assert len(lines) == 3
        np.testing.assert_allclose(markers(axes, "*"), [[task + 1.0, 9.0]])
        (goal,) = (line for line in axes.lines if line.get_marker() == "*")
        assert all(line.get_zorder() < goal.get_zorder() for line in lines)  # goal on top
        np.testing.assert_allclose(markers(axes, "o"), np.zeros((3, 2)))


def test_later_episodes_are_darker_and_panels_share_one_equal_aspect_scale():
    figure = paths_figure([walking_log(episodes=5)])
    figure.canvas.draw()
    lines = drawn_paths(figure.axes[0])
    luma = [np.dot(matplotlib.colors.to_rgb(line.get_color()), [0.2, 0.7, 0.1]) for line in lines]
    assert (np.diff(luma) < -0.08).all()
    assert luma[0] < 0.8  # visible on white
    limits = {(*axes.get_xlim(), *axes.get_ylim()) for axes in figure.axes[:2]}
    assert len(limits) == 1
    for axes in figure.axes[:2]:
        across, up = (np.diff(axes.transData.transform([[0, 0], [1, 1]]), axis=0))[0]
        assert across == pytest.approx(up)


def test_the_legend_is_complete_and_does_not_overlap_the_axes():
    figure = paths_figure([walking_log()])
    figure.canvas.draw()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [
        *("episode 1", "episode 2", "episode 3"),
        *("start", "goal, not shown to the agent"),
    ]
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_the_legend_names_adaptation_steps_and_every_copy_is_drawn():
    phase = np.repeat([0, 0, 1, 1], 3)
    log = walking_log(
        tasks=1,
        episodes=4,
        steps=3,
        phase=phase,
        episode=1 + 20 * phase,
        rollout=np.tile(np.repeat([0, 1], 3), 2),
    )
    assert stages([log]) == [Stage(0, 1), Stage(1, 21)]
    np.testing.assert_allclose(episode_path(log, 21, rollout=1)[-1], [1.0, 4.0])
    figure = paths_figure([log])
    assert len(drawn_paths(figure.axes[0])) == 4
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:2] == ["before adapting", "after 1 step"]
    assert "2 trials at once in each of 1 test task" in note_of(figure)


def log_at(episodes, *, phases=None, **names):
    """A log of one task with these episode numbers."""
    log = walking_log(tasks=1, episodes=len(episodes), steps=4, **names)
    number = log.episode - 1
    phase = np.zeros_like(number) if phases is None else np.array(phases)[number]
    return replace(log, episode=np.array(episodes)[number], phase=phase)


def test_equal_experience_has_equal_colours_for_all_agents():
    steps = log_at([1, 21, 41], phases=[0, 1, 2])
    floor = log_at([1, 21, 41], role="floor", label="random")  # no adaptation steps
    memory = log_at([1, 2, 3], label="memory")
    assert stages([steps, floor]) == [Stage(0, 1), Stage(1, 21), Stage(2, 41)]
    figure = paths_figure([steps, floor])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:3] == ["before adapting", "after 1 step", "after 2 steps"]
    one, other = ([line.get_color() for line in drawn_paths(axes)] for axes in figure.axes[:2])
    assert one == other
    assert len(set(one)) == 3

    figure = paths_figure([memory, steps, floor])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:5] == [
        *("episode 1", "episode 2", "episode 3"),
        *("episode 21, after 1 step", "episode 41, after 2 steps"),
    ]
    colours = [[line.get_color() for line in drawn_paths(axes)] for axes in figure.axes[:3]]
    assert [len(of_log) for of_log in colours] == [3, 3, 3]
    assert colours[0][0] == colours[1][0]  # episode 1 of both
    assert set(colours[0][1:]).isdisjoint(colours[1])


def test_a_legend_with_long_names_stays_within_the_figure():
    episodes = [phase * 1000 + episode for phase in range(4) for episode in (1, 2)]
    log = log_at(episodes, phases=np.repeat(range(4), 2))
    for logs in ([log], [log, walking_log(tasks=1, label="memory")]):
        figure = paths_figure(logs)
        figure.canvas.draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_distant_references_do_not_change_the_axis_limits_and_the_note_says_they_are_cut():
    log = walking_log()
    far = walking_log(role="floor", label="random", next_observation=log.next_observation * 100)
    low, high = axis_limits([log, far], [0, 1])
    np.testing.assert_allclose([low, high], axis_limits([log], [0, 1]))
    assert (high < 15).all()
    note = note_of(paths_figure([log, far]))
    assert note.endswith("paths of references are cut at the frame")
    assert "cut" not in note_of(paths_figure([log]))


def test_no_goal_is_drawn_for_tasks_that_are_not_points():
    log = walking_log(parameter=np.zeros((24, 1)))
    figure = paths_figure([log])
    assert markers(figure.axes[0], "*") == []
    assert "goal" not in figure.legends[0].get_texts()[-1].get_text()


@pytest.mark.parametrize("components", [1, 3])
def test_observations_that_are_not_points_of_a_plane_are_refused(components):
    log = walking_log(observation=np.zeros((24, components)))
    with pytest.raises(ConfigError, match=f"its observations have {components} components"):
        paths_figure([log])
