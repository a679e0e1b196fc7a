import pytest
import torch
from torch import nn

from metarl.errors import CheckpointError
from metarl.learning.optimiser_state import load_learner, save_learner


def learner(inputs: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    network = nn.Linear(inputs, 2)
    return network, torch.optim.Adam(network.parameters(), lr=0.1)


def learn(network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    network(torch.ones(1, 3)).square().sum().backward()
    optimiser.step()


def test_a_restored_learner_continues_like_the_original():
    network, optimiser = learner()
    learn(network, optimiser)
    other = learner()
    assert load_learner(*other, save_learner(network, optimiser, 7)) == 7
    for pair in ((network, optimiser), other):
        learn(*pair)
    assert torch.equal(network.weight, other[0].weight)


def test_entries_have_the_names_of_the_module():
    network, _ = learner()
    module = nn.ModuleDict({"network": network, "auxiliary": nn.BatchNorm1d(2)})
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    learn(network, optimiser)
    state = save_learner(module, optimiser, 1)
    assert {name for name in state if not name.startswith("optimiser.")} == {
        "network.weight",
        "network.bias",
        "updates",
        *(f"auxiliary.{name}" for name in nn.BatchNorm1d(2).state_dict()),
    }
    assert torch.equal(state["network.weight"], network.weight)
    learn(network, optimiser)  # the state holds copies
    assert not torch.equal(state["network.weight"], network.weight)


def test_a_learner_restored_without_moments_differs():
    network, optimiser = learner()
    learn(network, optimiser)
    state = save_learner(network, optimiser, 1)
    without_moments = {
        name: value for name, value in state.items() if not name.startswith("optimiser")
    }
    other = learner()
    load_learner(*other, without_moments)
    for pair in ((network, optimiser), other):
        learn(*pair)
    assert not torch.equal(network.weight, other[0].weight)


def test_a_state_of_another_network_is_rejected_and_changes_nothing():
    network, optimiser = learner()
    before = network.weight.detach().clone()
    with pytest.raises(
        CheckpointError, match=r"weight should have shape \[2, 3\] and has \[2, 4\]"
    ):
        load_learner(network, optimiser, save_learner(*learner(4), 1))
    assert torch.equal(network.weight, before)
