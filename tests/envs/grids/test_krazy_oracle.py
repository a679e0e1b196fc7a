"""The oracle of Krazy World against all action sequences, on small boards."""

import itertools

import pytest
import torch

from metarl.envs.grids.krazy_oracle import best_moves
from metarl.envs.grids.krazy_rules import ENERGY
from metarl.envs.grids.krazy_world import KrazyWorld
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from tests.bandit_rollouts import noise_of, seeded

SMALL = KrazyWorld(
    size=4, goals=3, min_goal_distance=0, death_share=0.2, ice_share=0.2, energy_share=0.1,
    energy=4, replenish=2,
)  # fmt: skip


def roll_out(family, tasks, episodes=1, name="oracle", rollouts_per_task=1):
    policy = family.references(episodes)[name].build(tasks)
    return collect(
        family,
        tasks,
        policy,
        episodes=episodes,
        rollouts_per_task=rollouts_per_task,
        seeds=Seeds(0),
    )


def most_by_definition(family, task):
    """The best return over all action sequences, each in one lane of a batch."""
    sequences = torch.tensor(list(itertools.product(range(4), repeat=family.episode_steps)))
    tasks = task.expand(len(sequences), -1)
    noise = noise_of(0, len(tasks))
    state = family.reset(tasks, noise)
    active = torch.ones(len(sequences), dtype=torch.bool)
    total = torch.zeros(len(sequences))
    for action in sequences.unbind(1):
        state, reward, terminated = family.step(tasks, state, action, noise)
        total += reward * active
        active &= ~terminated
    return float(total.max())


def test_no_action_sequence_takes_more_goals():
    tasks = SMALL.sample_tasks(16, seeded(0))
    assert SMALL.episode_steps == 6
    returns = roll_out(SMALL, tasks).episode_returns(1).flatten().tolist()
    expected = [most_by_definition(SMALL, task) for task in tasks]
    assert returns == expected
    assert len(set(expected)) >= 3  # easy and hard boards


def test_the_oracle_fetches_energy_if_the_goal_is_too_far():
    # Five units of energy last five steps; the goal is at (6, 6), with energy on a path to it.
    family = KrazyWorld(size=7, goals=1, energy=5, replenish=8)
    task = torch.zeros(1, 60, dtype=torch.int64)
    task[0, 48], task[0, 21] = 1, ENERGY  # (3, 0)
    task[0, 50:56], task[0, 56:] = torch.arange(6), torch.arange(4)
    trajectory = roll_out(family, task)
    assert trajectory.episode_returns(1).item() == 1
    assert trajectory.reward[:12].sum() == 1  # twelve steps are the distance


def test_every_episode_and_rollout_has_the_same_return():
    family = KrazyWorld()
    tasks = family.sample_tasks(6, seeded(1))
    returns = roll_out(family, tasks, episodes=2, rollouts_per_task=2).episode_returns(2)
    assert torch.equal(returns, returns[:1, :, :1].expand_as(returns))
    assert returns.mean() > 2.8


def test_the_oracle_is_far_above_the_floor():
    family = KrazyWorld()
    tasks = family.sample_tasks(20, seeded(0))
    oracle = roll_out(family, tasks)
    random = roll_out(family, tasks, name="random").episode_returns(1)
    assert (oracle.episode_returns(1) >= random).all()
    assert oracle.episode_success(1).double().mean() > 0.9


def test_plans_do_not_depend_on_other_tasks_of_the_batch():
    tasks = SMALL.sample_tasks(6, seeded(0))
    together = best_moves(tasks, 4, 4, 2)
    for row in range(6):
        alone = best_moves(tasks[row : row + 1], 4, 4, 2)
        assert torch.equal(together[row, : alone.shape[1]], alone[0])
        assert not together[row, alone.shape[1] :].any()


def test_the_plan_is_empty_if_no_goal_is_reachable():
    family = KrazyWorld(size=5, goals=1, energy=1, energy_share=0)
    tasks = family.sample_tasks(3, seeded(0))
    assert best_moves(tasks, 5, 1, 8).shape == (3, 0)
    assert not roll_out(family, tasks).reward.any()


def test_boards_with_too_many_items_have_no_oracle():
    family = KrazyWorld(energy_share=0.1)
    assert list(family.references(3)) == ["random"]
    with pytest.raises(ConfigError, match="has 13 goals and energy tiles on 100 cells, too many"):
        best_moves(family.sample_tasks(2, seeded(0)), 10, 11, 8)


def test_references_are_ordered_from_floor_to_ceiling():
    roles = [(name, one.role) for name, one in KrazyWorld().references(3).items()]
    assert roles == [("random", "floor"), ("oracle", "ceiling")]
