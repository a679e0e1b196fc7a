"""The compiled library against the definition in torch, in float64."""

import copy
import ctypes

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metarl.native import library
from metarl.native.recurrent import MAX_DISTINCT, Recurrence, can_run, run, step

pytestmark = pytest.mark.skipif(library.load("_baseline") is None, reason="was not compiled")

BUILDS = [
    build
    for rank, build in enumerate(library.BUILDS)
    if (baseline := library.load("_baseline")) is not None
    and rank <= baseline.best_build()
    and library.load(build) is not None
]


@pytest.fixture(params=BUILDS)
def build(request, monkeypatch):
    """Each build that this processor can run."""
    monkeypatch.setattr(
        "metarl.native.library.library", lambda: library.load(request.param)
    )


def recurrence(kind: type[nn.GRU | nn.LSTM], inputs: int, hidden: int, embed: bool) -> Recurrence:
    generator = torch.Generator().manual_seed(inputs + hidden)
    embedding = nn.Linear(inputs, hidden) if embed else None
    core = kind(hidden if embed else inputs, hidden)
    for module in (embedding, core):
        for parameter in [] if module is None else module.parameters():
            parameter.data.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
    return Recurrence(core, embedding)


def by_torch(layer: Recurrence, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs, and the last cell of an LSTM, by torch's own layer."""
    values = inputs if layer.embedding is None else torch.relu(layer.embedding(inputs))
    given = tuple(value.unsqueeze(0) for value in state)
    output, last = layer.core(values, given if len(given) == 2 else given[0])
    return (output, last[1][0]) if len(given) == 2 else (output,)


def natively(layer: Recurrence, inputs: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    output, last = run(layer, inputs, state if len(state) == 2 else state[0])
    return (output, last[1]) if len(state) == 2 else (output,)


def gradients(
    function, layer: Recurrence, inputs: Tensor, state: tuple[Tensor, ...]
) -> dict[str, Tensor]:
    """Of a fixed weighting of all outputs, by every weight, the state and the inputs."""
    state = tuple(value.clone().requires_grad_() for value in state)
    named = {f"state {i}": value for i, value in enumerate(state)}
    if layer.embedding is None:
        inputs = inputs.clone().requires_grad_()
        named["inputs"] = inputs
    else:
        named |= {f"embedding.{name}": p for name, p in layer.embedding.named_parameters()}
    named |= dict(layer.core.named_parameters())
    outputs = function(layer, inputs, state)
    total = sum((value * weighting(value)).sum() for value in outputs)
    return dict(zip(named, torch.autograd.grad(total, list(named.values())), strict=True))


def weighting(value: Tensor) -> Tensor:
    return torch.linspace(-1.0, 1.3, value.numel(), dtype=value.dtype).sin().view_as(value)


def examples(kind, steps, lanes, inputs, hidden, distinct):
    generator = torch.Generator().manual_seed(steps * 1000 + lanes)
    if distinct:
        rows = torch.randn(3, inputs, generator=generator)
        x = rows[torch.randint(3, (steps, lanes), generator=generator)]
    else:
        x = torch.randn(steps, lanes, inputs, generator=generator)
    count = 2 if kind is nn.LSTM else 1
    return x, tuple(torch.randn(lanes, hidden, generator=generator) for _ in range(count))


def doubled(layer: Recurrence) -> Recurrence:
    return Recurrence(*(module and copy.deepcopy(module).double() for module in layer))


def require_equal(kind, steps, lanes, inputs, hidden, embed, distinct):
    layer = recurrence(kind, inputs, hidden, embed)
    x, state = examples(kind, steps, lanes, inputs, hidden, distinct)
    exact_x, exact_state = x.double(), tuple(value.double() for value in state)
    for got, expected in zip(
        natively(layer, x, state), by_torch(doubled(layer), exact_x, exact_state), strict=True
    ):
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=3e-6)
    slow = gradients(by_torch, doubled(layer), exact_x, exact_state)
    for name, got in gradients(natively, layer, x, state).items():
        scale = float(slow[name].abs().max())
        torch.testing.assert_close(
            got.double(), slow[name], rtol=0, atol=1e-5 * max(1.0, scale), msg=lambda m, n=name: n + m
        )


@pytest.mark.usefixtures("build")
@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
@pytest.mark.parametrize(("lanes", "hidden"), [(1, 1), (5, 7), (64, 16), (65, 33), (150, 64)])
def test_outputs_and_gradients_are_those_of_torch(kind, embed, distinct, lanes, hidden):
    require_equal(kind, 5, lanes, 6, hidden, embed, distinct)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([nn.GRU, nn.LSTM]),
    st.integers(1, 20),
    st.integers(1, 140),
    st.integers(1, 20),
    st.integers(1, 80),
    st.booleans(),
    st.booleans(),
)
def test_any_shape_is_served(kind, steps, lanes, inputs, hidden, embed, distinct):
    require_equal(kind, steps, lanes, inputs, hidden, embed, distinct)
