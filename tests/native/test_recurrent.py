"""The compiled library against the definition in torch, in float64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from metarl.native import library
from metarl.native.recurrent import MAX_DISTINCT, Recurrence, can_run, run, step


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
            got.double(),
            slow[name],
            rtol=0,
            atol=1e-5 * max(1.0, scale),
            msg=lambda m, n=name: n + m,
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


def test_a_step_is_a_sequence_of_one(build):
    layer = recurrence(nn.LSTM, 6, 9, True)
    x, (hidden, cell) = examples(nn.LSTM, 4, 11, 6, 9, False)
    whole, (last_hidden, last_cell) = run(layer, x, (hidden, cell))
    state = (hidden, cell)
    for t, now in enumerate(x):
        output, state = step(layer, now, state)
        torch.testing.assert_close(output, whole[t], rtol=0, atol=1e-6)
    torch.testing.assert_close(state, (last_hidden, last_cell), rtol=0, atol=1e-6)


def test_the_last_cell_has_a_gradient_of_its_own(build):
    layer = recurrence(nn.LSTM, 3, 5, True)
    x, state = examples(nn.LSTM, 4, 7, 3, 5, False)
    weight = layer.core.weight_ih_l0
    _, (_, cell) = run(layer, x, state)
    exact = doubled(layer)
    expected = by_torch(exact, x.double(), tuple(value.double() for value in state))[1]
    (got,) = torch.autograd.grad(cell.sum(), weight)
    (slow,) = torch.autograd.grad(expected.sum(), exact.core.weight_ih_l0)
    torch.testing.assert_close(got.double(), slow, rtol=0, atol=1e-5)


def test_parts_of_the_lanes_may_be_shared_out_among_threads(build, monkeypatch):
    layer = recurrence(nn.GRU, 4, 12, True)
    x, state = examples(nn.GRU, 6, 200, 4, 12, False)
    alone = natively(layer, x, state)[0], gradients(natively, layer, x, state)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    shared = natively(layer, x, state)[0], gradients(natively, layer, x, state)
    assert torch.equal(alone[0], shared[0])
    for name, value in alone[1].items():
        torch.testing.assert_close(shared[1][name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("distinct", [MAX_DISTINCT, MAX_DISTINCT + 1])
def test_more_distinct_inputs_than_the_table_holds_are_embedded_row_by_row(distinct):
    layer = recurrence(nn.GRU, 2, 3, True)
    x = torch.arange(5 * MAX_DISTINCT, dtype=torch.float32).remainder(distinct)
    x = torch.stack((x, -x), -1).view(5, MAX_DISTINCT, 2) / MAX_DISTINCT
    state = torch.zeros(MAX_DISTINCT, 3)
    expected = by_torch(doubled(layer), x.double(), (state.double(),))[0]
    torch.testing.assert_close(run(layer, x, state)[0].double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("where", ["x", "state", "weight"])
@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_nan_goes_through(build, kind, embed, where):
    layer = recurrence(kind, 5, 8, embed)
    x, state = examples(kind, 3, 4, 5, 8, False)
    broken = {"x": x[1, 2], "state": state[0][2], "weight": layer.core.weight_hh_l0[3]}[where]
    with torch.no_grad():
        broken.fill_(torch.nan)
    assert natively(layer, x, state)[0][-1, 2].isnan().any()
    assert any(g.isnan().any() for g in gradients(natively, layer, x, state).values())


def test_what_the_library_does_not_compute_is_left_to_torch():
    layer = recurrence(nn.GRU, 5, 8, True)
    x, state = torch.zeros(2, 3, 5), torch.zeros(3, 8)
    assert can_run(layer, x, state)
    assert not can_run(layer, x.double(), state)
    assert not can_run(layer, x[:, :0], state[:0])
    assert not can_run(layer, x[..., :4], state)
    assert not can_run(layer, x, state[:2])
    assert not can_run(layer, x, state.double())
    assert not can_run(layer, x.clone().requires_grad_(), state)  # the embedding passes nothing on
    assert can_run(Recurrence(layer.core), torch.zeros(2, 3, 8, requires_grad=True), state)


def test_the_switch_turns_the_library_off(monkeypatch):
    monkeypatch.setenv(library.SWITCH, "0")
    library._fastest_build.cache_clear()
    try:
        assert library.library() is None
        assert not can_run(recurrence(nn.GRU, 5, 8, True), torch.zeros(2, 3, 5), torch.zeros(3, 8))
    finally:
        library._fastest_build.cache_clear()
