from collections.abc import Callable
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.autograd.functional import hvp, jacobian, jvp

from metarl.networks import stacked_mlp
from metarl.networks.stacked_mlp import StackedMLP, times

M, N, F = 17, 3, 4

NETWORKS = {
    f"{activation}-{len(hidden)}-{'learned' if learned else 'fixed'}": StackedMLP(
        sizes=(F, *hidden, 2), constants=2, activation=activation, learn_constants=learned
    )
    for activation in ("tanh", "relu")
    for hidden in ((6,), (6, 5), (5, 6, 4))
    for learned in (True, False)
}
NETWORKS |= {"linear": StackedMLP(sizes=(F, 2)), "bare": StackedMLP(sizes=(F, 6, 5, 3))}
EVERY_NETWORK = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


@pytest.fixture(params=[2**18, 64], ids=["whole", "parts"])
def part_size(request, monkeypatch):
    """Samples all at once, or a few at a time: 64 numbers are 3 samples of 3 tasks by 6."""
    monkeypatch.setattr(stacked_mlp, "PART", request.param)


def random(*shape: int, seed: int) -> Tensor:
    """Normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def problem(network: StackedMLP) -> tuple[Tensor, Tensor, Tensor]:
    """Parameters [N, P], inputs [M, N, F] and a direction [N, P]."""
    params, direction = random(2, N, network.size, seed=0)
    return params, random(M, N, F, seed=1), direction


def one_task(network: StackedMLP, params: Tensor, inputs: Tensor) -> Tensor:
    """The definition, for the parameters [P] and inputs [M, F] of one task; dist_params [M, R]."""
    value, start = inputs, 0
    for layer, (before, after) in enumerate(pairwise(network.sizes)):
        weight = params[start : start + before * after].view(before, after)
        start += before * after
        value = value @ weight + params[start : start + after]
        start += after
        if layer < len(network.sizes) - 2:
            value = torch.tanh(value) if network.activation == "tanh" else torch.relu(value)
    constants = params[start:] if network.learn_constants else params[start:].detach()
    return torch.cat((value, constants.expand(len(value), -1)), 1)


def loss_of_one_task(dist_params: Tensor) -> Tensor:
    """A loss whose Hessian couples all samples and distribution parameters of a task."""
    weight = random(*dist_params.shape, seed=5)
    return (dist_params.sin() * weight).sum() + 0.5 * (dist_params * weight).sum().square() / len(
        dist_params
    )


def loss_of_all(dist_params: Tensor) -> Tensor:
    """The sum over tasks, for dist_params [M, N, R]."""
    return sum((loss_of_one_task(one) for one in dist_params.unbind(1)), dist_params.new_zeros(()))


def raw_hvp_of(dist_params: Tensor) -> Callable[[Tensor], Tensor]:
    """Products of the Hessian by dist_params with a tangent of dist_params, [M, N, R]."""
    return lambda tangent: hvp(loss_of_all, dist_params, tangent)[1]


@cache
def task_by_task(network: StackedMLP) -> dict[str, Tensor]:
    """All that the network computes, one task after the other, by automatic differentiation."""
    found: dict[str, list[Tensor]] = {"outputs": [], "gradient": [], "tangent": [], "hvp": []}
    params, inputs, direction = problem(network)
    for observed, here, along in zip(inputs.unbind(1), params, direction, strict=True):

        def dist_params(params: Tensor, observed: Tensor = observed) -> Tensor:
            return one_task(network, params, observed)

        def loss(params: Tensor, dist_params: Callable[[Tensor], Tensor] = dist_params) -> Tensor:
            return loss_of_one_task(dist_params(params))

        found["outputs"].append(dist_params(here))
        found["gradient"].append(jacobian(loss, here))
        found["tangent"].append(jvp(dist_params, here, along)[1])
        found["hvp"].append(hvp(loss, here, along)[1])
    axis = {"outputs": 1, "gradient": 0, "tangent": 1, "hvp": 0}
    return {name: torch.stack(parts, axis[name]) for name, parts in found.items()}


def all_at_once(
    network: StackedMLP, params: Tensor, inputs: Tensor, direction: Tensor
) -> dict[str, Tensor]:
    """The same with all tasks in one batch."""
    forward = network.forward(params, inputs)
    cotangent = jacobian(loss_of_all, forward.dist_params)
    backward = network.backward(params, forward, cotangent)
    tangent = network.tangent(params, forward, direction)
    product = network.hvp(params, forward, backward, direction, raw_hvp_of(forward.dist_params))
    return {
        "outputs": network.outputs(params, inputs),
        "gradient": backward.gradient,
        "tangent": tangent,
        "hvp": product,
    }


@EVERY_NETWORK
@pytest.mark.usefixtures("part_size")
def test_outputs_and_derivatives_are_their_definitions(network):
    torch.testing.assert_close(
        all_at_once(network, *problem(network)), task_by_task(network), rtol=1e-10, atol=1e-10
    )


def test_decisions_are_split_into_parts(monkeypatch):
    # Otherwise the cases "parts" might compute the same as "whole".
    network, calls = NETWORKS["bare"], []

    def counted(*given: Tensor | None) -> Tensor:
        calls.append(len(given[0]))
        return times(*given)

    monkeypatch.setattr(stacked_mlp, "times", counted)
    params, inputs, _ = problem(network)
    network.outputs(params, inputs)
    assert calls == [17] * 3
    calls.clear()
    monkeypatch.setattr(stacked_mlp, "PART", 64)
    network.outputs(params, inputs)
    assert calls == [3] * 15 + [2] * 3


@EVERY_NETWORK
def test_the_hessian_is_symmetric(network):
    params, inputs, direction = problem(network)
    other = random(N, network.size, seed=9)
    one = all_at_once(network, params, inputs, direction)["hvp"]
    two = all_at_once(network, params, inputs, other)["hvp"]
    torch.testing.assert_close((one * other).sum(1), (two * direction).sum(1))


def test_fixed_constants_receive_no_derivative():
    network = NETWORKS["tanh-2-fixed"]
    found = all_at_once(network, *problem(network))
    for name in ("gradient", "hvp"):
        assert not found[name][:, -2:].any()
        assert found[name][:, :-2].all()
    assert not found["tangent"][..., -2:].any()
    params, inputs, _ = problem(network)
    dist_params = network.outputs(params, inputs)
    torch.testing.assert_close(dist_params[..., -2:], params[:, -2:].expand(M, N, 2))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("decisions", [400, 3])
@pytest.mark.parametrize("compiled", [True, False])
def test_single_precision_is_near_double(activation, decisions, compiled, monkeypatch):
    # In torch, 1,200 decisions of all tasks take the fast paths on a CPU, 9 do not.
    if not compiled:
        monkeypatch.setattr(stacked_mlp, "can_run", lambda *_: False)
    network = StackedMLP(sizes=(F, 32, 32, 2), constants=2, activation=activation)
    params, direction = random(2, N, network.size, seed=0) / 4
    given = params, random(decisions, N, F, seed=1), direction
    found = all_at_once(network, *(value.float() for value in given))
    for name, expected in all_at_once(network, *given).items():
        assert found[name].dtype == torch.float32
        error = (found[name] - expected).norm() / expected.norm()
        assert error < 1e-4, name


def pick(found: dict[str, Tensor], tasks: list[int]) -> dict[str, Tensor]:
    """Results of some of the tasks."""
    return {
        name: value[:, tasks] if value.ndim == 3 else value[tasks] for name, value in found.items()
    }


@pytest.mark.parametrize("name", ["tanh-2-learned", "relu-2-learned"])
@pytest.mark.usefixtures("part_size")
def test_tasks_in_one_batch_give_the_same_results_as_alone(name):
    network = NETWORKS[name]
    params, inputs, direction = problem(network)
    together = all_at_once(network, params, inputs, direction)
    for task in range(N):
        alone = all_at_once(network, params[[task]], inputs[:, [task]], direction[[task]])
        torch.testing.assert_close(alone, pick(together, [task]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh-2-learned", "relu-2-learned"])
def test_permuting_tasks_permutes_results(name):
    network, order = NETWORKS[name], [2, 0, 1]
    params, inputs, direction = problem(network)
    together = all_at_once(network, params, inputs, direction)
    moved = all_at_once(network, params[order], inputs[:, order], direction[order])
    torch.testing.assert_close(moved, pick(together, order), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(moved["gradient"], together["gradient"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_memory_layout_of_tensors_does_not_matter(dtype):
    network = NETWORKS["tanh-2-learned"]
    params, _, direction = (value.to(dtype) for value in problem(network))
    inputs = random(400, N, F, seed=1).to(dtype)
    expected = all_at_once(network, params, inputs, direction)
    found = all_at_once(
        network,
        params.T.contiguous().T,
        inputs.transpose(0, 1).contiguous().transpose(0, 1),
        direction.T.contiguous().T,
    )
    accuracy = {"rtol": 1e-4, "atol": 1e-3} if dtype == torch.float32 else {}
    torch.testing.assert_close(found, expected, **accuracy)


def test_parameters_may_be_shared_by_all_tasks_without_a_copy():
    network = NETWORKS["tanh-2-learned"]
    params, inputs, direction = problem(network)
    shared = params[0].expand(N, -1), inputs, direction[0].expand(N, -1)
    copied = [value.contiguous() for value in shared]
    torch.testing.assert_close(all_at_once(network, *shared), all_at_once(network, *copied))


@pytest.mark.usefixtures("part_size")
def test_arguments_are_not_modified():
    # Products with one Hessian reuse both passes, and activations are computed in place.
    network = NETWORKS["tanh-2-learned"]
    given = problem(network)
    before = [value.clone() for value in given]
    forward = network.forward(given[0], given[1])
    dist_params = forward.dist_params.clone()
    backward = network.backward(given[0], forward, torch.ones_like(dist_params))
    first = backward.gradient.clone()
    product, again = (
        network.hvp(given[0], forward, backward, given[2], raw_hvp_of(dist_params))
        for _ in range(2)
    )
    assert torch.equal(product, again)
    assert torch.equal(forward.dist_params, dist_params)
    assert torch.equal(backward.gradient, first)
    assert all(map(torch.equal, given, before))


@pytest.mark.parametrize(
    "shape", [(400, 3, 9, 5), (1024, 1, 9, 1), (400, 3, 4, 5), (600, 2, 1, 1), (2, 3, 9, 5)]
)
@pytest.mark.parametrize("biased", [True, False])
def test_products_of_every_task_are_those_of_a_batch_of_matrices(shape, biased):
    decisions, tasks, size, width = shape
    inputs, weight = random(decisions, tasks, size, seed=0), random(tasks, size, width, seed=1)
    bias = random(tasks, width, seed=2) if biased else None
    expected = torch.bmm(inputs.transpose(0, 1), weight).transpose(0, 1)
    expected = expected if bias is None else expected + bias
    torch.testing.assert_close(times(inputs, weight, bias), expected)
    single = times(inputs.float(), weight.float(), None if bias is None else bias.float())
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)
    transposed = weight.mT.contiguous().mT.float()  # as in the backward pass
    single = times(inputs.float(), transposed, None if bias is None else bias.float())
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)


def test_initial_parameters():
    network = StackedMLP(sizes=(3, 40, 50, 2), constants=2)
    # 3 * 40 + 40, 40 * 50 + 50, 50 * 2 + 2, and 2 constants
    assert network.size == 160 + 2050 + 102 + 2
    constants = torch.tensor([-0.5, 0.25])
    params = network.initial(constants, torch.Generator().manual_seed(0))
    assert params.shape == (network.size,)
    first, second, last = params[:120], params[160:2160], params[2210:2310]
    # Xavier: uniform up to sqrt(6 / (inputs + outputs)), whose deviation is that over sqrt(3).
    for weight, width, scale in ((first, 43, 1), (second, 90, 1), (last, 52, 0.01)):
        bound = scale * (6 / width) ** 0.5
        assert 0.9 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
    for biases in (params[120:160], params[2160:2210], params[2310:2312]):
        assert not biases.any()
    assert torch.equal(params[-2:], constants)
    again, other = (
        network.initial(constants, torch.Generator().manual_seed(seed)) for seed in (0, 1)
    )
    assert torch.equal(params, again)
    assert not torch.equal(params, other)
