"""Both doors lead to the same place: one world, written twice, lived by the same policy."""

import sys
from pathlib import Path

import gymnasium
import pytest
import torch

import metarl
from metarl.bridges import gym_family
from metarl.networks.policies import UniformPolicy

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def plain(monkeypatch):
    """The family that is an ordinary environment."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    yield metarl.make_family("plain_navigation:plain/PointNavigation-v0")
    del sys.modules["plain_navigation"], gymnasium.registry["plain/PointNavigation-v0"]
    gym_family.env_family.cache_clear()


def lived(family, tasks, **options):
    policy = UniformPolicy(family.action_space)
    return metarl.collect(family, tasks, policy, seeds=metarl.Seeds(3), **options)


def oracle_life(family, tasks):
    reference = metarl.make_family("metarl/PointNavigation-v0").references(3)["oracle"]
    return metarl.collect(
        family,
        tasks,
        reference.build(tasks),
        episodes=3,
        rollouts_per_task=2,
        seeds=metarl.Seeds(3),
    )


def test_an_environment_and_a_family_of_tensors_are_lived_alike(plain):
    family = metarl.make_family("metarl/PointNavigation-v0")
    tasks = family.sample_tasks(5, metarl.Seeds(0).torch("tasks"))
    for one, two in (
        (oracle_life(family, tasks), oracle_life(plain, tasks)),  # ends early, at different times
        (lived(family, tasks, episodes=1), lived(plain, tasks, episodes=1)),
    ):
        for name, value in vars(one).items():
            torch.testing.assert_close(getattr(two, name), value, rtol=1e-6, atol=1e-6)
    assert not bool(oracle_life(plain, tasks).valid.all())


def test_a_trial_in_workers_is_the_same_trial(plain):
    tasks = plain.sample_tasks(3, metarl.Seeds(0).torch("tasks"))
    here, there = (lived(plain, tasks, episodes=2, workers=workers) for workers in (None, 2))
    for name, value in vars(here).items():
        assert torch.equal(getattr(there, name), value), name
