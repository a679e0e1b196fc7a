"""The transformer against its definition; what all memories must do is in `test_recurrent.py`."""

import math

import pytest
import torch
from torch import Tensor

from metarl.errors import ConfigError
from metarl.networks.memory import InputSizes, PolicyInputs
from metarl.networks.transformer import (
    TransformerCore,
    TransformerOptions,
    rotated,
)
from tests.networks.builders import generator

T, L, H = 7, 3, 8
SIZES = InputSizes(3, 2)


def normalised(vector: Tensor) -> Tensor:
    """A new layer norm has weight 1 and bias 0."""
    return (vector - vector.mean()) / (vector.var(correction=0) + 1e-5).sqrt()


def turned(vector: Tensor, position: int) -> Tensor:
    """Rotary position as complex numbers: component i and i + half, times exp(i angle)."""
    half = len(vector) // 2
    angle = position * speeds(half)
    turned = torch.complex(vector[:half], vector[half:]) * torch.complex(angle.cos(), angle.sin())
    return torch.cat((turned.real, turned.imag))


def speeds(half: int) -> Tensor:
    """Angle per step of each pair of components, [half] float64."""
    return torch.tensor([10_000.0 ** (-i / half) for i in range(half)], dtype=torch.float64)


def by_definition(core: TransformerCore, features: Tensor) -> Tensor:
    """One lane, [T, H]: layer by layer, step by step, head by head."""
    hidden = list(features)
    for layer in core.layers:
        projected = [layer.projection(normalised(each)).view(3, core.heads, -1) for each in hidden]
        read = []
        for t in range(len(hidden)):
            heads = []
            for m in range(core.heads):
                query = turned(projected[t][0, m], t)
                scores = [query @ turned(projected[s][1, m], s) for s in range(t + 1)]
                weight = (torch.stack(scores) / math.sqrt(core.head_size)).exp()
                values = torch.stack([projected[s][2, m] for s in range(t + 1)])
                heads.append((weight / weight.sum()) @ values)
            read.append(torch.cat(heads))
        for t in range(len(hidden)):
            after = hidden[t] + layer.merge(read[t])
            inner = layer.expand(normalised(after))
            gelu = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
            hidden[t] = after + layer.contract(gelu)
    return torch.stack([normalised(each) for each in hidden])


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (2, 2), (3, 4)])
def test_the_core_and_its_gradients_are_those_of_the_definition_in_float64(layers, heads):
    options = TransformerOptions(layers=layers, heads=heads, context=T)
    core = TransformerCore(options, H, generator=generator()).double()
    core.cosine, core.sine = exact_rotation(core)
    features = torch.randn(T, L, H, generator=generator(1), dtype=torch.float64, requires_grad=True)
    result, _ = core.sequence(features, core.initial_state(L, 0))
    expected = torch.stack([by_definition(core, features[:, lane]) for lane in range(L)], 1)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)
    weight = torch.randn(T, L, H, generator=generator(2), dtype=torch.float64)
    inputs = [features, *(p for name, p in core.named_parameters() if "norm" not in name)]
    fast = torch.autograd.grad((result * weight).sum(), inputs)
    slow = torch.autograd.grad((expected * weight).sum(), inputs)
    for one, two in zip(fast, slow, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-9)


def exact_rotation(core: TransformerCore) -> tuple[Tensor, Tensor]:
    """The table of angles in double precision."""
    angle = torch.arange(core.context).unsqueeze(1) * speeds(core.head_size // 2)
    return angle.cos(), angle.sin()


def test_attention_depends_on_the_distance_of_positions_alone():
    core = TransformerCore(TransformerOptions(heads=1, context=50), H, generator=generator())
    query, key = torch.randn(2, H, generator=generator(1))

    def score(at: int, of: int) -> float:
        one = rotated(query, core.cosine[at], core.sine[at])
        return float(one @ rotated(key, core.cosine[of], core.sine[of]))

    assert score(9, 4) == pytest.approx(score(49, 44), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 3), abs=1e-2)


@torch.no_grad()
def test_rollouts_write_into_memory_that_was_allocated_at_the_start():
    memory = TransformerOptions().build(SIZES, H, generator())
    state = memory.initial_state(L, T)
    rooms = [(past.keys.data_ptr(), past.values.data_ptr()) for past in state]
    for _ in range(T):
        _, state = memory.step(PolicyInputs(torch.randn(L, SIZES.total), SIZES), state)
    assert [(past.keys.data_ptr(), past.values.data_ptr()) for past in state] == rooms
    assert [past.length for past in state] == [T, T]


@torch.no_grad()
def test_a_new_transformer_passes_its_input_on():
    """Each branch starts small, so that features of different inputs differ from the start."""
    core = TransformerCore(TransformerOptions(layers=2), 64, generator=generator())
    features = torch.randn(T, L, 64, generator=generator(1))
    output, _ = core.sequence(features, core.initial_state(L, 0))
    similarity = torch.nn.functional.cosine_similarity(output, features, dim=-1)
    assert float(similarity.min()) > 0.7


def test_trials_longer_than_the_context_are_refused():
    memory = TransformerOptions(context=5).build(SIZES, H, generator())
    message = r"holds 5 steps, but a trial has 6. Give it more \(`context`"
    with pytest.raises(ConfigError, match=message):
        memory.initial_state(L, 6)
    with pytest.raises(ConfigError, match=message):
        memory.sequence(
            PolicyInputs(torch.zeros(6, L, SIZES.total), SIZES), memory.initial_state(L, 0)
        )
    state = memory.initial_state(L, 5)
    with torch.no_grad():
        for _ in range(5):
            _, state = memory.step(PolicyInputs(torch.zeros(L, SIZES.total), SIZES), state)
        with pytest.raises(ConfigError, match=message):
            memory.step(PolicyInputs(torch.zeros(L, SIZES.total), SIZES), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers=0 must lie between 1 and 100"),
        ({"heads": -2}, "heads=-2 must be greater than zero"),
        ({"context": 3}, "context=3 must lie between 4 and"),
        ({"heads": 3}, "hidden_size=8 does not divide into heads=3 of even size"),
        ({"heads": 8}, "must be a multiple of 16"),  # heads of one component cannot turn
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TransformerOptions(**options).build(SIZES, H, generator())
