"""A network and its optimiser in, one flat dictionary of tensors out, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metarl.errors import CheckpointError


def save_learner(network: nn.Module, optimiser: Optimizer, updates: int) -> dict[str, Tensor]:
    """Copies of all parameters, buffers and optimiser moments, and the count of updates."""
    parts = {f"network.{name}": value for name, value in network.state_dict().items()}
    copies = {name: value.detach().clone().contiguous() for name, value in parts.items()}
    return {**copies, **save_moments(optimiser), "updates": torch.tensor(updates)}


def load_learner(network: nn.Module, optimiser: Optimizer, state: Mapping[str, Tensor]) -> int:
    """Puts back what `save_learner` returned; returns the count of updates.

    Raises:
        CheckpointError: names or shapes are not those of this network; nothing was changed.
    """
    expected = network.state_dict()
    given = {
        name.removeprefix("network."): value
        for name, value in state.items()
        if name.startswith("network.")
    }
    for name, value in expected.items():
        if name not in given or given[name].shape != value.shape:
            got = list(given[name].shape) if name in given else "nothing"
            raise CheckpointError(
                f"The checkpoint does not fit this agent: {name} should have shape "
                f"{list(value.shape)} and has {got}. It was written by an agent with other "
                "options, or for another task family."
            )
    network.load_state_dict({name: given[name] for name in expected})
    load_moments(optimiser, state)
    return int(state["updates"])


def save_moments(optimiser: Optimizer) -> dict[str, Tensor]:
    """Copies of what an optimiser has gathered about its parameters."""
    return {
        f"optimiser.{index}.{name}": torch.as_tensor(value).detach().clone().contiguous()
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def load_moments(optimiser: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Puts back what `save_moments` returned, alone or among other tensors."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = value.clone()
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
