"""What of a world is remembered to be drawn, for whom, and who is refused."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from metarl.errors import ConfigError, TaskContractError
from metarl.tasks import rendering as rendering_module
from metarl.tasks.family import TensorEnv
from metarl.tasks.rendering import RenderedEnv, rendering
from tests.simple_families import Clock, Countdown


class Picturesque(Countdown):
    """Its pictures are tables: of each moment the time, the action and the reward."""

    can_render: ClassVar[bool] = True

    def render(self, task, life):
        picture = np.zeros((len(life), 4, 3), np.uint8)
        for row, moment in enumerate(life):
            assert isinstance(moment.state, Clock)
            assert task.shape == moment.state.elapsed.shape == (1,)
            action = 9 if moment.action is None else int(moment.action)
            picture[row, :, 0] = (int(task), int(moment.state.elapsed), action, 0)
            picture[row, 3] = np.array([moment.reward // 100, moment.reward % 100, 0])
        return picture


def drawn(tasks=(2, 3)):
    return RenderedEnv(
        TensorEnv(Picturesque(), torch.tensor(tasks), torch.Generator().manual_seed(0))
    )


def table(world):
    """Task, time, action and reward of each moment."""
    frame = world.frame()
    rewards = 100 * frame[:, 3, 0].astype(int) + frame[:, 3, 1]
    return [[*row, reward] for row, reward in zip(frame[:, :3, 0].tolist(), rewards, strict=True)]


def test_lane_0_is_remembered_over_its_episodes_and_no_other():
    world = drawn()
    world.reset()
    world.step(torch.tensor([1, 2]))
    world.step(torch.tensor([0, 1]))
    world.reset(torch.tensor([True, False]))
    world.step(torch.tensor([2, 2]))
    world.reset(torch.tensor([False, True]))
    assert table(world) == [
        [2, 0, 9, 0],  # an episode opens
        [2, 1, 1, 211],  # 100 task + 10 time + action
        [2, 2, 0, 220],
        [2, 0, 9, 0],
        [2, 1, 2, 212],
    ]
    world.forget()
    world.reset()
    assert table(world) == [[2, 0, 9, 0]]


def test_the_engine_sees_the_world_as_it_is():
    plain = TensorEnv(Picturesque(), torch.tensor([2, 3]), torch.Generator())
    world = drawn()
    assert torch.equal(plain.reset(), world.reset())
    for _ in range(2):
        action = torch.tensor([1, 0])
        for one, other in zip(plain.step(action), world.step(action), strict=True):
            assert torch.equal(one, other)
    lanes = torch.tensor([True, False])
    assert torch.equal(plain.reset(lanes), world.reset(lanes))


def test_what_is_remembered_is_nobodys_tensor():
    world = drawn()
    world.reset()
    action = torch.tensor([1, 2])
    world.step(action)
    action.fill_(0)
    assert table(world)[-1] == [2, 1, 1, 211]


def test_a_life_without_end_is_remembered_in_part(monkeypatch):
    monkeypatch.setattr(rendering_module, "MOST_REMEMBERED", 3)
    world = drawn((9,))
    world.reset()
    for _ in range(4):
        world.step(torch.tensor([0]))
    assert [row[1] for row in table(world)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 of shape \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 of shape \[4, 4, 4\]"),
        (np.zeros((4, 4, 3)), r"float64 of shape \[4, 4, 3\]"),
        (None, r"NoneType of shape \[\]"),
    ],
)
def test_what_is_no_picture_is_refused(wrong, got, monkeypatch):
    world = drawn()
    world.reset()
    monkeypatch.setattr(Picturesque, "render", lambda *_: wrong)
    with pytest.raises(TaskContractError, match=rf"Picturesque.render gave {got}; a picture is"):
        world.frame()


def test_a_family_without_pictures_is_refused():
    world = TensorEnv(Countdown(), torch.tensor([2]), torch.Generator())
    with pytest.raises(ConfigError, match=r"Countdown draws no pictures.*sets `can_render = True`"):
        RenderedEnv(world)


def test_what_gymnasium_is_told():
    assert rendering(Countdown(), None)["render_modes"] == []
    for mode in (None, "rgb_array"):
        told = {"render_modes": ["rgb_array"], "render_fps": 10}
        assert rendering(Picturesque(), mode) == told
    with pytest.raises(ConfigError, match="Countdown draws no pictures"):
        rendering(Countdown(), "rgb_array")
    with pytest.raises(ConfigError, match="render_mode='ansi' must be 'rgb_array'"):
        rendering(Picturesque(), "ansi")
