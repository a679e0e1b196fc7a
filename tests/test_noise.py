"""Random streams of lanes: each is a function of the lane alone, and has the right distribution."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from metarl.noise import LaneNoise, lane_keys
from metarl.seeding import Seeds

SEED = Seeds(3).word("noise")
DRAWS = {
    "uniform": lambda noise: noise.uniform(3),
    "normal": lambda noise: noise.normal(3),
    "exponential": lambda noise: noise.exponential(3),
    "integers": lambda noise: noise.integers(5, 3),
    "gamma": lambda noise: noise.gamma(torch.full((noise.lanes, 3), 0.7)),
}


def noise_of(tasks, rollouts=1, first_task=0, **options):
    return LaneNoise(lane_keys(SEED, tasks, rollouts, first_task), **options)


def splitmix64(state: int) -> int:
    """The reference implementation of Vigna (2015), public domain: the output of one step."""
    mask = 2**64 - 1
    state = (state + 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_words_are_those_of_splitmix64():
    # 0xE220A8397B1DCDAF is the first output for seed 0 in the published test vectors.
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    key = 2**63 + 12345
    noise = LaneNoise(torch.tensor([key - 2**64]))
    word = splitmix64(key - 0x9E3779B97F4A7C15)  # element 0 of draw 0 of step 0: no increment
    assert float(noise.uniform()) == (word >> 40) / 2**24


@pytest.mark.parametrize("draw", DRAWS.values(), ids=list(DRAWS))
def test_a_lane_draws_the_same_whatever_the_other_lanes_are(draw):
    whole = draw(noise_of(10, 4).at(7)).view(10, 4, 3)
    part = draw(noise_of(3, 4, first_task=5).at(7)).view(3, 4, 3)
    torch.testing.assert_close(part, whole[5:8], rtol=0, atol=0)
    fewer = draw(noise_of(10, 2).at(7)).view(10, 2, 3)
    torch.testing.assert_close(fewer, whole[:, :2], rtol=0, atol=0)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=list(DRAWS))
@pytest.mark.parametrize("horizon", [None, 1, 5, 1000])
def test_drawing_ahead_changes_no_number(draw, horizon):
    ahead, plain = noise_of(6, horizon=horizon), noise_of(6)
    for step in (0, 1, 2, 3, 4, 2, 0):  # also back again
        for _ in range(2):
            one = draw(ahead.at(step) if _ == 0 else ahead)
            two = draw(plain.at(step) if _ == 0 else plain)
            assert torch.equal(one, two)


def test_steps_draws_children_lanes_and_purposes_differ():
    noise = noise_of(4)
    first, second = noise.at(0).uniform(), noise.uniform()
    later, child = noise.at(1).uniform(), noise.child(0).uniform()
    other = LaneNoise.of(Seeds(3), "other", 4).uniform()
    everything = torch.cat((first, second, later, child, other, noise.child(1).uniform()))
    assert len(everything.unique()) == len(everything)
    assert torch.equal(noise.at(0).uniform(), first)


@pytest.mark.parametrize(
    ("draw", "law"),
    [
        (lambda noise: noise.uniform(5), stats.uniform()),
        (lambda noise: noise.normal(5), stats.norm()),
        (lambda noise: noise.exponential(5), stats.expon()),
        (lambda noise: noise.gamma(torch.full((noise.lanes, 5), 0.3)), stats.gamma(0.3)),
        (lambda noise: noise.gamma(torch.full((noise.lanes, 5), 1.0)), stats.gamma(1.0)),
        (lambda noise: noise.gamma(torch.full((noise.lanes, 5), 7.5)), stats.gamma(7.5)),
    ],
    ids=["uniform", "normal", "exponential", "gamma-.3", "gamma-1", "gamma-7.5"],
)
def test_numbers_follow_their_law(draw, law):
    noise = noise_of(2000, horizon=8)
    sample = torch.cat([draw(noise.at(step)) for step in range(8)]).double().flatten().numpy()
    assert stats.kstest(sample, law.cdf).pvalue > 1e-3
    # The same test notices a shift of three hundredths of a deviation.
    assert stats.kstest(sample + 0.03 * law.std(), law.cdf).pvalue < 1e-3


@pytest.mark.parametrize("high", [1, 2, 7, 1000])
def test_integers_are_uniform_and_in_range(high):
    drawn = noise_of(5000).integers(high, 4).flatten()
    assert drawn.dtype == torch.int64
    counts = torch.bincount(drawn, minlength=high)
    assert len(counts) == high
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3 or high == 1


@pytest.mark.parametrize("across", ["lanes", "steps", "draws", "rollouts", "elements"])
def test_neighbouring_streams_are_independent(across):
    noise = noise_of(1 if across == "rollouts" else 4000, 4000 if across == "rollouts" else 1)
    if across in ("lanes", "rollouts"):
        one, two = noise.normal().view(2, -1)
    elif across == "steps":
        one, two = noise.at(0).normal(), noise.at(1).normal()
    elif across == "draws":
        one, two = noise.normal(), noise.normal()
    else:
        one, two = noise.normal(2).unbind(1)
    correlation = np.corrcoef(one.numpy(), two.numpy())[0, 1]
    assert abs(correlation) < 4 / math.sqrt(len(one))


@pytest.mark.parametrize("word", [0, -1, 2**63 - 1, -(2**63)])
def test_extreme_words_give_numbers_inside_the_support(monkeypatch, word):
    monkeypatch.setattr("metarl.native.noise.library", lambda: None)
    monkeypatch.setattr("metarl.noise._mix", lambda words: torch.full_like(words, word))
    noise = noise_of(2)
    assert ((noise.uniform(3) >= 0) & (noise.uniform(3) < 1)).all()
    exponential = noise.exponential(3)
    assert ((exponential > 0) & (exponential < 20)).all()
    assert noise.normal(3).isfinite().all()
    assert ((noise.integers(7) >= 0) & (noise.integers(7) < 7)).all()
    for concentration in (0.1, 1.0, 50.0):
        assert (noise.gamma(torch.full((2, 3), concentration)) >= 0).all()


def test_what_has_no_address_is_refused():
    with pytest.raises(ValueError, match="numbers for each lane in one draw; at most 4194304"):
        noise_of(1).uniform(2**22 + 1)
    with pytest.raises(ValueError, match=r"step=536870912 must lie between 0 and 536870911"):
        noise_of(1).at(2**29)
    noise_of(1).at(2**29 - 1).uniform()


def test_too_many_draws_in_one_step_are_refused():
    noise = noise_of(1)
    for _ in range(256):
        noise.uniform()
    with pytest.raises(ValueError, match="More than 256 draws in one step"):
        noise.uniform()
