"""A training whose experience does not fit into memory is refused before anything is allocated."""

import pytest
import torch

import metarl
from metarl.errors import ConfigError
from metarl.networks.policies import UniformPolicy
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.training import memory_needed
from metarl.training.memory_needed import available_bytes, step_bytes
from tests.training.test_loop import SMALL, TASK


@pytest.mark.parametrize("task", [TASK, "metarl/PointNavigation-v0", "metarl/GridNavigation-v0"])
@pytest.mark.parametrize("keep_next_obs", [False, True])
def test_the_bytes_of_a_step_are_those_of_a_trajectory(task, keep_next_obs):
    family = metarl.make_family(task)
    tasks = family.sample_tasks(3, torch.Generator().manual_seed(0))
    trajectory = collect(
        family,
        tasks,
        UniformPolicy(family.action_space),
        episodes=2,
        seeds=Seeds(0),
        keep_next_obs=keep_next_obs,
    )
    found = sum(column.nbytes for column in trajectory.columns.values())
    steps = trajectory.reward.numel()
    assert found == steps * step_bytes(family, keep_next_obs=keep_next_obs)


def test_the_system_tells_its_memory():
    available = available_bytes("cpu")
    assert available is None or 10**7 < available < 10**14


def test_too_much_experience_is_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_needed, "available_bytes", lambda device: 2 * 10**9)
    with pytest.raises(ConfigError, match=r"about 5\.0 GB, and 2\.0 GB are available: 1 phase of"):
        metarl.train("rl2", TASK, out=tmp_path / "run", **SMALL | {"num_tasks": 20_000_000})
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(memory_needed, "available_bytes", lambda device: None)
    metarl.train("rl2", TASK, out=tmp_path / "run", iterations=1, **SMALL)
