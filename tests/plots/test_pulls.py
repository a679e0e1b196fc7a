import numpy as np
import pytest

from metarl.errors import ConfigError
from metarl.plots.pulls import payouts, pulls_figure, raster
from tests.results.test_step_log import make_log

PULLED = np.array([[2, 0, 1, 1], [0, 0, 2, 0]])  # [tasks, pulls]
PAID = np.array([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
PAYOUTS = np.array([[0.3, 0.9, 0.5], [0.8, 0.1, 0.2]])  # [tasks, arms]


def bandit_log(**given):
    """A log of four pulls in each of two bandits with three arms."""
    shape = {
        "num_actions": 3,
        "step": np.ones(8, dtype=int),
        "episode": np.tile(np.arange(1, 5), 2),
        "observation": np.zeros((8, 1)),
        "next_observation": np.zeros((8, 1)),
        "action": PULLED.reshape(8, 1).astype(float),
        "reward": PAID.ravel(),
        "parameter": np.repeat(PAYOUTS, 4, axis=0),
    }
    return make_log(**(shape | given))


def panels(figure, rows=2):
    return np.array(figure.axes).reshape(rows, -1)


def cells(axes):
    (mesh,) = axes.collections
    return mesh.get_array()


def test_raster_holds_each_reward_in_the_row_of_its_arm():
    nan = np.nan
    np.testing.assert_array_equal(
        raster(bandit_log(), 0),
        [[nan, 0.0, nan, nan], [nan, nan, 0.0, 1.0], [1.0, nan, nan, nan]],
    )


def test_pulls_are_drawn_with_the_best_arm_on_top():
    figure = pulls_figure([bandit_log()])
    for task, order in enumerate([[1, 2, 0], [0, 2, 1]]):
        payout_axes, axes = panels(figure)[task]
        drawn = cells(axes)
        np.testing.assert_array_equal(drawn.filled(np.nan), raster(bandit_log(), task)[order])
        assert axes.get_ylim() == (2.5, -0.5)  # the first row is the highest
        bars = [bar.get_width() for bar in payout_axes.patches]
        np.testing.assert_allclose(bars, sorted(PAYOUTS[task], reverse=True))
        names = [text.get_text() for text in payout_axes.get_yticklabels()]
        assert names == [f"arm {arm}" for arm in order]


def test_rewards_0_and_1_differ_in_lightness():
    figure = pulls_figure([bandit_log()])
    mesh = panels(figure)[0, 1].collections[0]
    figure.canvas.draw()
    luma = [mesh.cmap(mesh.norm(reward))[:3] @ np.array([0.2, 0.7, 0.1]) for reward in (0, 1)]
    assert luma[0] - luma[1] > 0.4
    assert 1.0 - luma[0] > 0.15  # visible on white
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["pulled, paid 1", "pulled, paid 0"]


def test_real_valued_rewards_have_a_colour_bar():
    figure = pulls_figure([bandit_log(reward=np.linspace(-2.0, 3.0, 8))])
    assert not figure.legends
    colour_bar = figure.axes[-1]
    assert colour_bar.get_ylabel() == "Reward of the pull"
    assert first_mesh(figure).get_clim() == (-2.0, 3.0)


def first_mesh(figure):
    return next(axes.collections[0] for axes in figure.axes if axes.collections)


def test_agents_have_columns_and_tasks_have_rows():
    other = bandit_log(label="Thompson sampling", agent="thompson", action=np.zeros((8, 1)))
    grid = panels(pulls_figure([bandit_log(), other], tasks=1), rows=1)
    assert [axes.get_title(loc="left") for axes in grid[0, 1:]] == [
        'RL^2, "GRU"',
        "Thompson sampling",
    ]
    assert (~cells(grid[0, 2]).mask).all(1).tolist() == [False, False, True]


def test_payouts_are_the_expected_rewards_or_else_one_parameter_per_arm():
    log = bandit_log()
    np.testing.assert_array_equal(payouts(log, 1), PAYOUTS[1])
    with_expected = bandit_log(expected_reward=np.repeat(1 - PAYOUTS, 4, axis=0))
    np.testing.assert_array_equal(payouts(with_expected, 1), 1 - PAYOUTS[1])
    unknown = bandit_log(parameter=np.zeros((8, 1)))
    assert payouts(unknown, 1) is None
    figure = pulls_figure([unknown])
    assert len(figure.axes) == 2  # no bars
    np.testing.assert_array_equal(
        cells(figure.axes[1]).filled(np.nan), raster(unknown, 1)
    )  # arms by number


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"num_actions": None}, "its actions are continuous"),
        ({"step": np.tile([1, 2], 4)}, "its episodes last up to 2 steps"),
        ({"observation": np.arange(8.0)[:, None]}, "its observations change"),
    ],
)
def test_a_task_that_is_not_a_bandit_is_refused(given, complaint):
    with pytest.raises(ConfigError, match=f"lab/Plane-v0 is not a bandit: {complaint}"):
        pulls_figure([bandit_log(**given)])


def test_an_agent_that_adapts_between_phases_is_refused():
    phase = np.repeat([0, 1], len(bandit_log().phase) // 2)
    with pytest.raises(ConfigError, match="adapts between phases of many trials"):
        pulls_figure([bandit_log(phase=phase)])
