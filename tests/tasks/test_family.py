"""Tests of `as_tasks` and `draw_tasks`: accepted tasks, and messages about invalid ones."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.envs.bandits.multi_armed import BernoulliBandit, GoalBandit
from metarl.envs.navigation.point_navigation import PointNavigation
from metarl.errors import TaskError
from metarl.tasks.family import as_tasks, draw_tasks


def test_real_valued_tasks_become_float32_rows():
    goals = as_tasks(PointNavigation(), [[0.25, -0.5], [0.5, 0.0]])
    torch.testing.assert_close(goals, torch.tensor([[0.25, -0.5], [0.5, 0.0]]))
    assert goals.dtype == torch.float32


def test_indices_become_int64():
    tasks = as_tasks(GoalBandit(arms=3), np.array([2, 0], dtype=np.int8))
    assert tasks.tolist() == [2, 0]
    assert tasks.dtype == torch.int64


def test_reversed_and_read_only_arrays_are_accepted():
    goals = np.array([[0.1, 0.2], [0.3, 0.4]], dtype=np.float32)
    goals.flags.writeable = False
    assert as_tasks(PointNavigation(), goals).tolist() == goals.tolist()
    assert as_tasks(PointNavigation(), goals[::-1]).tolist() == goals[::-1].tolist()


def test_tasks_do_not_share_memory_with_the_given_array():
    goals = np.array([[0.1, 0.2]], dtype=np.float32)
    tasks = as_tasks(PointNavigation(), goals)
    goals[:] = 0.5
    assert tasks.tolist() != goals.tolist()


@pytest.mark.parametrize(
    ("family", "value", "message"),
    [
        (PointNavigation(), [0.1, 0.2], r"shape \['N', 2\] with N >= 1 .*got shape \[2\]"),
        (PointNavigation(), [[0.1, 0.2, 0.3]], r"got shape \[1, 3\]"),
        (PointNavigation(), np.zeros((0, 2)), r"N >= 1 .*got shape \[0, 2\]"),
        (PointNavigation(), [[0.0, 0.0], [0.0, 0.6]], r"Task 1 of 2 is \[0\.0, 0\.6.*outside"),
        (PointNavigation(), [[np.nan, 0.0]], r"Task 0 of 1 is \[nan, 0\.0\], outside"),
        (BernoulliBandit(arms=2), [[0.5, -0.1]], r"Task 0 of 1 .*outside.*of BernoulliBandit"),
        (GoalBandit(arms=3), 1, r"got shape \[\]"),
        (GoalBandit(arms=3), [0, 3], r"Task 1 of 2 is 3, outside the task space Discrete\(3\)"),
        (GoalBandit(arms=3), [-1], r"Task 0 of 1 is -1, outside"),
        (GoalBandit(arms=3), [1.5], r"whole numbers in Discrete\(3\)"),
        (GoalBandit(arms=3), torch.tensor([1.0]), r"whole numbers in Discrete\(3\)"),
        (GoalBandit(arms=3), None, r"must be numbers in Discrete\(3\).*got None"),
        (PointNavigation(), [["left", "up"]], r"must be numbers in Box"),
    ],
)
def test_the_error_names_the_first_invalid_task(family, value, message):
    with pytest.raises(TaskError, match=message):
        as_tasks(family, value)


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(TaskError, match="must be numbers in"):
        as_tasks(BernoulliBandit(arms=2), [[0.1, 0.2], [0.3]])


@dataclass(frozen=True, kw_only=True)
class Dial(PointNavigation):
    """A family with another task space, which may sample too many tasks."""

    space: spaces.Box = field(default_factory=lambda: spaces.Box(0.0, 1.0, ()))
    more: int = 0

    @property
    def task_space(self):
        return self.space

    def sample_tasks(self, num_tasks, generator, split="train"):
        return torch.rand(num_tasks + self.more, *self.space.shape, generator=generator)


def test_a_task_may_be_a_single_number():
    assert as_tasks(Dial(), [0.5, 1.0]).tolist() == [0.5, 1.0]
    with pytest.raises(TaskError, match=r"Task 1 of 2 is 1\.5, outside"):
        as_tasks(Dial(), [0.5, 1.5])


def test_the_bounds_of_a_float64_space_are_inside_it():
    dial = Dial(space=spaces.Box(-0.1, 0.1, (1,), np.float64))
    assert as_tasks(dial, [[0.1], [-0.1]]).shape == (2, 1)


def test_an_integer_box_accepts_whole_numbers_only():
    dial = Dial(space=spaces.Box(-1, 3, (2,), np.int64))
    tasks = as_tasks(dial, [[-1, 3]])
    assert tasks.dtype == torch.int64
    assert tasks.tolist() == [[-1, 3]]
    assert as_tasks(dial, np.array([[0, 3]], dtype=np.int8)).dtype == torch.int64
    with pytest.raises(TaskError, match="whole numbers in Box"):
        as_tasks(dial, [[0.5, 1.0]])
    with pytest.raises(TaskError, match=r"Task 0 of 1 is \[0, 4\], outside"):
        as_tasks(dial, [[0, 4]])


def test_sampling_a_wrong_number_of_tasks_is_refused():
    with pytest.raises(TaskError, match="asked for 3 tasks and gave 4"):
        draw_tasks(Dial(more=1), 3, torch.Generator(), "train")
