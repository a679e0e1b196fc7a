import pytest
import torch

from metarl.networks.layers import RunningScale, ScaledValue, mlp

F, H = 4, 6


def test_the_same_generator_gives_the_same_weights():
    one, two, other = (
        mlp([F, H, 1], last_gain=1.0, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


def test_values_do_not_change_when_the_scale_does():
    value = ScaledValue(H, H, generator=torch.Generator().manual_seed(0))
    features = torch.randn(7, H)
    with torch.no_grad():
        before = value.unscaled(value(features))
        for returns in (torch.randn(100) * 30 + 200, torch.randn(100) * 50 - 90):
            value.observe(returns)
            after = value.unscaled(value(features))
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert value.deviation > 10  # the scale changed


def test_the_first_returns_set_the_scale_fully():
    value = ScaledValue(H, H, generator=torch.Generator().manual_seed(0))
    value.observe(torch.tensor([10.0, 14.0]))
    assert float(value.mean) == pytest.approx(12.0, rel=1e-5)
    assert float(value.deviation) == pytest.approx(2.0, rel=1e-5)
    assert value.scaled(torch.tensor([14.0])).item() == pytest.approx(1.0, rel=1e-4)


def test_a_running_scale_holds_mean_and_deviation_of_all_observed_rows():
    noise = torch.Generator().manual_seed(0)
    parts = [torch.randn(size, 3, generator=noise) for size in (5, 700, 1, 60)]
    parts = [
        part * torch.tensor([1e3, 1e-2, 1.0]) + torch.tensor([1e4, 5.0, 0.0]) for part in parts
    ]
    scale = RunningScale(3)
    for number, part in enumerate(parts, 1):
        scale.observe(part)
        seen = torch.cat(parts[:number]).double()
        torch.testing.assert_close(scale.mean.double(), seen.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            scale.deviation.double(), seen.std(0, correction=0), rtol=1e-3, atol=1e-5
        )
    scaled = scale(torch.cat(parts))
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), rtol=0, atol=1e-3)


def test_outliers_are_clamped_and_constant_inputs_become_zero():
    scale = RunningScale(2)
    scale.observe(torch.tensor([[1.0, 3.0], [-1.0, 3.0]]))
    assert scale(torch.tensor([[1e9, 3.0], [-0.5, 3.0]])).tolist() == [[10.0, 0.0], [-0.5, 0.0]]
    assert RunningScale(1)(torch.tensor([[7.5]])).item() == 7.5
