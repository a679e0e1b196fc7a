"""Tests of the history kept for rendering, and of envs and modes that cannot render."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from metarl.errors import ConfigError, TaskContractError
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.tasks import rendering as rendering_module
from metarl.tasks.rendering import RenderedEnv, rendering
from metarl.tasks.tensor_env import TensorEnv
from tests.simple_families import Clock, Countdown


class RenderedCountdown(Countdown):
    """Renders its history as a table: one row of pixels per step, with time, action, reward."""

    can_render: ClassVar[bool] = True

    def render(self, task, history):
        frame = np.zeros((len(history), 4, 3), np.uint8)
        for row, step in enumerate(history):
            assert isinstance(step.state, Clock)
            assert task.shape == step.state.elapsed.shape == (1,)
            action = 9 if step.action is None else int(step.action)
            frame[row, :, 0] = (int(task), int(step.state.elapsed), action, 0)
            frame[row, 3] = np.array([step.reward // 100, step.reward % 100, 0])
        return frame


def rendered_env(tasks=(2, 3)):
    return RenderedEnv(TensorEnv(RenderedCountdown(), torch.tensor(tasks), noise(len(tasks))))


def noise(lanes):
    return LaneNoise.of(Seeds(0), "noise", lanes)


def table(env):
    """Task, time, action and reward of each step in the history."""
    frame = env.frame()
    rewards = 100 * frame[:, 3, 0].astype(int) + frame[:, 3, 1]
    return [[*row, reward] for row, reward in zip(frame[:, :3, 0].tolist(), rewards, strict=True)]


def test_the_history_is_that_of_lane_0_over_all_its_episodes():
    env = rendered_env()
    env.reset()
    env.step(torch.tensor([1, 2]))
    env.step(torch.tensor([0, 1]))
    env.reset(torch.tensor([True, False]))
    env.step(torch.tensor([2, 2]))
    env.reset(torch.tensor([False, True]))
    assert table(env) == [
        [2, 0, 9, 0],  # an episode starts
        [2, 1, 1, 211],  # 100 task + 10 time + action
        [2, 2, 0, 220],
        [2, 0, 9, 0],
        [2, 1, 2, 212],
    ]
    env.forget()
    env.reset()
    assert table(env) == [[2, 0, 9, 0]]


def test_wrapping_does_not_change_observations_or_transitions():
    plain = TensorEnv(RenderedCountdown(), torch.tensor([2, 3]), noise(2))
    env = rendered_env()
    assert torch.equal(plain.reset(), env.reset())
    for _ in range(2):
        action = torch.tensor([1, 0])
        for one, other in zip(plain.step(action), env.step(action), strict=True):
            assert torch.equal(one, other)
    lanes = torch.tensor([True, False])
    assert torch.equal(plain.reset(lanes), env.reset(lanes))


def test_the_history_holds_copies():
    env = rendered_env()
    env.reset()
    action = torch.tensor([1, 2])
    env.step(action)
    action.fill_(0)
    assert table(env)[-1] == [2, 1, 1, 211]


def test_the_history_has_a_maximum_length(monkeypatch):
    monkeypatch.setattr(rendering_module, "MAX_HISTORY", 3)
    env = rendered_env((9,))
    env.reset()
    for _ in range(4):
        env.step(torch.tensor([0]))
    assert [row[1] for row in table(env)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 of shape \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 of shape \[4, 4, 4\]"),
        (np.zeros((4, 4, 3)), r"float64 of shape \[4, 4, 3\]"),
        (None, r"NoneType of shape \[\]"),
    ],
)
def test_an_invalid_frame_is_refused(wrong, got, monkeypatch):
    env = rendered_env()
    env.reset()
    monkeypatch.setattr(RenderedCountdown, "render", lambda *_: wrong)
    message = f"RenderedCountdown.render returned {got}; a frame must"
    with pytest.raises(TaskContractError, match=message):
        env.frame()


def test_a_family_that_does_not_render_is_refused():
    env = TensorEnv(Countdown(), torch.tensor([2]), noise(1))
    with pytest.raises(ConfigError, match=r"Countdown does not render.*sets `can_render = True`"):
        RenderedEnv(env)


def test_gymnasium_metadata_lists_the_supported_render_modes():
    assert rendering(Countdown(), None)["render_modes"] == []
    for mode in (None, "rgb_array"):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
        assert rendering(RenderedCountdown(), mode) == metadata
    with pytest.raises(ConfigError, match="Countdown does not render"):
        rendering(Countdown(), "rgb_array")
    with pytest.raises(ConfigError, match="render_mode='ansi' must be 'rgb_array'"):
        rendering(RenderedCountdown(), "ansi")
