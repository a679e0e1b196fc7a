"""The informative-arm bandit against its definition, its references, and its optimum."""

from functools import cache

import numpy as np
import pytest
import torch

from metarl.envs.bandits.informative_arm import InformativeArmBandit
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.tensor_env import TensorEnv
from tests.bandit_rollouts import noise_of, seeded


def payout_by_definition(target, arm):
    """Arms and targets counted from 1."""
    if arm == 11:
        return target / 10
    return 5 if arm == target else 1


def test_every_arm_pays_according_to_the_definition():
    family = InformativeArmBandit()
    task = torch.arange(10).repeat_interleave(11)
    arm = torch.arange(11).repeat(10)
    env = TensorEnv(family, task, noise_of(0, 110))
    assert env.reset().tolist() == [[0.0]] * 110
    last = env.step(arm)
    expected = [payout_by_definition(t + 1, a + 1) for t in range(10) for a in range(11)]
    np.testing.assert_allclose(last.reward.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(family.expected_rewards(task)[range(110), arm], expected, rtol=1e-6)
    assert last.next_obs.tolist() == [[0.0]] * 110
    assert last.terminated.all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_candidate_is_the_target_equally_often(split):
    tasks = InformativeArmBandit().sample_tasks(10_000, seeded(0), split)
    counts = tasks.bincount(minlength=11)
    assert counts[10] == 0  # the informative arm is never the target
    assert (counts[:10] - 1000).abs().max() < 4 * (10_000 * 0.1 * 0.9) ** 0.5


@cache
def best_by_definition(left, pulls):
    """Expectimax over all 11 arms; the target is uniformly distributed over `left`."""
    if not pulls:
        return 0.0
    if len(left) == 1:
        return 5.0 * pulls
    values = []
    for arm in range(1, 12):
        value = 0.0
        for payout in {payout_by_definition(target, arm) for target in left}:
            consistent = tuple(t for t in left if payout_by_definition(t, arm) == payout)
            share = len(consistent) / len(left)
            value += share * (payout + best_by_definition(consistent, pulls - 1))
        values.append(value)
    return max(values)


@pytest.mark.parametrize("pulls", [1, 2, 3, 4, 5])
def test_pulling_the_informative_arm_first_is_optimal(pulls):
    expected = best_by_definition(tuple(range(1, 11)), pulls)
    assert InformativeArmBandit(pulls=pulls).optimal_return() == pytest.approx(expected)


def test_the_optimum_matches_a_hand_calculation():
    # The informative arm pays 5.5 / 10 on average, the target 5 in each of the four pulls left.
    assert InformativeArmBandit().optimal_return() == pytest.approx(0.55 + 4 * 5)
    assert InformativeArmBandit(pulls=1).optimal_return() == pytest.approx((5 + 9 * 1) / 10)


def trajectories(pulls, num_tasks=4000):
    family = InformativeArmBandit(pulls=pulls)
    tasks = torch.arange(10).repeat(num_tasks // 10)  # every target equally often
    for name, reference in family.references(pulls).items():
        policy = reference.build(tasks)
        yield name, collect(family, tasks, policy, episodes=pulls, seeds=Seeds(1))


def test_references_earn_their_computed_returns():
    rollouts = dict(trajectories(5))
    total = {name: one.reward.sum(0).flatten().double() for name, one in rollouts.items()}
    expected = {
        "random": 5 * (5 + 9 * 1 + 0.55) / 11,
        # The target is hit at try k = 1..10, uniformly: k - 1 + 5 (6 - k), or 5 if k > 5.
        "thompson": sum(k - 1 + 5 * (6 - k) if k < 6 else 5 for k in range(1, 11)) / 10,
        "bayes_optimal": 20.55,
        "best_arm": 25.0,
    }
    assert list(expected) == list(total)
    for name, mean in expected.items():
        error = float(total[name].std()) / 4000**0.5
        tolerance = 1e-4 if name in ("bayes_optimal", "best_arm") else 4 * error
        assert abs(float(total[name].mean()) - mean) < tolerance
    pulled = rollouts["bayes_optimal"].action[:, :, 0]
    assert (pulled[0] == 10).all()
    assert (pulled[1:] == torch.arange(10).repeat(400)).all()
    assert (rollouts["thompson"].action < 10).all()


def test_the_informative_arm_is_not_pulled_in_a_trial_of_one_pull():
    optimal = dict(trajectories(1))["bayes_optimal"]
    assert (optimal.action < 10).all()
    assert abs(float(optimal.reward.double().mean()) - 1.4) < 4 * 1.2 / 4000**0.5


def test_references_are_ordered_from_floor_to_ceiling():
    references = InformativeArmBandit().references(5)
    assert [(name, reference.role) for name, reference in references.items()] == [
        ("random", "floor"),
        ("thompson", "baseline"),
        ("bayes_optimal", "ceiling"),
        ("best_arm", "ceiling"),
    ]


def test_a_trial_has_five_pulls_of_eleven_arms():
    family = InformativeArmBandit()
    assert (family.episode_steps, family.trial_episodes, family.arms) == (1, 5, 11)


def test_invalid_options_raise_an_error():
    with pytest.raises(ConfigError, match="pulls=0 must be greater than zero"):
        InformativeArmBandit(pulls=0)
