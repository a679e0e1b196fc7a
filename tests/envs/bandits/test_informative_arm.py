"""The informative arm beside a plain definition, its references, and its optimum by brute force."""

from functools import cache

import numpy as np
import pytest
import torch

from metarl.envs.bandits.informative_arm import InformativeArmBandit
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TensorEnv
from tests.bandit_rollouts import seeded


def payout_by_definition(target, arm):
    """Arms and targets counted from 1."""
    if arm == 11:
        return target / 10
    return 5 if arm == target else 1


def test_every_arm_pays_what_the_definition_says():
    family = InformativeArmBandit()
    task = torch.arange(10).repeat_interleave(11)
    arm = torch.arange(11).repeat(10)
    world = TensorEnv(family, task, seeded(0))
    assert world.reset().tolist() == [[0.0]] * 110
    last = world.step(arm)
    expected = [payout_by_definition(t + 1, a + 1) for t in range(10) for a in range(11)]
    np.testing.assert_allclose(last.reward.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(family.expected_rewards(task)[range(110), arm], expected, rtol=1e-6)
    assert last.obs.tolist() == [[0.0]] * 110
    assert last.terminated.all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_candidate_is_the_target_equally_often(split):
    tasks = InformativeArmBandit().sample_tasks(10_000, seeded(0), split)
    counts = tasks.bincount(minlength=11)
    assert counts[10] == 0  # the informative arm never is
    assert (counts[:10] - 1000).abs().max() < 4 * (10_000 * 0.1 * 0.9) ** 0.5


@cache
def best_by_definition(left, pulls):
    """Expectimax over all 11 arms while the target is one of `left`, each as likely."""
    if not pulls:
        return 0.0
    if len(left) == 1:
        return 5.0 * pulls
    values = []
    for arm in range(1, 12):
        value = 0.0
        for payout in {payout_by_definition(target, arm) for target in left}:
            agree = tuple(t for t in left if payout_by_definition(t, arm) == payout)
            value += len(agree) / len(left) * (payout + best_by_definition(agree, pulls - 1))
        values.append(value)
    return max(values)


@pytest.mark.parametrize("pulls", [1, 2, 3, 4, 5])
def test_nothing_beats_asking_first(pulls):
    expected = best_by_definition(tuple(range(1, 11)), pulls)
    assert InformativeArmBandit(pulls=pulls).optimal_return() == pytest.approx(expected)


def test_the_optimum_by_hand():
    # The informative arm pays 5.5 / 10 on average, the target 5 in each of the four pulls left.
    assert InformativeArmBandit().optimal_return() == pytest.approx(0.55 + 4 * 5)
    assert InformativeArmBandit(pulls=1).optimal_return() == pytest.approx((5 + 9 * 1) / 10)


def earned(pulls, num_tasks=4000):
    family = InformativeArmBandit(pulls=pulls)
    tasks = torch.arange(10).repeat(num_tasks // 10)  # every target equally often
    for name, reference in family.references(pulls).items():
        policy = reference.build(tasks)
        lived = collect(family, tasks, policy, episodes=pulls, seeds=Seeds(1))
        yield name, lived


def test_references_earn_what_can_be_computed():
    lived = dict(earned(5))
    total = {name: one.reward.sum(0).flatten().double() for name, one in lived.items()}
    expected = {
        "random": 5 * (5 + 9 * 1 + 0.55) / 11,
        # Found at the k-th try, k = 1..10 alike: k - 1 + 5 (6 - k), or 5 where five do not do.
        "thompson": sum(k - 1 + 5 * (6 - k) if k < 6 else 5 for k in range(1, 11)) / 10,
        "bayes_optimal": 20.55,
        "best_arm": 25.0,
    }
    assert list(expected) == list(total)
    for name, mean in expected.items():
        error = float(total[name].std()) / 4000**0.5
        tolerance = 1e-4 if name in ("bayes_optimal", "best_arm") else 4 * error
        assert abs(float(total[name].mean()) - mean) < tolerance
    asked = lived["bayes_optimal"].action[:, :, 0]
    assert (asked[0] == 10).all()
    assert (asked[1:] == torch.arange(10).repeat(400)).all()
    assert (lived["thompson"].action < 10).all()


def test_with_one_pull_it_is_too_late_to_ask():
    lived = dict(earned(1))
    assert (lived["bayes_optimal"].action < 10).all()
    assert abs(float(lived["bayes_optimal"].reward.double().mean()) - 1.4) < 4 * 1.2 / 4000**0.5


def test_references_go_from_the_floor_to_the_ceiling():
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


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="pulls=0 must be greater than zero"):
        InformativeArmBandit(pulls=0)
