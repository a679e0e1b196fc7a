"""The pens of the families, pixel by pixel, and what the built-in families draw with them."""

import numpy as np
import pytest
import torch
from PIL import ImageColor

import metarl
from metarl.envs.drawing import canvas
from metarl.envs.drawing.canvas import AMBER, BLUE, INK, PALE, PAPER, SKY, VERMILION, Canvas, Pull
from metarl.errors import ShapeError
from metarl.plots import style
from metarl.tasks.family import RenderFrame
from tests.known_ids import FAMILIES


def rgb(colour):
    return ImageColor.getrgb(colour)


def share(picture, colour):
    """How much of a picture has exactly this colour."""
    return float((picture == rgb(colour)).all(-1).mean())


def at(picture, row, column):
    return tuple(picture[row, column].tolist())


def where(picture, colour):
    """Middle of all that has this colour: its row and column."""
    return np.argwhere((picture == rgb(colour)).all(-1)).mean(0)


def test_colours_are_those_of_the_figures():
    assert canvas.COLOURS == style.COLOURS


def test_a_box_covers_its_part_of_the_window_with_y_upwards():
    canvas = Canvas((-1, 0), (3, 2))
    canvas.box((-1, 0), (1, 1), BLUE)  # the lower left quarter
    picture = canvas.picture()
    assert (picture.shape, picture.dtype) == ((200, 400, 3), np.uint8)
    assert share(picture, BLUE) == 0.25
    assert share(picture[100:, :200], BLUE) == 1.0
    assert share(picture, PAPER) == 0.75


def test_a_disc_is_round_and_smooth():
    canvas = Canvas((0, 0), (1, 1))
    canvas.disc((0.25, 0.75), 0.2, INK)
    dark = 1 - canvas.picture().astype(float).mean(-1) / 255
    assert dark.mean() == pytest.approx(np.pi * 0.2**2, rel=0.01)
    assert np.average(np.indices(dark.shape)[1], weights=dark) == pytest.approx(99.5, abs=0.5)
    assert np.average(np.indices(dark.shape)[0], weights=dark) == pytest.approx(99.5, abs=0.5)
    assert ((dark > 0.05) & (dark < 0.95)).any()


def test_a_line_is_as_wide_as_it_says_and_leaves_gaps_out():
    canvas = Canvas((0, 0), (1, 1))
    canvas.line([(0, 0.5), (np.nan, 0.2), (1, 0.5)], INK, 4)
    dark = 1 - canvas.picture().astype(float).mean() / 255
    assert dark == pytest.approx(4 / 400, rel=0.1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_nowhere_is_not_drawn(bad):
    canvas = Canvas((0, 0), (1, 1))
    canvas.disc((bad, 0.5), 0.1, BLUE)
    canvas.box((bad, 0), (bad, 1), BLUE)
    canvas.polygon([(bad, 0), (bad, 1), (bad, 0.5)], BLUE)
    canvas.text((bad, 0.5), "nowhere")
    canvas.line([(0.2, bad), (0.4, bad)], BLUE, 3)
    assert share(canvas.picture(), PAPER) == 1.0


def test_a_window_grows_evenly_around_what_leaves_it():
    low, high = canvas.window_around([(0.5, 0.5), (np.nan, 9)], (-1, 0), (1, 1))
    assert (low.tolist(), high.tolist()) == ([-1, 0], [1, 1])
    # The middle is (0, 0.5); 3 to the right is three times half the width, so all is tripled.
    low, high = canvas.window_around([(3, 0.5)], (-1, 0), (1, 1))
    assert (low.tolist(), high.tolist()) == ([-3, -1], [3, 2])
    low, high = canvas.window_around([(3, 0.5)], (-1, 0), (1, 1), margin=1.0)
    assert (low.tolist(), high.tolist()) == ([-4, -1.5], [4, 2.5])


def test_arms_are_as_high_as_they_pay_and_the_latest_is_marked():
    picture = canvas.draw_arms([0.2, 0.8, 0.4], [0, 6, 3], Pull(1, 1.0))
    heights = []
    for arm, colour in enumerate((SKY, BLUE, SKY)):
        column = picture[:, round(400 * (0.03 + 0.94 / 3 * (arm + 0.5))) - 30]
        heights.append(int((column == rgb(colour)).all(-1).sum()))
    # A payout of 1 is 0.37 of the picture's 400 pixels; rows at the ends are of mixed colour.
    assert heights == pytest.approx([29.6, 118.4, 59.2], abs=2)
    pulled = [(picture[:, x] == rgb(c)).all(-1).sum() for x, c in ((170, INK), (300, PALE))]
    assert pulled[0] == pytest.approx(2 * pulled[1], abs=3)


def test_arms_that_cost_hang_below_the_line():
    row, _ = where(canvas.draw_arms([-2.0, 1.0], [0, 0], Pull(0, -1.25)), BLUE)
    other, _ = where(canvas.draw_arms([-2.0, 1.0], [0, 0], Pull(1, -1.25)), BLUE)
    assert row > other + 50


@pytest.mark.parametrize("arms", [1, 50])
def test_any_number_of_arms_fits(arms):
    picture = canvas.draw_arms(np.ones(arms), np.full(arms, 7), Pull(arms - 1, 1.0))
    assert share(picture[100:200], SKY if arms > 1 else BLUE) > 0.5
    assert (picture[:, -3:] == rgb(PAPER)).all()  # the coin is not cut off
    assert share(picture, AMBER) == pytest.approx(np.pi * 0.042**2, rel=0.3)


def test_a_grid_has_its_first_row_on_top_and_its_agent_where_it_is():
    cells = np.zeros((2, 4), dtype=int)
    cells[0, 3] = 1
    picture = canvas.draw_grid(cells, [PAPER, VERMILION], agent=(1, 0), marks={(0, 0): "S"})
    assert picture.shape == (200, 400, 3)
    assert where(picture, VERMILION) == pytest.approx((50, 350), abs=1)
    assert where(picture, BLUE) == pytest.approx((150, 50), abs=1)
    assert (picture[:100, :100] == rgb(INK)).all(-1).any()


@pytest.mark.parametrize(
    ("heading", "ahead"), [(0, (0, 1)), (1, (1, 0)), (2, (0, -1)), (3, (-1, 0))]
)
def test_an_agent_looks_where_it_is_heading(heading, ahead):
    picture = canvas.draw_grid(np.zeros((1, 1), int), [PAPER], agent=(0, 0), heading=heading)
    rows, columns = np.argwhere((picture == rgb(BLUE)).all(-1)).T
    # The tip of the triangle lies farther from the middle of the cell than its back.
    reach = {
        (0, 1): columns.max() - 200,
        (1, 0): rows.max() - 200,
        (0, -1): 200 - columns.min(),
        (-1, 0): 200 - rows.min(),
    }
    assert max(reach, key=reach.__getitem__) == ahead


def test_a_trail_leads_through_its_cells():
    way = [(0, 0), (0, 1), (1, 1)]
    picture = canvas.draw_grid(np.zeros((2, 2), int), [PAPER], trail=way)
    assert at(picture, 100, 200) == rgb(SKY)
    assert at(picture, 200, 300) == rgb(SKY)
    assert at(picture, 200, 100) != rgb(SKY)


@pytest.mark.parametrize("of_bytes", [True, False])
def test_an_image_is_enlarged_pixel_by_pixel(of_bytes):
    image = np.array([[0, 51], [102, 255]], np.uint8) if of_bytes else [[0, 0.2], [0.4, 2.0]]
    picture = canvas.draw_image(image)
    assert picture.shape == (400, 400, 3)
    found = [at(picture, row, column)[0] for row in (100, 260) for column in (100, 300)]
    assert found == [0, 51, 102, 255]


def test_an_image_may_be_coloured_framed_and_explained():
    image = np.zeros((28, 20, 3), np.uint8)
    image[..., 1] = 255
    plain = canvas.draw_image(image)
    assert at(plain, 180, 200) == (0, 255, 0)
    assert share(plain, VERMILION) == 0
    framed = canvas.draw_image(image, "said 3, was 4", edge=VERMILION)
    assert share(framed, VERMILION) > 0.03
    assert (plain[-35:] == rgb(PAPER)).all()
    assert (framed[-35:] == rgb(INK)).all(-1).any()


def test_other_axes_are_refused():
    with pytest.raises(ShapeError, match=r"\[rows, columns\]; got \[3\]"):
        canvas.draw_grid([0, 1, 2], [PAPER])
    for wrong in (np.zeros(3), np.zeros((3, 4, 4)), np.zeros((0, 4))):
        with pytest.raises(ShapeError, match=r"\[height, width\] or \[height, width, 3\]; got"):
            canvas.draw_image(wrong)


def lived(family, task, actions, rewards=None):
    """A life of one lane: moments, and a new episode wherever one ends."""
    generator = torch.Generator().manual_seed(0)
    life = [RenderFrame(family.reset(task, generator), None, 0.0)]
    for step, action in enumerate(actions):
        state, reward, terminated = family.step(task, life[-1].state, action, generator)
        life.append(RenderFrame(state, action, float(reward if rewards is None else rewards[step])))
        if bool(terminated) and step + 1 < len(actions):
            life.append(RenderFrame(family.reset(task, generator), None, 0.0))
    return life


def test_a_bandit_shows_every_pull_so_far():
    family = metarl.make_family("metarl/BernoulliBandit-v0", arms=3)
    task = torch.tensor([[0.2, 0.8, 0.4]])
    pulls = [torch.tensor([arm]) for arm in (2, 1, 2, 1, 1)]
    life = lived(family, task, pulls, rewards=[0, 1, 0, 0, 1])
    expected = canvas.draw_arms([0.2, 0.8, 0.4], [0, 3, 2], Pull(1, 1.0))
    assert (family.render(task, life) == expected).all()
    opening = [*life, RenderFrame(life[0].state, None, 0.0)]
    assert (family.render(task, opening) == expected).all()  # nothing flickers between pulls
    unpulled = canvas.draw_arms([0.2, 0.8, 0.4], [0, 0, 0])
    assert (family.render(task, life[:1]) == unpulled).all()


def test_navigation_shows_the_goal_this_way_and_those_before():
    family = metarl.make_family("metarl/SparsePointNavigation-v0")
    task = torch.tensor([[0.0, 1.0]])
    right, left = torch.tensor([[0.1, 0.0]]), torch.tensor([[-0.1, 0.0]])
    first, second = lived(family, task, [right] * 8), lived(family, task, [left] * 8)
    alone, both = family.render(task, first), family.render(task, first + second)
    # The window is 2.5 x 1.5 around the start and the goals, 160 pixels for each unit.
    assert alone.shape == both.shape == (240, 400, 3)
    assert at(both, 200, 200 - 128) == rgb(BLUE)  # here it is now
    assert at(both, 200, 200 + 100) == rgb(PALE)  # and here it was in the first episode
    assert at(alone, 200, 200 + 128) == rgb(BLUE)
    assert where(both, VERMILION) == pytest.approx((40, 200), abs=2)


def test_navigation_follows_a_point_that_walks_away_or_breaks():
    family = metarl.make_family("metarl/PointNavigation-v0")
    task = torch.tensor([[0.5, 0.5]])
    away = lived(family, task, [torch.tensor([[-0.1, 0.0]])] * 30)
    picture = family.render(task, away)
    assert share(picture[:, :40], BLUE) > 0.005
    beyond = [away[0], RenderFrame(torch.tensor([[1e20, 0.0]]), away[1].action, 0.0)]
    assert family.render(task, beyond).shape == picture.shape
    broken = lived(family, task, [torch.tensor([[torch.nan, 0.0]])] * 2)
    assert family.render(task, broken).shape == picture.shape == (400, 400, 3)


@pytest.mark.parametrize("task_id", FAMILIES)
def test_what_a_family_promises_to_draw_it_draws(task_id):
    family = metarl.make_family(task_id)
    generator = torch.Generator().manual_seed(0)
    task = family.sample_tasks(1, generator)
    opening = [RenderFrame(family.reset(task, generator), None, 0.0)]
    if not family.can_render:
        with pytest.raises(NotImplementedError, match=f"{type(family).__name__} draws no pictures"):
            family.render(task, opening)
        return
    one, again = (family.render(task, opening) for _ in range(2))
    assert one.dtype == np.uint8
    assert one.shape[2:] == (3,)
    assert one.min() < one.max()
    assert (one == again).all()
