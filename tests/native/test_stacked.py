"""Stacked networks by the compiled library, against torch in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.native.stacked import can_run
from metarl.networks.stacked_mlp import StackedMLP

NETWORKS = {
    "point": StackedMLP(sizes=(2, 64, 64, 2), constants=2),
    "relu": StackedMLP(sizes=(2, 64, 64, 2), constants=2, activation="relu"),
    "fixed": StackedMLP(sizes=(5, 32, 2), constants=2, learn_constants=False),
    "odd": StackedMLP(sizes=(7, 33, 17, 9, 5)),
    "wide": StackedMLP(sizes=(40, 16, 48, 35), constants=3, activation="relu"),
    "linear": StackedMLP(sizes=(3, 2), constants=1),
}
EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def problem(network: StackedMLP, *, samples: int, tasks: int) -> dict[str, Tensor]:
    outputs = network.sizes[-1] + network.constants
    return {
        "params": random(tasks, network.size, seed=0) / max(network.sizes) ** 0.5,
        "inputs": random(samples, tasks, network.sizes[0], seed=1),
        "cotangent": random(samples, tasks, outputs, seed=2),
        "direction": random(tasks, network.size, seed=3) / max(network.sizes) ** 0.5,
        "curvature": random(samples, tasks, outputs, seed=4),
    }


def passes(network: StackedMLP, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """All that a network computes, for a loss whose Hessian is diagonal."""
    params, inputs, cotangent, direction, curvature = given.values()
    forward = network.forward(params, inputs)
    assert (forward.compiled is not None) == (params.dtype == torch.float32)
    backward = network.backward(params, forward, cotangent)
    return {
        "outputs": network.outputs(params, inputs),
        "dist_params": forward.dist_params,
        "kept gradient": backward.gradient,
        "gradient": network.gradient(params, forward, cotangent),
        "tangent": network.tangent(params, forward, direction),
        "hvp": network.hvp(params, forward, backward, direction, lambda d: d * curvature),
    }


def require_equal(network: StackedMLP, *, samples: int, tasks: int) -> None:
    single = problem(network, samples=samples, tasks=tasks)
    exact = passes(network, {name: value.double() for name, value in single.items()})
    for name, got in passes(network, single).items():
        scale = max(1.0, float(exact[name].abs().max()))
        torch.testing.assert_close(
            got.double(), exact[name], rtol=0, atol=1e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@EVERY_NETWORK
@pytest.mark.parametrize(("samples", "tasks"), [(1, 1), (13, 3), (200, 2)])
def test_all_passes_are_those_of_torch(build, network, samples, tasks):
    require_equal(network, samples=samples, tasks=tasks)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 70), min_size=2, max_size=5),
    st.integers(0, 3),
    st.sampled_from(["tanh", "relu"]),
    st.booleans(),
    st.integers(1, 200),
    st.integers(1, 4),
)
def test_networks_of_any_shape_are_served(sizes, constants, activation, learned, samples, tasks):
    network = StackedMLP(
        sizes=tuple(sizes), constants=constants, activation=activation, learn_constants=learned
    )
    require_equal(network, samples=samples, tasks=tasks)


@EVERY_NETWORK
def test_threads_change_rounding_alone(build, network, monkeypatch):
    given = problem(network, samples=450, tasks=3)
    alone = passes(network, given)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for name, got in passes(network, given).items():
        summed = "gradient" in name or name == "hvp"
        accuracy = {"rtol": 1e-4, "atol": 1e-4} if summed else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(got, alone[name], **accuracy)


@pytest.mark.parametrize("hidden", [(16, 21), (21,)])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["params", "inputs", "cotangent", "direction", "curvature"])
def test_numbers_that_are_not_finite_go_where_those_of_torch_go(
    build, name, value, activation, hidden
):
    network = StackedMLP(sizes=(3, *hidden, 2), constants=2, activation=activation)
    given = problem(network, samples=110, tasks=2)
    given[name].view(-1)[-5] = value
    exact = passes(network, {name: value.double() for name, value in given.items()})
    for name, got in passes(network, given).items():
        assert torch.equal(got.isnan(), exact[name].isnan()), name
        assert torch.equal(got.isinf(), exact[name].isinf()), name
    assert any(not value.isfinite().all() for value in exact.values())


def test_arguments_are_not_modified_and_may_be_views(build):
    network = NETWORKS["point"]
    given = problem(network, samples=100, tasks=3)
    views = {
        name: value.transpose(0, 1).contiguous().transpose(0, 1) for name, value in given.items()
    }
    before = {name: value.clone() for name, value in views.items()}
    found = passes(network, views)
    torch.testing.assert_close(found, passes(network, given), rtol=0, atol=0)
    torch.testing.assert_close(views, before, rtol=0, atol=0)


def test_other_types_and_what_autograd_records_are_left_to_torch(build):
    params, inputs = random(2, 9, seed=0), random(5, 2, 3, seed=1)
    assert can_run((3, 2), 9, params, inputs)
    assert not can_run((3, 2), 9, params.double(), inputs.double())
    assert not can_run((3, 2), 9, params, inputs[:0])
    assert not can_run((4, 2), 9, params, inputs)
    assert not can_run((3, 2), 8, params, inputs)
    assert not can_run((3, 2), 9, params[:1], inputs)
    params.requires_grad_()
    assert not can_run((3, 2), 9, params, inputs)
    with torch.no_grad():
        assert can_run((3, 2), 9, params, inputs)
