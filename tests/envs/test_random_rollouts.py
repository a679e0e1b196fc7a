"""A thousand lives of each family, under any actions: spaces hold, numbers are finite."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import metarl
from metarl.tasks.family import TensorEnv, draw_tasks
from tests.known_ids import FAMILIES

LIVES, EXAMPLES, MOST_STEPS = 250, 4, 30


def any_actions(space, generator):
    """Actions of all lanes; those of a Box may lie outside."""
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (LIVES,), generator=generator)
    low, high = (torch.as_tensor(bound) for bound in (space.low, space.high))
    return low + (high - low) * (2 * torch.rand(LIVES, *space.shape, generator=generator) - 0.5)


def require_inside(space, obs):
    low, high = (torch.as_tensor(bound) for bound in (space.low, space.high))
    assert obs.dtype == torch.float32
    assert bool(obs.isfinite().all())
    assert bool(((obs >= low) & (obs <= high)).all())


@pytest.mark.parametrize("task_id", FAMILIES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), split=st.sampled_from(["train", "test"]))
def test_under_any_actions_spaces_hold_and_numbers_are_finite(task_id, seed, split):
    family = metarl.make_family(task_id)
    generator = torch.Generator().manual_seed(seed)
    world = TensorEnv(family, draw_tasks(family, LIVES, generator, split), generator)
    require_inside(family.observation_space, world.reset())
    for _ in range(min(2 * family.episode_steps, MOST_STEPS)):
        last = world.step(any_actions(family.action_space, generator))
        require_inside(family.observation_space, last.obs)
        assert bool(last.reward.isfinite().all())
        assert not bool((last.terminated & last.truncated).any())
        anywhere = torch.rand(LIVES, generator=generator) < 0.1
        reopened = last.terminated | last.truncated | anywhere
        if bool(reopened.any()):
            obs = world.reset(reopened)
            require_inside(family.observation_space, obs)
            np.testing.assert_array_equal(obs[~reopened], last.obs[~reopened])
