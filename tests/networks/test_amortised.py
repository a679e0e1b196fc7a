"""The generated policy head against its definition; what all memories do: `test_recurrent.py`."""

import math

import pytest
import torch
from torch import Tensor

from metarl.errors import ConfigError
from metarl.networks.amortised import AmortisedCore, AmortisedOptions
from metarl.networks.memory import InputSizes, PolicyInputs
from tests.networks.builders import generator

T, L, H, D, A = 6, 3, 8, 3, 2
SIZES = InputSizes(D, A)


def core() -> AmortisedCore:
    made = AmortisedOptions().build(SIZES, H, generator()).double()
    torch.nn.init.normal_(made.emit.weight, std=0.3, generator=generator(3))
    return made


def random_values() -> Tensor:
    return torch.randn(T, L, SIZES.total, generator=generator(1), dtype=torch.float64)


@torch.no_grad()
def logits(memory: AmortisedCore, values: Tensor) -> Tensor:
    """Of the last step, [L, A]."""
    features, _ = memory.sequence(PolicyInputs(values, SIZES), memory.initial_state(L, 0))
    assert features.shape == (T, L, H)
    result: Tensor = memory.policy_head(A)(features)[-1]
    return result


@torch.no_grad()
def test_the_head_is_that_of_the_definition():
    memory, values = core(), random_values()
    embedding = memory.embedding(values[..., :D])
    found = logits(memory, values)
    for lane in range(L):
        codes = []
        for s in range(T - 1):
            after = values[s + 1, lane]
            rewarded = after[D : D + A] * after[D + A]
            codes.append(memory.code(torch.cat((embedding[s, lane], after, rewarded))).relu())
        count = torch.tensor([math.log(1 + len(codes))], dtype=torch.float64)
        context = memory.context(torch.cat((torch.stack(codes).mean(0), count))).relu()
        mean, log_variance = memory.emit(context).view(2, A, H + 1)
        seen = torch.cat((embedding[-1, lane].relu(), torch.ones(1, dtype=torch.float64)))
        for action in range(A):
            variance = float(log_variance[action].exp() @ seen.square())
            expected = float(mean[action] @ seen) / math.sqrt(1 + math.pi * variance / 8)
            assert float(found[lane, action]) == pytest.approx(expected, rel=1e-9)


def test_the_order_of_earlier_transitions_changes_nothing():
    """Where all observations are equal, a transition is what followed it, which can be permuted."""
    memory, values = core(), random_values()
    values[..., :D] = 0.7
    permuted = values.clone()
    permuted[1:5] = values[torch.tensor([3, 1, 4, 2])]
    assert not torch.equal(permuted, values)
    one = logits(memory, values)
    torch.testing.assert_close(logits(memory, permuted), one)
    values[2, :, D:] += 1.0  # another transition
    assert not torch.allclose(logits(memory, values), one)


@torch.no_grad()
def test_uncertain_weights_make_actions_more_even():
    memory, sizes = core(), []
    for log_variance in (-50.0, 0.0, 3.0):
        memory.emit.bias[(H + 1) * A :] = log_variance
        sizes.append(float(logits(memory, random_values()).abs().sum()))
    assert sizes[0] > sizes[1] > sizes[2] > 0


@pytest.mark.parametrize("hidden_size", [1, 2])
def test_features_that_hold_no_more_than_the_policy_are_refused(hidden_size):
    with pytest.raises(ConfigError, match=f"hidden_size={hidden_size} must exceed the 2 outputs"):
        AmortisedOptions().build(SIZES, hidden_size, generator())
