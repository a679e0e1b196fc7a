"""Memories: step by step as in one go, and each against its slow definition in float64."""

import pytest
import torch
from torch import Tensor, nn

from metarl.networks.gru_kernel import gru_sequence
from metarl.networks.memory import CORES, AttentionCore, Core, MemoryName

T, L, F, H = 12, 5, 4, 8


def core_of(name: MemoryName) -> Core:
    return CORES[name](F, H, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    # 600 steps are longer than the blocks in which kernels of attention work.
    ("name", "steps"),
    [*((name, T) for name in CORES), ("attention", 600)],
)
def test_stepwise_and_whole_sequence_agree(name, steps):
    core = core_of(name)
    features = torch.randn(steps, L, F, generator=torch.Generator().manual_seed(1))
    state, outputs = core.initial_state(L), []
    for now in features.unbind(0):
        output, state = core.step(now, state)
        outputs.append(output)
    torch.testing.assert_close(torch.stack(outputs), core.sequence(features), rtol=0, atol=1e-5)


def test_our_gru_is_torchs_gru_forward_and_backward_in_float64():
    torch.manual_seed(0)  # weights of the foreign module only
    gru = nn.GRU(F, H).double()
    ours = torch.randn(T, L, F, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    weight = torch.randn(T, L, H, dtype=torch.float64)
    parameters = [gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0]

    expected, _ = gru(theirs)
    result = gru_sequence(ours, *parameters)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)

    slow = torch.autograd.grad((expected * weight).sum(), [theirs, *parameters])
    fast = torch.autograd.grad((result * weight).sum(), [ours, *parameters])
    for one, two in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


def test_our_gru_passes_finite_differences():
    generator = torch.Generator().manual_seed(2)
    shapes = [(3, 2, F), (3 * H, F), (3 * H, H), (3 * H,), (3 * H,)]
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in shapes
    ]
    assert torch.autograd.gradcheck(gru_sequence, inputs)


def attention_by_definition(core: AttentionCore, features: Tensor) -> Tensor:
    """Step by step, lane by lane, head by head: the exponentials written out; [T, L, H]."""
    hidden, _ = core.gru.gru(features)
    both = torch.cat((hidden, features), -1)
    queries, entries = core.query(both), core.entry(both)
    outputs = []
    for t in range(T):
        for lane in range(L):
            read = []
            for columns in torch.arange(H).chunk(core.width_multiple):
                query = queries[t, lane, columns]
                keys = entries[: t + 1, lane, columns]
                values = entries[: t + 1, lane, H + columns]
                weight = ((keys @ query) / len(columns) ** 0.5).exp()
                read.append((weight / weight.sum()) @ values)
            outputs.append(core.merge(torch.cat((both[t, lane], *read))).relu())
    return torch.stack(outputs).view(T, L, H)


def test_attention_is_its_definition_forward_and_backward_in_float64():
    core = core_of("attention").double()
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(T, L, F, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(T, L, H, generator=generator, dtype=torch.float64)
    result, expected = core.sequence(features), attention_by_definition(core, features)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    inputs = [features, *core.parameters()]
    fast = torch.autograd.grad((result * weight).sum(), inputs)
    slow = torch.autograd.grad((expected * weight).sum(), inputs)
    for one, two in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", list(CORES))
def test_what_comes_later_changes_nothing_that_was_said(name):
    core = core_of(name)
    features = torch.randn(T, L, F, generator=torch.Generator().manual_seed(1))
    later = features.clone()
    later[7:] += 1.0
    one, two = core.sequence(features), core.sequence(later)
    assert torch.equal(one[:7], two[:7])
    assert not torch.equal(one[7:], two[7:])
