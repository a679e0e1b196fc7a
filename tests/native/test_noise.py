"""Random streams by the compiled library, bit by bit against those of NumPy and torch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.noise import LaneNoise, lane_keys
from metarl.seeding import Seeds
from tests.test_noise import DRAWS


def drawn(draw, *, lanes: int, step: int, horizon: int | None, size: int) -> list[torch.Tensor]:
    noise = LaneNoise(lane_keys(Seeds(5).word("noise"), lanes), horizon=horizon)
    return [draw(noise.at(at)) for at in (step, step + 1)] + [noise.uniform(size), noise.normal(5)]


@pytest.mark.parametrize("draw", [*DRAWS.values(), lambda noise: noise.integers(2**40)])
@pytest.mark.parametrize(
    ("lanes", "step", "horizon"), [(1, 0, None), (37, 2**28, None), (9, 3, 40)]
)
def test_numbers_are_those_of_numpy_and_torch(build, monkeypatch, draw, lanes, step, horizon):
    compiled = drawn(draw, lanes=lanes, step=step, horizon=horizon, size=3)
    monkeypatch.setattr("metarl.native.noise.library", lambda: None)
    plain = drawn(draw, lanes=lanes, step=step, horizon=horizon, size=3)
    for one, two in zip(compiled, plain, strict=True):
        assert torch.equal(one, two)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 2**40))
def test_any_key_gives_the_same_numbers(key, high):
    noise = LaneNoise(torch.tensor([key]))
    numbers = [noise.at(7).uniform(2), noise.integers(high, 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarl.native.noise.library", lambda: None)
        noise = LaneNoise(torch.tensor([key]))
        for one, two in zip(
            numbers, (noise.at(7).uniform(2), noise.integers(high, 2)), strict=True
        ):
            assert torch.equal(one, two)
