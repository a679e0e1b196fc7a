import math

import torch

from metarl.losses import clipped_surrogate, masked_mean, normalised


def test_a_worked_clipped_surrogate():
    # ratios 1.5, 1.5, .5, .5 with advantages 1, -1, 1, -1 and clip .2:
    # min(1.5, 1.2) = 1.2; min(-1.5, -1.2) = -1.5; min(.5, .8) = .5; min(-.5, -.8) = -.8
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5, 9.0])
    old = torch.full((5,), -0.3)
    result = clipped_surrogate(
        ratio.log() + old,
        old,
        torch.tensor([1.0, -1.0, 1.0, -1.0, 100.0]),
        torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]),  # the last was never lived
        clip=0.2,
    )
    assert math.isclose(float(result.loss), -(1.2 - 1.5 + 0.5 - 0.8) / 4, rel_tol=1e-6)
    assert float(result.clip_fraction) == 1.0
    kl = (2 * (0.5 - math.log(1.5)) + 2 * (-0.5 - math.log(0.5))) / 4
    assert math.isclose(float(result.approximate_kl), kl, rel_tol=1e-5)


def test_the_gradient_at_ratio_one_is_the_policy_gradient():
    log_prob = torch.randn(50, dtype=torch.float64, requires_grad=True)
    advantage, valid = torch.randn(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64)
    loss = clipped_surrogate(log_prob, log_prob.detach(), advantage, valid, clip=0.1).loss
    (gradient,) = torch.autograd.grad(loss, log_prob)
    torch.testing.assert_close(gradient, -advantage / 50)


def test_advantages_are_normalised_over_lived_steps_only():
    advantage = torch.tensor([1.0, 2.0, 3.0, 1000.0], dtype=torch.float64)
    valid = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    result = normalised(advantage, valid)
    expected = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) / (2 / 3) ** 0.5
    torch.testing.assert_close(result[:3], expected, rtol=1e-6, atol=1e-6)
    assert masked_mean(advantage, valid) == 2.0
