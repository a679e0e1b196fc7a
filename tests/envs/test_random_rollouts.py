"""1000 rollouts of each family under random actions: outputs are finite and in their spaces."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

import metarl
from metarl.noise import LaneNoise
from metarl.seeding import Seeds
from metarl.tasks.family import draw_tasks
from metarl.tasks.tensor_env import TensorEnv
from tests.known_ids import FAMILIES

LANES, EXAMPLES, MAX_STEPS = 250, 4, 30


def random_actions(space, generator):
    """Actions of all lanes; those of a Box may lie outside its bounds."""
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (LANES,), generator=generator)
    low, high = (torch.as_tensor(bound) for bound in (space.low, space.high))
    return low + (high - low) * (2 * torch.rand(LANES, *space.shape, generator=generator) - 0.5)


def assert_inside(space, obs):
    low, high = (torch.as_tensor(bound) for bound in (space.low, space.high))
    assert obs.dtype == torch.float32
    assert bool(obs.isfinite().all())
    assert bool(((obs >= low) & (obs <= high)).all())


@pytest.mark.parametrize("task_id", FAMILIES)
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), split=st.sampled_from(["train", "test"]))
def test_under_random_actions_outputs_stay_finite_and_in_their_spaces(task_id, seed, split):
    family = metarl.make_family(task_id)
    generator = torch.Generator().manual_seed(seed)
    tasks = draw_tasks(family, LANES, generator, split)
    env = TensorEnv(family, tasks, LaneNoise.of(Seeds(seed), "noise", LANES))
    assert_inside(family.observation_space, env.reset())
    for _ in range(min(2 * family.episode_steps, MAX_STEPS)):
        last = env.step(random_actions(family.action_space, generator))
        assert_inside(family.observation_space, last.next_obs)
        assert bool(last.reward.isfinite().all())
        assert not bool((last.terminated & last.truncated).any())
        interrupted = torch.rand(LANES, generator=generator) < 0.1
        reset = last.terminated | last.truncated | interrupted
        if bool(reset.any()):
            obs = env.reset(reset)
            assert_inside(family.observation_space, obs)
            np.testing.assert_array_equal(obs[~reset], last.next_obs[~reset])
