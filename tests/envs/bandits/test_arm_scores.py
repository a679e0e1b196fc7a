"""Arm scores against their definitions, Bayes' rule and known posteriors."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from metarl.envs.bandits.arm_scores import (
    EpsilonGreedy,
    GoalPosterior,
    Optimistic,
    PairPosterior,
    UpperBound,
    beta_draw,
    beta_mean,
    normal_draw,
    normal_mean,
    updated_tally,
)
from metarl.envs.bandits.references import PullsHighest
from tests.bandit_rollouts import noise_of, percept_of


def test_the_tally_counts_pulls_and_rewards():
    tally = torch.zeros(2, 3, 2)
    # The zeros at the start of a trial do not count as a pull of arm 0.
    start = percept_of(torch.zeros(2, dtype=torch.int64), torch.zeros(2), first_of_trial=True)
    tally = updated_tally(tally, start)
    assert not tally.any()
    for action, reward in [([2, 0], [1.0, 0.0]), ([2, 1], [0.0, -1.5]), ([2, 0], [1.0, 0.25])]:
        tally = updated_tally(
            tally,
            percept_of(torch.tensor(action), torch.tensor(reward), first_of_trial=False),
        )
    assert tally.tolist() == [[[0, 0], [0, 0], [2, 3]], [[0.25, 2], [-1.5, 1], [0, 0]]]


def score_by_definition(name, total, pulls, time):
    """Score of one arm in one lane."""
    if name == "beta":
        return (1 + total) / (2 + pulls)
    if name == "normal":
        return total / (1 + pulls)
    bonus = 0.3 * math.sqrt(2 * math.log(time) / (2 + pulls)) if time else 0.0
    return (1 + total) / (2 + pulls) + bonus


SCORES = {
    "beta": beta_mean,
    "normal": normal_mean,
    "bound": UpperBound(mean=beta_mean, prior_pulls=2, scale=0.3),
}


@pytest.mark.parametrize("name", SCORES)
def test_pulling_the_highest_score_matches_a_plain_loop_over_lanes(name):
    lanes, arms, rng = 12, 5, np.random.default_rng(0)
    policy = PullsHighest(arms, SCORES[name])
    memory = policy.initial_memory(lanes, 40)
    total, pulls = np.zeros((lanes, arms)), np.zeros((lanes, arms))
    action = torch.zeros(lanes, dtype=torch.int64)
    reward = np.zeros(lanes, dtype=np.float32)
    pulled = set()
    for time in range(40):
        percept = percept_of(action, torch.as_tensor(reward), first_of_trial=time == 0)
        action, _, memory = policy.act(percept, memory, noise_of(0, lanes))
        for lane in range(lanes):
            scores = [
                score_by_definition(name, *both, time)
                for both in zip(total[lane], pulls[lane], strict=True)
            ]
            arm = int(action[lane])
            assert scores[arm] == pytest.approx(max(scores), abs=1e-6)
            assert all(score < scores[arm] + 1e-6 for score in scores[:arm])
            reward[lane] = rng.integers(2) - (
                name == "normal"
            )  # negative rewards make it pull all arms
            total[lane][arm] += reward[lane]
            pulls[lane][arm] += 1
            pulled.add(arm)
    assert pulled == set(range(arms))


def test_ties_go_to_the_first_arm():
    start = percept_of(torch.zeros(3, dtype=torch.int64), torch.zeros(3), first_of_trial=True)
    policy = PullsHighest(4, beta_mean)
    assert policy.act(start, policy.initial_memory(3, 1), noise_of(0, 3)).action.tolist() == [0] * 3


LANES = 4000


def many(total, pulls, lanes=LANES):
    """The tally of one arm in each lane."""
    return torch.tensor([float(total), float(pulls)]).expand(lanes, 1, 2)


@pytest.mark.parametrize(("payouts", "pulls"), [(0, 0), (3, 4), (0, 20)])
def test_drawn_means_follow_the_beta_posterior(payouts, pulls):
    drawn = beta_draw(many(payouts, pulls), noise_of(0, LANES)).flatten().numpy()
    right = stats.kstest(drawn, stats.beta(1 + payouts, 1 + pulls - payouts).cdf)
    wrong = stats.kstest(drawn, stats.beta(2 + payouts, 1 + pulls - payouts).cdf)
    assert right.pvalue > 1e-3
    assert wrong.pvalue < 1e-6
    mean = float(beta_mean(many(payouts, pulls, 1), noise_of(0, 1)))
    assert mean == pytest.approx(stats.beta(1 + payouts, 1 + pulls - payouts).mean())


@pytest.mark.parametrize(("total", "pulls"), [(0, 0), (2.5, 3), (-8, 20)])
def test_drawn_means_follow_the_normal_posterior(total, pulls):
    # Bayes' rule on a fine grid with prior N(0, 1). The likelihood of `pulls` rewards of unit
    # variance depends only on their sum.
    grid = np.linspace(-6, 6, 6001)
    density = np.exp(-(grid**2) / 2 + total * grid - pulls * grid**2 / 2)
    cumulative = density.cumsum() / density.sum()
    drawn = normal_draw(many(total, pulls), noise_of(0, LANES)).flatten().numpy()
    assert stats.kstest(drawn, lambda x: np.interp(x, grid, cumulative)).pvalue > 1e-3
    assert stats.kstest(drawn, lambda x: np.interp(x - 0.2, grid, cumulative)).pvalue < 1e-6
    mean = float(normal_mean(many(total, pulls, 1), noise_of(0, 1)))
    assert mean == pytest.approx((grid * density).sum() / density.sum(), abs=1e-6)


@pytest.mark.parametrize("score", [beta_draw, normal_draw])
def test_equal_seeds_give_equal_draws_and_lanes_draw_independently(score):
    policy = PullsHighest(5, score)
    percept = percept_of(torch.zeros(200, dtype=torch.int64), torch.zeros(200), first_of_trial=True)
    memory = policy.initial_memory(200, 1)
    first, again, other = (policy.act(percept, memory, noise_of(s, 200)).action for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(first.tolist()) == {0, 1, 2, 3, 4}


def test_the_upper_bound_of_every_arm_matches_ucb1():
    # 10 pulls in all: 0.25 + sqrt(2 ln 10 / 4), and 4 of 6.
    tally = torch.tensor([[[1.0, 4.0], [4.0, 6.0]]])
    ucb1 = UpperBound(mean=lambda t, _: t[..., 0] / t[..., 1], prior_pulls=0, scale=1)
    expected = [0.25 + math.sqrt(2 * math.log(10) / 4), 4 / 6 + math.sqrt(2 * math.log(10) / 6)]
    assert ucb1(tally, noise_of(0, 1))[0].tolist() == pytest.approx(expected)


def test_the_upper_bound_before_any_pull_is_the_mean():
    score = UpperBound(mean=beta_mean, prior_pulls=2, scale=0.3)
    assert score(torch.zeros(1, 3, 2), noise_of(0, 1)).tolist() == [[0.5, 0.5, 0.5]]


def test_optimistic_thompson_sampling_never_draws_below_the_mean():
    score = Optimistic(draw=beta_draw, mean=beta_mean)
    tally = many(3, 4)
    drawn, optimistic = (draw(tally, noise_of(3, LANES)) for draw in (beta_draw, score))
    mean = 4 / 6
    torch.testing.assert_close(optimistic, drawn.clamp(min=mean))
    assert 0.3 < float((drawn < mean).float().mean()) < 0.6  # the bound was active


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_is_the_fraction_of_random_pulls(epsilon):
    lanes, arms = 20_000, 4
    tally = torch.tensor([[0.0, 3.0], [3.0, 3.0], [0.0, 0.0], [1.0, 9.0]])
    score = EpsilonGreedy(mean=beta_mean, epsilon=epsilon)
    pulled = score(tally.expand(lanes, arms, 2), noise_of(0, lanes)).argmax(-1)
    share = pulled.bincount(minlength=arms) / lanes
    expected = torch.full((arms,), epsilon / arms)
    expected[1] += 1 - epsilon
    assert ((share - expected).abs() <= 4 * (expected * (1 - expected) / lanes).sqrt()).all()


def test_the_goal_is_drawn_from_the_posterior_of_bayes_rule():
    p_goal, p_other = 0.8, 0.3
    counts = [(2, 3), (0, 1), (0, 0)]  # (payouts, pulls) of three arms
    weight = np.ones(3)
    for goal, (arm, (payouts, pulls)) in itertools.product(range(3), enumerate(counts)):
        p = p_goal if arm == goal else p_other
        weight[goal] *= p**payouts * (1 - p) ** (pulls - payouts)
    posterior = weight / weight.sum()
    draw = GoalPosterior(p_goal=p_goal, p_other=p_other)
    tally = torch.tensor(counts, dtype=torch.float32).expand(20_000, 3, 2)
    np.testing.assert_allclose(draw.log_odds(tally[0]).softmax(-1), posterior, atol=1e-6)
    drawn = draw(tally, noise_of(0, 20_000)).argmax(-1).bincount(minlength=3).numpy()
    assert stats.chisquare(drawn, 20_000 * posterior).pvalue > 1e-3


def test_certain_goals_are_always_drawn_and_impossible_goals_never():
    draw = GoalPosterior(p_goal=1.0, p_other=0.0)
    tally = torch.tensor([[0.0, 0.0], [0.0, 3.0], [0.0, 0.0]]).expand(500, 3, 2).clone()
    assert set(draw(tally, noise_of(0, 500)).argmax(-1).tolist()) == {0, 2}
    tally[..., 2, :] = 1
    assert set(draw(tally, noise_of(0, 500)).argmax(-1).tolist()) == {2}


def pair_weights(low, counts):
    """Values of p, and their posterior probabilities by Bayes' rule."""
    p = np.linspace(0.0005, 0.9995, 1000) if low is None else np.array([low, 1 - low])
    (paid, pulls), (paid_other, pulls_other) = counts
    weight = p**paid * (1 - p) ** (pulls - paid)
    weight = weight * (1 - p) ** paid_other * p ** (pulls_other - paid_other)
    return p, weight / weight.sum()


@pytest.mark.parametrize("low", [None, 0.1, 0.4])
@pytest.mark.parametrize("counts", [[(0, 0), (0, 0)], [(2, 3), (1, 5)], [(0, 2), (2, 2)]])
def test_the_pair_posterior_uses_payouts_of_both_arms(low, counts):
    p, weight = pair_weights(low, counts)
    posterior = PairPosterior(low=low)
    tally = torch.tensor(counts, dtype=torch.float32).expand(20_000, 2, 2)
    noise = noise_of(0, 20_000)
    mean, drawn = posterior.mean(tally, noise)[0], posterior.draw(tally, noise)
    expected = float((p * weight).sum())
    assert mean.tolist() == pytest.approx([expected, 1 - expected], abs=1e-4)
    torch.testing.assert_close(drawn.sum(-1), torch.ones(20_000))
    first = drawn[:, 0].numpy()
    if low is None:
        cumulative = weight.cumsum()
        assert stats.kstest(first, lambda x: np.interp(x, p, cumulative)).pvalue > 1e-3
        assert stats.kstest(first, lambda x: np.interp(x - 0.1, p, cumulative)).pvalue < 1e-6
    else:
        high = first == np.float32(1 - low)
        assert (high | (first == np.float32(low))).all()
        assert stats.binomtest(int(high.sum()), len(high), weight[1]).pvalue > 1e-3
