"""Learners as flat dictionaries of tensors, and the check of their gradients."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metarl.errors import CheckpointError, NonFiniteError


def save_learner(module: nn.Module, optimiser: Optimizer, updates: int) -> dict[str, Tensor]:
    """Copies of all parameters, buffers and optimiser moments, and the count of updates."""
    parts = module.state_dict()
    copies = {name: value.detach().clone().contiguous() for name, value in parts.items()}
    return {**copies, **save_moments(optimiser), "updates": torch.tensor(updates)}


def load_learner(module: nn.Module, optimiser: Optimizer, state: Mapping[str, Tensor]) -> int:
    """Restores what `save_learner` returned; returns the count of updates.

    Raises:
        CheckpointError: names or shapes are not those of this module; nothing was changed.
    """
    expected = module.state_dict()
    for name, value in expected.items():
        if name not in state or state[name].shape != value.shape:
            got = list(state[name].shape) if name in state else "nothing"
            raise CheckpointError(
                f"The checkpoint does not fit this agent: {name} should have shape "
                f"{list(value.shape)} and has {got}. It was written by an agent with other "
                "options, or for another task family."
            )
    module.load_state_dict({name: state[name] for name in expected})
    load_moments(optimiser, state)
    return int(state["updates"])


def save_moments(optimiser: Optimizer) -> dict[str, Tensor]:
    """Copies of the state of an optimiser for its parameters."""
    return {
        f"optimiser.{index}.{name}": torch.as_tensor(value).detach().clone().contiguous()
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def load_moments(optimiser: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Restores the state of `save_moments`; `state` may have other entries, too."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = value.clone()
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def require_finite_gradient(norm: Tensor | float, *, learner: str, updates: int) -> None:
    """Raises `NonFiniteError` where the norm of a gradient is NaN or infinite.

    Args:
        norm: of the gradient, a scalar.
        learner: name of the algorithm, for the message.
        updates: so far.
    """
    if not math.isfinite(norm):
        raise NonFiniteError(
            f"The gradient of {learner} became {float(norm)} in update {updates}; "
            "the agent is unchanged. Rewards or observations may be very large, or the learning "
            "rate too high."
        )
