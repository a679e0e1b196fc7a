"""Renderings of the grid, two-step, tabular, few-shot and informative-arm families."""

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
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.tasks.family import RenderFrame
from tests.envs.drawing.test_canvas import at, rgb, roll_out, share, where

NAMES = (
    "GridNavigation",
    "KrazyWorld",
    "TMaze",
    "TwoStep",
    "TabularMDP",
    "FewShotClassification",
    "Sinusoid",
    "InformativeArmBandit",
)


def as_actions(*actions):
    return [torch.tensor([action]) for action in actions]


@pytest.mark.parametrize("name", NAMES)
def test_frames_of_a_rollout_have_one_size_and_differ_from_step_to_step(name):
    family = metarl.make_family(f"metarl/{name}-v0")
    generator = torch.Generator().manual_seed(0)
    task = family.sample_tasks(1, generator)
    action = torch.zeros(1, *family.action_space.shape, dtype=torch.int64)
    history = roll_out(family, task, [action] * (family.episode_steps + 1))
    ends = range(max(1, len(history) - 4), len(history) + 1)
    images = [family.render(task, history[:end]) for end in ends]
    assert {image.shape for image in images} == {images[0].shape}
    for end, (before, after) in zip(ends, pairwise(images), strict=False):
        if history[end].action is not None:
            assert (before != after).any(), end
    # The history may be cut anywhere, so it may lack the start of the episode.
    assert family.render(task, history[3:5]).shape == images[0].shape


def test_the_latest_episode_begins_at_the_latest_episode_start():
    start, step = RenderFrame(None, None, 0.0), RenderFrame(None, torch.tensor([1]), 2.5)
    history = [start, step, start, step, step]
    assert list(layout.latest_episode(history)) == history[2:]
    assert layout.progress(history[2:], 9) == "step 2 of 9, reward +2.5"
    assert layout.progress(history[2:3], 9) == "step 0 of 9"
    assert layout.progress([step, step], 9) == "step ? of 9, reward +2.5"
    assert [layout.steps_so_far(history[2:end], 2) for end in (3, 4, 5)] == ["0", "1", "1"]
    assert list(layout.latest_episode([step, step])) == [step, step]


def test_captions_are_below_the_image_and_narrow_images_are_centred():
    dark = np.zeros((10, 100, 3), np.uint8)
    captioned = layout.captioned(dark, "words", "")
    assert captioned.shape == (10 + 2 * layout.LINE_HEIGHT, SIZE, 3)
    assert where(captioned[:10], INK) == pytest.approx((4.5, 199.5))
    assert share(captioned[10:-26], INK) > 0
    assert share(captioned[-26:], PAPER) == 1


def test_a_grid_shows_the_agent_the_goal_and_visited_cells():
    family = metarl.make_family("metarl/GridNavigation-v0")
    task = torch.tensor([[4, 3]])
    first, second = (
        roll_out(family, task, as_actions(*path)) for path in ((1, 1, 1, 1), (2, 2, 1))
    )
    image = family.render(task, first + second)[:400]
    # x to the right and y upwards, cells of 80 pixels
    assert where(image, BLUE) == pytest.approx((400 - 120, 200), abs=1)
    assert np.abs(where(image, VERMILION) - (120, 360)).max() < 3
    assert at(image, 360, 120) == rgb(SKY)
    assert at(image, 20, 20) == at(image, 100, 20) == rgb(layout.PALE_BLUE)
    alone = family.render(task, second)[:400]
    assert at(alone, 20, 20) == rgb(PAPER)


def krazy(view="local"):
    """A board of 4 x 4 normal cells, except a goal at (3, 1) and deaths at (0, 3) and (1, 3)."""
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


def test_a_board_shows_its_tiles_and_the_agent_but_not_a_collected_goal():
    family, task = krazy()
    history = roll_out(family, task, as_actions(0, 0, 0))  # from (0, 1) to the goal
    before, after = family.render(task, history[:3])[:400], family.render(task, history)[:400]
    assert where(before, BLUE) == pytest.approx((250, 250), abs=1)
    assert where(before, VERMILION) == pytest.approx(
        (250, 350), abs=9
    )  # a letter covers its middle
    assert at(before, 10, 10) == at(before, 10, 190) == rgb(TILE_COLOURS[DEATH])
    assert where(after, BLUE) == pytest.approx((250, 350), abs=1)
    assert share(after, VERMILION) == 0
    dead = family.render(task, roll_out(family, task, as_actions(1, 1)))
    assert where(dead[:400], BLUE) == pytest.approx((50, 50), abs=1)
    assert share(dead[400:426], INK) > share(family.render(task, history)[400:426], INK)


def test_the_cells_of_the_local_view_are_framed():
    images = []
    for view in ("local", "board"):
        family, task = krazy(view)
        images.append(family.render(task, roll_out(family, task, [])))
    framed, plain = images
    different = np.argwhere((framed != plain).any(-1))
    # The agent is at (0, 1): rows 2 to 4 from the top and columns 1 and 2, of 100 pixels each.
    assert different.min(0).tolist() == [100, 0]
    assert different.max(0).tolist() == [399, 199]


def test_the_legend_shows_the_colours_of_the_task():
    family, task = krazy()
    other = task.clone()
    other[0, -4 - 6 + TRANSPORTER] = 5
    legends = [family.render(each, roll_out(family, each, []))[426:] for each in (task, other)]
    changed = np.argwhere((legends[0] != legends[1]).any(-1))
    assert 0 < len(changed) < 200  # a digit
    assert changed[:, 1].min() > 260  # in the third column


@pytest.mark.parametrize(("task", "row"), [(0, 144), (1, 56)])
def test_a_corridor_shows_the_goal_the_agent_and_whether_the_cue_is_visible(task, row):
    family = metarl.make_family("metarl/TMaze-v0", corridor=4)
    tasks = torch.tensor([task])
    at_cue, in_corridor, at_goal = (
        family.render(tasks, roll_out(family, tasks, as_actions(*path))[: len(path) + 1])
        for path in ((), (0, 0), (0, 0, 0, 0, 1 if task else 3))
    )
    assert np.abs(where(at_cue, VERMILION) - (row, 360)).max() < 3
    assert where(at_cue[:200], BLUE) == pytest.approx((100, 40), abs=1)
    assert where(in_corridor[:200], BLUE) == pytest.approx((100, 200), abs=1)
    assert where(at_goal[:200], BLUE) == pytest.approx((row, 360), abs=1)
    cue = (slice(55, 75), slice(15, 300))
    assert (at_cue[cue] == rgb(INK)).all(-1).any()
    assert not (in_corridor[cue] == rgb(INK)).all(-1).any()


def test_two_step_shows_position_transition_payout_and_history():
    family = metarl.make_family("metarl/TwoStep-v0", common=1.0, reward=1.0, reversal=0.0)
    task = torch.tensor([1])
    history = roll_out(family, task, as_actions(1, 0, 0, 0))
    start, reached, paid, other, unpaid = (
        family.render(task, history[:end]) for end in range(1, 6)
    )
    # The good state, 1, is shaded from the start; state 0 is not.
    assert at(start, 60, 250) == rgb(layout.PALE_AMBER)
    assert at(start, 60, 70) == rgb(PAPER)
    assert at(start, 195, 200) == at(paid, 195, 200) == rgb(BLUE)  # between the choices
    assert at(reached, 60, 360) == rgb(BLUE)  # next to state 1
    assert at(other, 60, 40) == rgb(BLUE)  # next to state 0
    assert at(reached, 130, 290) == at(other, 130, 110) == rgb(BLUE)  # the transitions
    assert at(start, 130, 290) != rgb(BLUE)
    assert share(paid, AMBER) > 0.003
    assert share(reached, AMBER) == share(unpaid, AMBER) == 0
    # The history: choice 1 was paid, so filled; choice 0 was not, so hollow.
    step = (SIZE - 46) / 36
    assert at(unpaid, SIZE - 38, round(36 + step / 2)) == rgb(INK)
    assert at(unpaid, SIZE - 78, round(36 + 1.5 * step)) == rgb(PAPER)


def test_a_rare_transition_is_a_square_in_the_history():
    family = metarl.make_family("metarl/TwoStep-v0", reward=1.0)
    task = torch.tensor([0])
    start = family.reset(task, LaneNoise.of(Seeds(0), "noise", 1))
    dark = []
    for choice in (0, 1):  # both are paid in state 0
        history = [
            RenderFrame(start, None, 0.0),
            RenderFrame(start._replace(place=torch.tensor([1])), torch.tensor([choice]), 0.0),
            RenderFrame(start, torch.tensor([0]), 1.0),
        ]
        y = round(SIZE - (78, 38)[choice])
        dark.append(share(family.render(task, history)[y - 6 : y + 6, 34:48], INK))
    disc, square = dark
    assert square > 1.2 * disc


def test_a_table_marks_the_state_the_latest_action_and_the_best_rewards():
    family = metarl.make_family("metarl/TabularMDP-v0", states=2, actions=3, steps=4)
    chances = torch.tensor([[[0.0, 1.0]] * 3, [[1.0, 0.0]] * 3])  # always to the other state
    means = torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.5, 3.0]])
    task = torch.cat((chances.flatten(), means.flatten())).unsqueeze(0)
    history = roll_out(family, task, as_actions(2))
    start, after = family.render(task, history[:1])[:200], family.render(task, history)[:200]
    assert where(start, BLUE) == pytest.approx((50, 50), abs=1)
    assert where(after, BLUE) == pytest.approx((150, 50), abs=1)
    assert at(after, 150, 350) == rgb(AMBER)
    assert at(after, 150, 150) == rgb(PAPER)
    # The frame of the latest action, and in it the number of visits.
    assert at(after, 0, 350) == at(after, 99, 350) == rgb(INK)
    assert at(start, 0, 350) != rgb(INK)
    assert share(after[30:70, 330:370], INK) > share(start[30:70, 330:370], INK) == 0


def test_the_current_image_is_large_and_earlier_ones_are_labelled_thumbnails():
    family = metarl.make_family("metarl/FewShotClassification-v0", ways=2, queries=2)
    task = family.sample_tasks(1, torch.Generator().manual_seed(0))
    (start,) = roll_out(family, task, [])
    label = int(start.state.label[0, 0])
    history = roll_out(family, task, as_actions(label))
    current = family.observe(task, history[1].state)[0, :-3].reshape(8, 8)
    correct = family.render(task, history)
    wrong = family.render(task, roll_out(family, task, as_actions(1 - label)))
    assert (correct[:350] == draw_image(current)[:350]).all()
    assert (family.render(task, history[:1])[:350] != correct[:350]).any()
    assert share(correct, GREEN) > 0 == share(correct, VERMILION)
    assert share(wrong, VERMILION) > 0 == share(wrong, GREEN)
    # Colour is not the only cue: a wrong guess is written below.
    below = slice(450, 464)
    assert share(wrong[below, :40], INK) > 0 == share(correct[below, :40], INK)
    thumbnail = correct[403:433, 5:35].astype(float) / 255
    previous = family.observe(task, history[0].state)[0, :-3].reshape(8, 8)
    assert thumbnail.mean() == pytest.approx(float(previous.mean()), abs=0.02)


def test_after_the_last_query_there_is_no_image():
    family = metarl.make_family("metarl/FewShotClassification-v0", ways=2, queries=1)
    task = family.sample_tasks(1, torch.Generator().manual_seed(0))
    image = family.render(task, roll_out(family, task, as_actions(0, 0, 0)))
    assert share(image[20:340, 40:360], INK) == 1


def test_of_many_guesses_the_latest_are_shown():
    small = np.ones((2, 2), np.float32)
    guesses = [drawing.LabelledGuess(small, 0, int(number >= 20)) for number in range(25)]
    strip = drawing.draw_guesses(np.ones((2, 2)), "", guesses, 40)[400:]
    assert strip.shape == (2 * drawing.SLOT_HEIGHT, SIZE, 3)
    assert share(strip[:64], GREEN) > 0 == share(strip[:64], VERMILION)
    wrong = (strip == rgb(VERMILION)).all(-1)
    assert wrong[64:, 200:].any()
    assert not wrong[64:, :200].any()


@pytest.mark.parametrize(
    ("pixels", "shape"), [(64, (8, 8)), (12, (2, 2, 3)), (6, (2, 3)), (7, (1, 7)), (1, (1, 1))]
)
def test_flat_pixels_become_an_image(pixels, shape):
    image = drawing.as_image(np.arange(pixels))
    assert image.shape == shape
    assert image.ravel().tolist() == list(range(pixels))


def test_a_wave_shows_the_current_point_the_predictions_and_the_true_values():
    family = metarl.make_family("metarl/Sinusoid-v0")
    task = torch.tensor([[4.0, 1.0, 0.0]])
    history = roll_out(family, task, [torch.tensor([[-3.0]]), torch.tensor([[torch.nan]])])
    x = history[0].state.x[0].tolist()
    image = family.render(task, history[:2])[:400]

    def pixel(x, y):
        return SIZE * (5.25 - y) / 10.5, SIZE * (x + 5.25) / 10.5

    assert where(image, BLUE) == pytest.approx(pixel(x[0], -3.0), abs=1)
    row, column = pixel(x[0], (4 * np.sin(x[0]) - 3) / 2)
    assert (image[round(row), round(column) - 2 : round(column) + 3] == rgb(VERMILION)).all(1).any()
    _, column = pixel(x[1], 0)
    assert where(image, SKY)[1] == pytest.approx(column, abs=1)
    assert share(family.render(task, history)[:400], SKY) > 0  # a NaN prediction is not drawn


def test_the_informative_arm_has_a_bar_like_the_others():
    family = metarl.make_family("metarl/InformativeArmBandit-v0")
    task = torch.tensor([6])
    image = family.render(task, roll_out(family, task, as_actions(10)))
    bars = [
        (image[60:215, round(400 * (0.03 + 0.94 / 11 * (arm + 0.5))) - 8] == rgb(colour))
        .all(-1)
        .sum()
        for arm, colour in ((6, SKY), (0, SKY), (10, BLUE))
    ]
    # Payouts of 5, 1 and .7, where 5 is .37 of the image's 400 pixels.
    assert bars == pytest.approx([148, 29.6, 20.7], abs=2)


def test_tile_colours_are_distinct_and_saturated_ones_from_the_palette():
    saturated = {colour for colour in TILE_COLOURS if max(rgb(colour)) - min(rgb(colour)) > 60}
    assert saturated <= set(COLOURS)
    assert len(set(TILE_COLOURS)) == len(TILE_COLOURS)
