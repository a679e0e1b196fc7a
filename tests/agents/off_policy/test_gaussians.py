"""Products of Gaussians and squashed Gaussians, against densities in float64."""

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution
from torch.distributions import kl_divergence as kl_by_torch

from metarl.agents.off_policy.gaussians import (
    NaturalGaussian,
    squashed_sample,
    standard_gaussian,
)

LANES, STEPS, LATENT = 3, 4, 2


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def factors() -> NaturalGaussian:
    precision = normal(LANES, STEPS, LATENT).exp()
    return NaturalGaussian(precision, precision * normal(LANES, STEPS, LATENT, seed=1))


def log_density(gaussian: NaturalGaussian, point: torch.Tensor) -> torch.Tensor:
    return Normal(gaussian.mean, gaussian.precision.rsqrt()).log_prob(point)


def test_a_product_has_the_density_of_the_product_up_to_its_normalisation():
    each = factors()
    kept = torch.tensor([[True] * STEPS, [True, False, True, False], [False] * STEPS])
    product = standard_gaussian(each.shift[:, 0]).times(each.product(1, kept.unsqueeze(-1)))
    points = normal(LANES, 2, LATENT, seed=2)
    for lane in range(LANES):
        # By definition, for each latent variable: log density differs by one constant alone.
        expected = []
        for point in points[lane]:
            log = -0.5 * point.square()
            for step in range(STEPS):
                if kept[lane, step]:
                    factor = NaturalGaussian(each.precision[lane, step], each.shift[lane, step])
                    log = log + log_density(factor, point)
            expected.append(log)
        one = NaturalGaussian(product.precision[lane], product.shift[lane])
        got = [log_density(one, point) for point in points[lane]]
        torch.testing.assert_close(got[0] - got[1], expected[0] - expected[1])


def test_a_product_does_not_depend_on_the_order_and_cuts_what_is_not_kept():
    each, kept = factors(), torch.ones(LANES, STEPS, 1, dtype=torch.bool)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = NaturalGaussian(*(value[:, order] for value in each))
    torch.testing.assert_close(each.product(1, kept), shuffled.product(1, kept))
    broken = NaturalGaussian(*(value.clone() for value in each))
    broken.shift[:, 1] = torch.nan
    kept[:, 1] = False
    assert broken.product(1, kept).shift.isfinite().all()


def test_samples_have_mean_and_deviation():
    gaussian = NaturalGaussian(torch.tensor([4.0]), torch.tensor([8.0]))  # mean 2, deviation .5
    torch.testing.assert_close(gaussian.sample(torch.tensor([3.0])), torch.tensor([3.5]))


def test_the_divergence_from_the_prior_is_that_of_torch():
    gaussian = NaturalGaussian(*(value[:, 0] for value in factors()))
    one = Independent(Normal(gaussian.mean, gaussian.precision.rsqrt()), 1)
    zeros = torch.zeros_like(gaussian.shift)
    prior = Independent(Normal(zeros, zeros + 1), 1)
    torch.testing.assert_close(gaussian.kl_from_standard(), kl_by_torch(one, prior))
    assert standard_gaussian(zeros).kl_from_standard().abs().max() == 0


def test_the_density_of_squashed_actions_is_that_of_torch():
    mean, log_std, standard = (normal(LANES, 2, seed=seed) for seed in range(3))
    action, log_prob = squashed_sample(mean, log_std, standard)
    base = Normal(mean, log_std.exp())
    squashed = TransformedDistribution(base, TanhTransform())
    torch.testing.assert_close(action, (mean + log_std.exp() * standard).tanh())
    torch.testing.assert_close(log_prob, squashed.log_prob(action).sum(-1))


@pytest.mark.parametrize("point", [-30.0, 30.0])
def test_saturated_actions_have_finite_densities_and_gradients(point):
    mean = torch.tensor([point], requires_grad=True)
    action, log_prob = squashed_sample(mean, torch.zeros(1), torch.zeros(1))
    assert action.abs() == 1.0
    # log(1 - tanh(x)^2) = log 4 - 2 |x| up to e^(-2 |x|)
    expected = -0.9189385 - (1.3862944 - 60.0)
    assert log_prob.item() == pytest.approx(expected, rel=1e-6)
    log_prob.backward()
    assert mean.grad.isfinite().all()
