"""The canvas, pixel by pixel, and renderings of bandits and navigation."""

import numpy as np
import pytest
import torch
from PIL import ImageColor

import metarl
from metarl.envs.drawing import canvas
from metarl.envs.drawing.canvas import AMBER, BLUE, INK, PALE, PAPER, SKY, VERMILION, Canvas, Pull
from metarl.errors import ShapeError
from metarl.noise import LaneNoise
from metarl.plots import style
from metarl.seeding import Seeds
from metarl.tasks.family import RenderFrame
from tests.known_ids import FAMILIES


def rgb(colour):
    return ImageColor.getrgb(colour)


def share(image, colour):
    """Share of the pixels that have exactly this colour."""
    return float((image == rgb(colour)).all(-1).mean())


def at(image, row, column):
    return tuple(image[row, column].tolist())


def where(image, colour):
    """Mean row and column of the pixels that have this colour."""
    return np.argwhere((image == rgb(colour)).all(-1)).mean(0)


def test_colours_equal_those_of_the_figures():
    assert canvas.COLOURS == style.COLOURS


def test_a_box_covers_its_part_of_the_window_with_y_upwards():
    canvas = Canvas((-1, 0), (3, 2))
    canvas.box((-1, 0), (1, 1), BLUE)  # the lower left quarter
    image = canvas.image()
    assert (image.shape, image.dtype) == ((200, 400, 3), np.uint8)
    assert share(image, BLUE) == 0.25
    assert share(image[100:, :200], BLUE) == 1.0
    assert share(image, PAPER) == 0.75


def test_a_disc_is_round_with_smooth_edges():
    canvas = Canvas((0, 0), (1, 1))
    canvas.disc((0.25, 0.75), 0.2, INK)
    dark = 1 - canvas.image().astype(float).mean(-1) / 255
    assert dark.mean() == pytest.approx(np.pi * 0.2**2, rel=0.01)
    assert np.average(np.indices(dark.shape)[1], weights=dark) == pytest.approx(99.5, abs=0.5)
    assert np.average(np.indices(dark.shape)[0], weights=dark) == pytest.approx(99.5, abs=0.5)
    assert ((dark > 0.05) & (dark < 0.95)).any()


def test_a_line_has_the_given_width_and_skips_non_finite_points():
    canvas = Canvas((0, 0), (1, 1))
    canvas.line([(0, 0.5), (np.nan, 0.2), (1, 0.5)], INK, 4)
    dark = 1 - canvas.image().astype(float).mean() / 255
    assert dark == pytest.approx(4 / 400, rel=0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_shapes_at_non_finite_or_distant_points_are_not_drawn(bad):
    canvas = Canvas((0, 0), (1, 1))
    canvas.disc((bad, 0.5), 0.1, BLUE)
    canvas.box((bad, 0), (bad, 1), BLUE)
    canvas.polygon([(bad, 0), (bad, 1), (bad, 0.5)], BLUE)
    canvas.text((bad, 0.5), "nowhere")
    canvas.line([(0.2, bad), (0.4, bad)], BLUE, 3)
    assert share(canvas.image(), PAPER) == 1.0


def test_a_window_grows_evenly_around_points_outside_it():
    low, high = canvas.window_around([(0.5, 0.5), (np.nan, 9)], (-1, 0), (1, 1))
    assert (low.tolist(), high.tolist()) == ([-1, 0], [1, 1])
    # The middle is (0, 0.5); x = 3 is three times half the width, so both sides are tripled.
    low, high = canvas.window_around([(3, 0.5)], (-1, 0), (1, 1))
    assert (low.tolist(), high.tolist()) == ([-3, -1], [3, 2])
    low, high = canvas.window_around([(3, 0.5)], (-1, 0), (1, 1), margin=1.0)
    assert (low.tolist(), high.tolist()) == ([-4, -1.5], [4, 2.5])


def test_bars_show_the_payouts_of_arms_and_the_latest_is_marked():
    image = canvas.draw_arms([0.2, 0.8, 0.4], [0, 6, 3], Pull(1, 1.0))
    heights = []
    for arm, colour in enumerate((SKY, BLUE, SKY)):
        column = image[:, round(400 * (0.03 + 0.94 / 3 * (arm + 0.5))) - 30]
        heights.append(int((column == rgb(colour)).all(-1).sum()))
    # A payout of 1 is 0.37 of the image's 400 pixels; rows at the ends have mixed colours.
    assert heights == pytest.approx([29.6, 118.4, 59.2], abs=2)
    pulls = [(image[:, x] == rgb(c)).all(-1).sum() for x, c in ((170, INK), (300, PALE))]
    assert pulls[0] == pytest.approx(2 * pulls[1], abs=3)


def test_bars_of_negative_payouts_are_below_the_line():
    row, _ = where(canvas.draw_arms([-2.0, 1.0], [0, 0], Pull(0, -1.25)), BLUE)
    other, _ = where(canvas.draw_arms([-2.0, 1.0], [0, 0], Pull(1, -1.25)), BLUE)
    assert row > other + 50


@pytest.mark.parametrize("arms", [1, 50])
def test_any_number_of_arms_fits(arms):
    image = canvas.draw_arms(np.ones(arms), np.full(arms, 7), Pull(arms - 1, 1.0))
    assert share(image[100:200], SKY if arms > 1 else BLUE) > 0.5
    assert (image[:, -3:] == rgb(PAPER)).all()  # the coin is not cut off
    assert share(image, AMBER) == pytest.approx(np.pi * 0.042**2, rel=0.3)


def test_a_grid_has_its_first_row_on_top_and_shows_its_agent():
    cells = np.zeros((2, 4), dtype=int)
    cells[0, 3] = 1
    image = canvas.draw_grid(cells, [PAPER, VERMILION], agent=(1, 0), marks={(0, 0): "S"})
    assert image.shape == (200, 400, 3)
    assert where(image, VERMILION) == pytest.approx((50, 350), abs=1)
    assert where(image, BLUE) == pytest.approx((150, 50), abs=1)
    assert (image[:100, :100] == rgb(INK)).all(-1).any()


@pytest.mark.parametrize(
    ("heading", "ahead"), [(0, (0, 1)), (1, (1, 0)), (2, (0, -1)), (3, (-1, 0))]
)
def test_an_agent_points_in_its_heading(heading, ahead):
    image = canvas.draw_grid(np.zeros((1, 1), int), [PAPER], agent=(0, 0), heading=heading)
    rows, columns = np.argwhere((image == rgb(BLUE)).all(-1)).T
    # The tip of the triangle is farther from the middle of the cell than its back.
    reach = {
        (0, 1): columns.max() - 200,
        (1, 0): rows.max() - 200,
        (0, -1): 200 - columns.min(),
        (-1, 0): 200 - rows.min(),
    }
    assert max(reach, key=reach.__getitem__) == ahead


def test_a_trail_connects_its_cells():
    trail = [(0, 0), (0, 1), (1, 1)]
    image = canvas.draw_grid(np.zeros((2, 2), int), [PAPER], trail=trail)
    assert at(image, 100, 200) == rgb(SKY)
    assert at(image, 200, 300) == rgb(SKY)
    assert at(image, 200, 100) != rgb(SKY)


@pytest.mark.parametrize("of_bytes", [True, False])
def test_an_image_is_enlarged_without_smoothing(of_bytes):
    small = np.array([[0, 51], [102, 255]], np.uint8) if of_bytes else [[0, 0.2], [0.4, 2.0]]
    enlarged = canvas.draw_image(small)
    assert enlarged.shape == (400, 400, 3)
    found = [at(enlarged, row, column)[0] for row in (100, 260) for column in (100, 300)]
    assert found == [0, 51, 102, 255]


def test_an_image_may_have_colours_a_frame_and_a_caption():
    image = np.zeros((28, 20, 3), np.uint8)
    image[..., 1] = 255
    plain = canvas.draw_image(image)
    assert at(plain, 180, 200) == (0, 255, 0)
    assert share(plain, VERMILION) == 0
    framed = canvas.draw_image(image, "guess 3, label 4", edge=VERMILION)
    assert share(framed, VERMILION) > 0.03
    assert (plain[-35:] == rgb(PAPER)).all()
    assert (framed[-35:] == rgb(INK)).all(-1).any()


def test_arrays_with_wrong_axes_are_refused():
    with pytest.raises(ShapeError, match=r"\[rows, columns\]; got \[3\]"):
        canvas.draw_grid([0, 1, 2], [PAPER])
    for wrong in (np.zeros(3), np.zeros((3, 4, 4)), np.zeros((0, 4))):
        with pytest.raises(ShapeError, match=r"\[height, width\] or \[height, width, 3\]; got"):
            canvas.draw_image(wrong)


def roll_out(family, task, actions, rewards=None):
    """Render frames of one lane; a new episode starts after each termination."""
    noise = LaneNoise.of(Seeds(0), "noise", 1)
    history = [RenderFrame(family.reset(task, noise), None, 0.0)]
    for step, action in enumerate(actions):
        state, reward, terminated = family.step(task, history[-1].state, action, noise.at(step))
        reward = float(reward if rewards is None else rewards[step])
        history.append(RenderFrame(state, action, reward))
        if bool(terminated) and step + 1 < len(actions):
            history.append(RenderFrame(family.reset(task, noise), None, 0.0))
    return history


def test_a_bandit_rendering_shows_all_pulls_so_far():
    family = metarl.make_family("metarl/BernoulliBandit-v0", arms=3)
    task = torch.tensor([[0.2, 0.8, 0.4]])
    pulls = [torch.tensor([arm]) for arm in (2, 1, 2, 1, 1)]
    history = roll_out(family, task, pulls, rewards=[0, 1, 0, 0, 1])
    expected = canvas.draw_arms([0.2, 0.8, 0.4], [0, 3, 2], Pull(1, 1.0))
    assert (family.render(task, history) == expected).all()
    after_reset = [*history, RenderFrame(history[0].state, None, 0.0)]
    assert (family.render(task, after_reset) == expected).all()  # no flicker between pulls
    unpulled = canvas.draw_arms([0.2, 0.8, 0.4], [0, 0, 0])
    assert (family.render(task, history[:1]) == unpulled).all()


def test_navigation_shows_the_goal_the_current_path_and_earlier_paths():
    family = metarl.make_family("metarl/SparsePointNavigation-v0")
    task = torch.tensor([[0.0, 1.0]])
    right, left = torch.tensor([[0.1, 0.0]]), torch.tensor([[-0.1, 0.0]])
    first, second = roll_out(family, task, [right] * 8), roll_out(family, task, [left] * 8)
    alone, both = family.render(task, first), family.render(task, first + second)
    # The window is 2.5 x 1.5 around the start and the goals, with 160 pixels per unit.
    assert alone.shape == both.shape == (240, 400, 3)
    assert at(both, 200, 200 - 128) == rgb(BLUE)  # the current position
    assert at(both, 200, 200 + 100) == rgb(PALE)  # a position of the first episode
    assert at(alone, 200, 200 + 128) == rgb(BLUE)
    assert where(both, VERMILION) == pytest.approx((40, 200), abs=2)


def test_navigation_renders_points_far_away_or_non_finite():
    family = metarl.make_family("metarl/PointNavigation-v0")
    task = torch.tensor([[0.5, 0.5]])
    away = roll_out(family, task, [torch.tensor([[-0.1, 0.0]])] * 30)
    image = family.render(task, away)
    assert share(image[:, :40], BLUE) > 0.005
    distant = [away[0], RenderFrame(torch.tensor([[1e20, 0.0]]), away[1].action, 0.0)]
    assert family.render(task, distant).shape == image.shape
    non_finite = roll_out(family, task, [torch.tensor([[torch.nan, 0.0]])] * 2)
    assert family.render(task, non_finite).shape == image.shape == (400, 400, 3)


@pytest.mark.parametrize("task_id", FAMILIES)
def test_families_that_can_render_return_an_rgb_image(task_id):
    family = metarl.make_family(task_id)
    task = family.sample_tasks(1, torch.Generator().manual_seed(0))
    noise = LaneNoise.of(Seeds(0), "noise", 1)
    history = [RenderFrame(family.reset(task, noise), None, 0.0)]
    if not family.can_render:
        with pytest.raises(
            NotImplementedError, match=f"{type(family).__name__} does not render frames"
        ):
            family.render(task, history)
        return
    one, again = (family.render(task, history) for _ in range(2))
    assert one.dtype == np.uint8
    assert one.shape[2:] == (3,)
    assert one.min() < one.max()
    assert (one == again).all()
