"""The dependent bandit against a plain loop, its tasks, and its optimum against brute force."""

import numpy as np
import pytest
import torch

from metarl.envs.bandits.dependent_arms import DependentBandit
from metarl.errors import ConfigError
from metarl.noise import LaneNoise
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.tensor_env import TensorEnv
from tests.bandit_rollouts import noise_of, seeded

DIFFICULTIES = {"uniform": None, "easy": 0.1, "medium": 0.25, "hard": 0.4}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_every_lane_equals_a_plain_loop_over_pulls(difficulty):
    family = DependentBandit(difficulty=difficulty)
    lanes, rng = 6, np.random.default_rng(0)
    tasks = family.sample_tasks(lanes, seeded(1))
    env = TensorEnv(family, tasks, noise_of(2, lanes))
    alone = [LaneNoise(key) for key in noise_of(2, lanes).keys.split(1)]
    seen = set()
    for step in range(30):
        obs = env.reset()
        arms = rng.integers(2, size=lanes)
        last = env.step(torch.as_tensor(arms))
        for lane in range(lanes):
            p = tasks[lane, 0].numpy()
            paid = float(alone[lane].at(step).uniform()) < (1 - p if arms[lane] else p)
            assert float(last.reward[lane]) == float(paid)
            seen.add((int(arms[lane]), bool(paid)))
        assert obs.tolist() == last.next_obs.tolist() == [[0.0]] * lanes
        assert last.terminated.all()
    assert len(seen) == 4  # both arms, both outcomes


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_both_splits_share_the_two_tasks(difficulty, split):
    low = DIFFICULTIES[difficulty]
    tasks = DependentBandit(difficulty=difficulty).sample_tasks(4000, seeded(0), split)
    values, counts = tasks.unique(return_counts=True)
    assert values.tolist() == pytest.approx([low, 1 - low])
    assert abs(int(counts[0]) - 2000) < 4 * 4000**0.5 / 2


def test_uniform_tasks_fill_the_interval():
    tasks = DependentBandit().sample_tasks(50_000, seeded(0))
    assert tasks.shape == (50_000, 1)
    assert abs(float(tasks.mean()) - 0.5) < 4 * (1 / 12 / 50_000) ** 0.5
    assert float(tasks.var()) == pytest.approx(1 / 12, rel=0.02)


def best_by_definition(nodes, weight, pulls):
    """Expectimax over both arms; `weight` is the unnormalised probability of each p in `nodes`."""
    if not pulls:
        return 0.0
    values = []
    for p in (nodes, 1 - nodes):
        paid, blank = weight * p, weight * (1 - p)
        values.append(
            paid.sum()
            + best_by_definition(nodes, paid, pulls - 1)
            + best_by_definition(nodes, blank, pulls - 1)
        )
    return max(values)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("pulls", [1, 2, 5])
def test_pulling_the_arm_with_the_higher_posterior_mean_is_optimal(difficulty, pulls):
    low = DIFFICULTIES[difficulty]
    if low is None:  # Gauss-Legendre: exact for polynomials of p
        nodes, weight = np.polynomial.legendre.leggauss(20)
        nodes, weight = (1 + nodes) / 2, weight / 2
    else:
        nodes, weight = np.array([low, 1 - low]), np.array([0.5, 0.5])
    expected = best_by_definition(nodes, weight, pulls)
    family = DependentBandit(difficulty=difficulty, pulls=pulls)
    assert family.optimal_return() == pytest.approx(expected, abs=1e-9)


def test_the_optimum_matches_a_hand_calculation():
    # The first pull earns 1/2. After it, the better arm has posterior mean 2/3.
    assert DependentBandit(pulls=2).optimal_return() == pytest.approx(0.5 + 2 / 3)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_simulated_references_have_the_expected_returns_and_order(difficulty):
    family = DependentBandit(difficulty=difficulty, pulls=40)
    tasks = family.sample_tasks(5000, Seeds(0).torch("tasks"), "test")
    mean, error = {}, {}
    for name, reference in family.references(40).items():
        policy = reference.build(tasks)
        trajectory = collect(family, tasks, policy, episodes=40, seeds=Seeds(1))
        total = trajectory.reward.sum(0).flatten().double()
        mean[name], error[name] = float(total.mean()), float(total.std()) / 5000**0.5
    assert abs(mean["random"] - 20) < 4 * error["random"]
    assert abs(mean["bayes_optimal"] - family.optimal_return()) < 4 * error["bayes_optimal"]
    low = DIFFICULTIES[difficulty]
    best = 0.75 if low is None else 1 - low  # the mean of max(p, 1 - p)
    assert abs(mean["best_arm"] - 40 * best) < 4 * error["best_arm"]
    assert mean["random"] < mean["thompson"] < mean["bayes_optimal"] < mean["best_arm"]


def test_references_are_ordered_from_floor_to_ceiling():
    references = DependentBandit().references(5)
    assert [(name, reference.role) for name, reference in references.items()] == [
        ("random", "floor"),
        ("thompson", "baseline"),
        ("bayes_optimal", "ceiling"),
        ("best_arm", "ceiling"),
    ]


def test_a_trial_has_a_hundred_pulls_of_two_arms():
    family = DependentBandit()
    assert (family.episode_steps, family.trial_episodes, family.arms) == (1, 100, 2)


def test_invalid_options_raise_an_error():
    with pytest.raises(ConfigError, match=r"difficulty='harder' of .* 'uniform', 'easy'"):
        DependentBandit(difficulty="harder")
    with pytest.raises(ConfigError, match="pulls=0 must be greater than zero"):
        DependentBandit(pulls=0)
