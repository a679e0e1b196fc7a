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
        if bool(state[name].isnan().any()):
            raise CheckpointError(
                f"The checkpoint is damaged: {name} holds NaN, which no finished update leaves."
            )
    updates = state.get("updates")
    if updates is None or updates.numel() != 1 or updates.is_floating_point():
        raise CheckpointError("The checkpoint is damaged: it lacks the count of updates.")
    moments = _moments(optimiser, state)
    module.load_state_dict({name: state[name] for name in expected})
    _set_moments(optimiser, moments)
    return int(updates)


def weights_alone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters and buffers in the state of `save_learner`, as of a learner at its start."""
    weights = {name: value for name, value in state.items() if not name.startswith("optimiser.")}
    return {**weights, "updates": torch.tensor(0)}


def save_moments(optimiser: Optimizer) -> dict[str, Tensor]:
    """Copies of the state of an optimiser for its parameters."""
    return {
        f"optimiser.{index}.{name}": torch.as_tensor(value).detach().clone().contiguous()
        for index, moments in optimiser.state_dict()["state"].items()
        for name, value in moments.items()
    }


def load_moments(optimiser: Optimizer, state: Mapping[str, Tensor]) -> None:
    """Restores the state of `save_moments`; `state` may have other entries, too.

    Raises:
        CheckpointError: the state is not that of an optimiser of these parameters.
    """
    _set_moments(optimiser, _moments(optimiser, state))


def _set_moments(optimiser: Optimizer, moments: Mapping[int, Mapping[str, Tensor]]) -> None:
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def _moments(optimiser: Optimizer, state: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The optimiser's state of each parameter, by the number of the parameter."""
    parameters = [one for group in optimiser.param_groups for one in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if not key.startswith("optimiser."):
            continue
        _, index, *name = key.split(".", 2)
        fits = name and index.isdecimal() and int(index[:9]) < len(parameters)
        if not fits or value.shape not in ((), parameters[int(index)].shape):
            raise CheckpointError(
                f"The checkpoint does not fit this agent: {key[:60]!r} with shape "
                f"{list(value.shape)} belongs to no parameter of its optimiser."
            )
        moments.setdefault(int(index), {})[name[0]] = value.clone()
    names = set().union(*moments.values())
    for number, parts in moments.items():
        if missing := sorted(names - parts.keys()):
            raise CheckpointError(
                f"The checkpoint is damaged: its optimiser lacks {missing[0]} of parameter "
                f"{number}."
            )
    return moments


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
