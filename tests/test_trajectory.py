import dataclasses

import pytest
import torch

from metarl.errors import ShapeError
from metarl.trajectory import Trajectory


def two_lane_trajectory() -> Trajectory:
    """One task, two lanes. Lane 0: episodes of 2 and 1 steps, then idle. Lane 1: of 1 and 3."""
    first = torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]]).bool().view(4, 1, 2)
    terminated = torch.tensor([[0, 1], [1, 0], [1, 0], [0, 0]]).bool().view(4, 1, 2)
    truncated = torch.tensor([[0, 0], [0, 0], [0, 0], [0, 1]]).bool().view(4, 1, 2)
    valid = torch.tensor([[1, 1], [1, 1], [1, 1], [0, 1]]).bool().view(4, 1, 2)
    reward = torch.tensor([[1.0, 5.0], [2.0, 6.0], [4.0, 7.0], [0.0, 8.0]]).view(4, 1, 2)
    return Trajectory(
        obs=torch.arange(8.0).view(4, 1, 2, 1),
        action=torch.arange(1, 9).view(4, 1, 2),
        log_prob=torch.zeros(4, 1, 2),
        reward=reward,
        next_obs=torch.zeros(4, 1, 2, 1),
        terminated=terminated,
        truncated=truncated,
        first=first,
        success=terminated,
        valid=valid,
    )


def test_returns_lengths_and_success_by_episode():
    trajectory = two_lane_trajectory()
    assert trajectory.episode_returns(2).squeeze(1).tolist() == [[3.0, 5.0], [4.0, 21.0]]
    assert trajectory.episode_lengths(2).squeeze(1).tolist() == [[2, 1], [1, 3]]
    assert trajectory.episode_success(2).squeeze(1).tolist() == [[True, True], [True, False]]
    assert trajectory.steps == 7


def test_a_trial_ends_once_per_lane_at_its_last_valid_step():
    ends = two_lane_trajectory().trial_end.squeeze(1)
    assert ends.tolist() == [[False, False], [False, False], [True, False], [False, True]]


def test_percepts_carry_the_previous_step_across_an_episode_boundary():
    percept = two_lane_trajectory().percepts()
    assert percept.previous_reward[:, 0, 0].tolist() == [0.0, 1.0, 2.0, 4.0]
    assert percept.previous_action[:, 0, 1].tolist() == [0, 2, 4, 6]
    assert percept.previous_terminated[:, 0, 0].tolist() == [False, False, True, True]
    assert percept.first_of_trial[:, 0, 0].tolist() == [True, False, False, False]
    assert percept.first_of_episode[:, 0, 0].tolist() == [True, False, True, False]


def test_the_error_for_a_wrong_shape_names_the_field():
    trajectory = two_lane_trajectory()
    with pytest.raises(ShapeError, match=r"Trajectory.valid has shape \[3, 1, 2\]"):
        dataclasses.replace(trajectory, valid=trajectory.valid[:3])
