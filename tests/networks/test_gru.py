import pytest
import torch
from torch import Tensor, nn

from metarl.networks.gru import gru_sequence

T, L, F, H = 12, 5, 4, 8


def random(*shape: int, seed: int) -> Tensor:
    """Normal numbers in float64 that require a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("zero_start", [True, False])
def test_outputs_and_gradients_are_those_of_torch(zero_start):
    torch.manual_seed(0)  # weights of torch's module only
    gru = nn.GRU(F, H).double()
    parameters = [gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0]
    features, initial, weight = (
        random(T, L, F, seed=0),
        random(L, H, seed=1),
        random(T, L, H, seed=2),
    )
    if zero_start:
        initial = torch.zeros_like(initial).requires_grad_()
    expected, _ = gru(features, initial.unsqueeze(0))
    result = gru_sequence(features, initial, *parameters)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)

    inputs = [features, initial, *parameters]
    slow = torch.autograd.grad((expected * weight).sum(), inputs)
    fast = torch.autograd.grad((result * weight).sum(), inputs)
    for one, two in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


def test_gradients_pass_finite_differences():
    shapes = [(3, 2, F), (2, H), (3 * H, F), (3 * H, H), (3 * H,), (3 * H,)]
    inputs = [random(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(gru_sequence, inputs)
