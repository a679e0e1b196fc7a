"""What the families on grids, of rounds and of guesses show: where things are, what was said."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import metarl
from metarl.envs.drawing import layout
from metarl.envs.drawing.canvas import (
    AMBER,
    BLUE,
    COLOURS,
    GREEN,
    INK,
    PAPER,
    SIZE,
    SKY,
    VERMILION,
    draw_image,
)
from metarl.envs.few_shot import drawing
from metarl.envs.grids.drawing import TILE_COLOURS
from metarl.envs.grids.krazy_rules import DEATH, GOAL, NORMAL, RIGHT, TRANSPORTER, UP
from metarl.tasks.family import RenderFrame
from tests.envs.drawing.test_canvas import at, lived, rgb, share, where

ALL = (
    "GridNavigation",
    "KrazyWorld",
    "TMaze",
    "TwoStep",
    "TabularMDP",
    "FewShotClassification",
    "Sinusoid",
    "InformativeArmBandit",
)


def acting(*actions):
    return [torch.tensor([action]) for action in actions]


@pytest.mark.parametrize("name", ALL)
def test_a_life_is_drawn_in_pictures_of_one_size_none_like_the_one_before(name):
    family = metarl.make_family(f"metarl/{name}-v0")
    generator = torch.Generator().manual_seed(0)
    task = family.sample_tasks(1, generator)
    action = torch.zeros(1, *family.action_space.shape, dtype=torch.int64)
    life = lived(family, task, [action] * (family.episode_steps + 1))
    ends = range(max(1, len(life) - 4), len(life) + 1)
    drawn = [family.render(task, life[:end]) for end in ends]
    assert {picture.shape for picture in drawn} == {drawn[0].shape}
    for end, (before, after) in zip(ends, pairwise(drawn), strict=False):
        if life[end].action is not None:
            assert (before != after).any(), end
    # What lies before an opened episode may have been forgotten, and so may the opening itself.
    assert family.render(task, life[3:5]).shape == drawn[0].shape


def test_only_what_came_after_the_latest_opening_is_of_this_episode():
    opening, step = RenderFrame(None, None, 0.0), RenderFrame(None, torch.tensor([1]), 2.5)
    life = [opening, step, opening, step, step]
    assert list(layout.latest_episode(life)) == life[2:]
    assert layout.progress(life[2:], 9) == "step 2 of 9, reward +2.5"
    assert layout.progress(life[2:3], 9) == "step 0 of 9"
    assert layout.progress([step, step], 9) == "step ? of 9, reward +2.5"
    assert [layout.steps_so_far(life[2:end], 2) for end in (3, 4, 5)] == ["0", "1", "1"]
    assert list(layout.latest_episode([step, step])) == [step, step]


def test_lines_of_words_come_below_and_narrow_pictures_in_the_middle():
    dark = np.zeros((10, 100, 3), np.uint8)
    whole = layout.captioned(dark, "words", "")
    assert whole.shape == (10 + 2 * layout.LINE, SIZE, 3)
    assert where(whole[:10], INK) == pytest.approx((4.5, 199.5))
    assert share(whole[10:-26], INK) > 0
    assert share(whole[-26:], PAPER) == 1


def test_a_grid_shows_the_walker_the_goal_and_where_it_has_been():
    family = metarl.make_family("metarl/GridNavigation-v0")
    task = torch.tensor([[4, 3]])
    first, second = (lived(family, task, acting(*way)) for way in ((1, 1, 1, 1), (2, 2, 1)))
    picture = family.render(task, first + second)[:400]
    # x to the right and y upwards, cells of 80 pixels
    assert where(picture, BLUE) == pytest.approx((400 - 120, 200), abs=1)
    assert np.abs(where(picture, VERMILION) - (120, 360)).max() < 3
    assert at(picture, 360, 120) == rgb(SKY)
    assert at(picture, 20, 20) == at(picture, 100, 20) == rgb(layout.PALE_BLUE)
    alone = family.render(task, second)[:400]
    assert at(alone, 20, 20) == rgb(PAPER)


def krazy(view="local"):
    """A board of 4 x 4 cells; all is normal but a goal at (3, 1), and deaths at (0, 3), (1, 3)."""
    family = metarl.make_family(
        "metarl/KrazyWorld-v0",
        size=4,
        goals=1,
        min_goal_distance=1,
        death_share=0.13,
        ice_share=0.0,
        energy_share=0.0,
        transporters=0,
        view=view,
    )
    board = np.full((4, 4), NORMAL)
    board[3, 1], board[0, 3], board[1, 3] = GOAL, DEATH, DEATH
    colours, directions = range(6), (RIGHT, UP, RIGHT, UP)
    return family, torch.tensor([[*board.ravel(), 1, *colours, *directions]])


def test_a_board_shows_its_tiles_the_walker_and_no_more_what_was_taken():
    family, task = krazy()
    life = lived(family, task, acting(0, 0, 0))  # from (0, 1) to the goal
    before, after = family.render(task, life[:3])[:400], family.render(task, life)[:400]
    assert where(before, BLUE) == pytest.approx((250, 250), abs=1)
    assert where(before, VERMILION) == pytest.approx((250, 350), abs=9)  # a letter is on it
    assert at(before, 10, 10) == at(before, 10, 190) == rgb(TILE_COLOURS[DEATH])
    assert where(after, BLUE) == pytest.approx((250, 350), abs=1)
    assert share(after, VERMILION) == 0
    dead = family.render(task, lived(family, task, acting(1, 1)))
    assert where(dead[:400], BLUE) == pytest.approx((50, 50), abs=1)
    assert share(dead[400:426], INK) > share(family.render(task, life)[400:426], INK)


def test_the_frame_shows_what_the_local_view_sees():
    pictures = []
    for view in ("local", "board"):
        family, task = krazy(view)
        pictures.append(family.render(task, lived(family, task, [])))
    framed, plain = pictures
    different = np.argwhere((framed != plain).any(-1))
    # The walker is at (0, 1): rows 2 to 4 from above and columns 1 and 2, of 100 pixels each.
    assert different.min(0).tolist() == [100, 0]
    assert different.max(0).tolist() == [399, 199]


def test_the_legend_tells_how_the_task_is_coloured():
    family, task = krazy()
    other = task.clone()
    other[0, -4 - 6 + TRANSPORTER] = 5
    legends = [family.render(each, lived(family, each, []))[426:] for each in (task, other)]
    changed = np.argwhere((legends[0] != legends[1]).any(-1))
    assert 0 < len(changed) < 200  # a digit
    assert changed[:, 1].min() > 260  # in the third column


@pytest.mark.parametrize(("task", "row"), [(0, 144), (1, 56)])
def test_a_corridor_shows_the_way_that_pays_the_walker_and_whether_the_cue_is_seen(task, row):
    family = metarl.make_family("metarl/TMaze-v0", corridor=4)
    tasks = torch.tensor([task])
    seen, gone, arrived = (
        family.render(tasks, lived(family, tasks, acting(*way))[: len(way) + 1])
        for way in ((), (0, 0), (0, 0, 0, 0, 1 if task else 3))
    )
    assert np.abs(where(seen, VERMILION) - (row, 360)).max() < 3
    assert where(seen[:200], BLUE) == pytest.approx((100, 40), abs=1)
    assert where(gone[:200], BLUE) == pytest.approx((100, 200), abs=1)
    assert where(arrived[:200], BLUE) == pytest.approx((row, 360), abs=1)
    cue = (slice(55, 75), slice(15, 300))
    assert (seen[cue] == rgb(INK)).all(-1).any()
    assert not (gone[cue] == rgb(INK)).all(-1).any()


def test_rounds_show_the_place_the_way_the_payout_and_the_past():
    family = metarl.make_family("metarl/TwoStep-v0", common=1.0, reward=1.0, reversal=0.0)
    task = torch.tensor([1])
    life = lived(family, task, acting(1, 0, 0, 0))
    opened, reached, paid, other, unpaid = (family.render(task, life[:end]) for end in range(1, 6))
    # The good state, 1, is shaded from the beginning; state 0 is not.
    assert at(opened, 60, 250) == rgb(layout.PALE_AMBER)
    assert at(opened, 60, 70) == rgb(PAPER)
    assert at(opened, 195, 200) == at(paid, 195, 200) == rgb(BLUE)  # between the choices
    assert at(reached, 60, 360) == rgb(BLUE)  # beside state 1
    assert at(other, 60, 40) == rgb(BLUE)  # beside state 0
    assert at(reached, 130, 290) == at(other, 130, 110) == rgb(BLUE)  # the ways
    assert at(opened, 130, 290) != rgb(BLUE)
    assert share(paid, AMBER) > 0.003
    assert share(reached, AMBER) == share(unpaid, AMBER) == 0
    # The past: choice 1 paid, and is full; choice 0 did not, and is hollow.
    step = (SIZE - 46) / 36
    assert at(unpaid, SIZE - 38, round(36 + step / 2)) == rgb(INK)
    assert at(unpaid, SIZE - 78, round(36 + 1.5 * step)) == rgb(PAPER)


def test_a_rare_way_is_square_in_the_past():
    family = metarl.make_family("metarl/TwoStep-v0", reward=1.0)
    task, generator = torch.tensor([0]), torch.Generator().manual_seed(0)
    opening = family.reset(task, generator)
    dark = []
    for choice in (0, 1):  # both are paid in state 0
        life = [
            RenderFrame(opening, None, 0.0),
            RenderFrame(opening._replace(place=torch.tensor([1])), torch.tensor([choice]), 0.0),
            RenderFrame(opening, torch.tensor([0]), 1.0),
        ]
        y = round(SIZE - (78, 38)[choice])
        dark.append(share(family.render(task, life)[y - 6 : y + 6, 34:48], INK))
    disc, square = dark
    assert square > 1.2 * disc


def test_a_table_marks_the_state_the_latest_choice_and_what_pays_most():
    family = metarl.make_family("metarl/TabularMDP-v0", states=2, actions=3, steps=4)
    chances = torch.tensor([[[0.0, 1.0]] * 3, [[1.0, 0.0]] * 3])  # always to the other state
    means = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.5, 3.0]])
    task = torch.cat((chances.flatten(), means.flatten())).unsqueeze(0)
    life = lived(family, task, acting(2))
    opened, after = family.render(task, life[:1])[:200], family.render(task, life)[:200]
    assert where(opened, BLUE) == pytest.approx((50, 50), abs=1)
    assert where(after, BLUE) == pytest.approx((150, 50), abs=1)
    assert at(after, 150, 350) == rgb(AMBER)
    assert at(after, 150, 150) == rgb(PAPER)
    # The frame of the choice, and in it how often it was made.
    assert at(after, 0, 350) == at(after, 99, 350) == rgb(INK)
    assert at(opened, 0, 350) != rgb(INK)
    assert share(after[30:70, 330:370], INK) > share(opened[30:70, 330:370], INK) == 0


def test_the_image_shown_is_large_and_those_before_it_say_what_they_were_called():
    family = metarl.make_family("metarl/FewShotClassification-v0", ways=2, queries=2)
    task = family.sample_tasks(1, torch.Generator().manual_seed(0))
    (opened,) = lived(family, task, [])
    first = int(opened.state.label[0, 0])
    life = lived(family, task, acting(first))
    wrong = lived(family, task, acting(1 - first))
    shown = family.observe(task, life[1].state)[0, :-3].reshape(8, 8)
    now, mistaken = family.render(task, life), family.render(task, wrong)
    assert (now[:350] == draw_image(shown)[:350]).all()
    assert (family.render(task, life[:1])[:350] != now[:350]).any()
    assert share(now, GREEN) > 0 == share(now, VERMILION)
    assert share(mistaken, VERMILION) > 0 == share(mistaken, GREEN)
    # Not by the colour alone: what was said is written there.
    below = slice(450, 464)
    assert share(mistaken[below, :40], INK) > 0 == share(now[below, :40], INK)
    small = now[403:433, 5:35].astype(float) / 255
    before = family.observe(task, life[0].state)[0, :-3].reshape(8, 8)
    assert small.mean() == pytest.approx(float(before.mean()), abs=0.02)


def test_behind_the_last_query_there_is_no_image():
    family = metarl.make_family("metarl/FewShotClassification-v0", ways=2, queries=1)
    task = family.sample_tasks(1, torch.Generator().manual_seed(0))
    picture = family.render(task, lived(family, task, acting(0, 0, 0)))
    assert share(picture[20:340, 40:360], INK) == 1


def test_of_many_guesses_the_latest_are_shown():
    said = [
        drawing.Guess(np.ones((2, 2), np.float32), 0, int(number >= 20)) for number in range(25)
    ]
    picture = drawing.draw_guesses(np.ones((2, 2)), "", said, 40)[400:]
    assert picture.shape == (2 * drawing.SLOT_HEIGHT, SIZE, 3)
    assert share(picture[:64], GREEN) > 0 == share(picture[:64], VERMILION)
    wrong = (picture == rgb(VERMILION)).all(-1)
    assert wrong[64:, 200:].any()
    assert not wrong[64:, :200].any()


@pytest.mark.parametrize(
    ("pixels", "shape"), [(64, (8, 8)), (12, (2, 2, 3)), (6, (2, 3)), (7, (1, 7)), (1, (1, 1))]
)
def test_flat_pixels_become_an_image(pixels, shape):
    image = drawing.as_image(np.arange(pixels))
    assert image.shape == shape
    assert image.ravel().tolist() == list(range(pixels))


def test_a_wave_shows_what_is_asked_what_was_said_and_what_was_true():
    family = metarl.make_family("metarl/Sinusoid-v0")
    task = torch.tensor([[4.0, 1.0, 0.0]])
    life = lived(family, task, [torch.tensor([[-3.0]]), torch.tensor([[torch.nan]])])
    x = life[0].state.x[0].tolist()
    picture = family.render(task, life[:2])[:400]

    def pixel(x, y):
        return SIZE * (5.25 - y) / 10.5, SIZE * (x + 5.25) / 10.5

    assert where(picture, BLUE) == pytest.approx(pixel(x[0], -3.0), abs=1)
    row, column = pixel(x[0], (4 * np.sin(x[0]) - 3) / 2)
    assert (
        (picture[round(row), round(column) - 2 : round(column) + 3] == rgb(VERMILION)).all(1).any()
    )
    _, column = pixel(x[1], 0)
    assert where(picture, SKY)[1] == pytest.approx(column, abs=1)
    assert share(family.render(task, life)[:400], SKY) > 0  # an answer that is NaN is left out


def test_the_informative_arm_is_drawn_with_the_others():
    family = metarl.make_family("metarl/InformativeArmBandit-v0")
    task = torch.tensor([6])
    picture = family.render(task, lived(family, task, acting(10)))
    bars = [
        (picture[60:215, round(400 * (0.03 + 0.94 / 11 * (arm + 0.5))) - 8] == rgb(colour))
        .all(-1)
        .sum()
        for arm, colour in ((6, SKY), (0, SKY), (10, BLUE))
    ]
    # Payouts of 5, 1 and .7, where 5 is .37 of the picture's 400 pixels.
    assert bars == pytest.approx([148, 29.6, 20.7], abs=2)


def test_colours_of_tiles_are_the_palette_or_pale():
    strong = {colour for colour in TILE_COLOURS if max(rgb(colour)) - min(rgb(colour)) > 60}
    assert strong <= set(COLOURS)
    assert len(set(TILE_COLOURS)) == len(TILE_COLOURS)
