"""The NumPy and the tensor version of point navigation give equal trajectories."""

import sys
from pathlib import Path

import gymnasium
import pytest
import torch

import metarl
from metarl.networks.policies import UniformPolicy

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def plain(monkeypatch):
    """The family of the ordinary NumPy environment."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    yield metarl.make_family("plain_navigation:plain/PointNavigation-v0")
    del sys.modules["plain_navigation"], gymnasium.registry["plain/PointNavigation-v0"]


def random_rollout(family, tasks, **options):
    policy = UniformPolicy(family.action_space)
    return metarl.collect(family, tasks, policy, seeds=metarl.Seeds(3), **options)


def oracle_rollout(family, tasks):
    reference = metarl.make_family("metarl/PointNavigation-v0").references(3)["oracle"]
    return metarl.collect(
        family,
        tasks,
        reference.build(tasks),
        episodes=3,
        rollouts_per_task=2,
        seeds=metarl.Seeds(3),
    )


def test_the_ordinary_environment_and_the_tensor_family_agree(plain):
    family = metarl.make_family("metarl/PointNavigation-v0")
    tasks = family.sample_tasks(5, metarl.Seeds(0).torch("tasks"))
    for one, two in (
        # Episodes of the oracle end early, at different steps.
        (oracle_rollout(family, tasks), oracle_rollout(plain, tasks)),
        [random_rollout(one, tasks, episodes=1, keep_next_obs=True) for one in (family, plain)],
    ):
        for name, value in one.columns.items():
            torch.testing.assert_close(getattr(two, name), value, rtol=1e-6, atol=1e-6)
    assert not bool(oracle_rollout(plain, tasks).valid.all())


def test_worker_processes_give_an_equal_trajectory(plain):
    tasks = plain.sample_tasks(3, metarl.Seeds(0).torch("tasks"))
    serial, parallel = (
        random_rollout(plain, tasks, episodes=2, keep_next_obs=True, workers=workers)
        for workers in (None, 2)
    )
    for name, value in serial.columns.items():
        assert torch.equal(getattr(parallel, name), value), name
