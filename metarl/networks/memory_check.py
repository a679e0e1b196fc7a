"""Refuses a memory that breaks its contract, when a network is built and before it is trained.

Axes: `T` steps, `L` lanes, `D + A + 5` inputs, `H` features.
"""

import torch
from torch import Tensor

from metarl.errors import ConfigError, MetaRLError
from metarl.networks.memory import InputSizes, MemoryCore, PolicyInputs

_STEPS, _LANES = 4, 3
_TOLERANCE = 1e-3


def require_memory_contract(core: MemoryCore, sizes: InputSizes, hidden_size: int) -> None:
    """Shows a new memory a few steps, one by one and at once.

    Raises:
        ConfigError: features of another shape than [T, L, H], not finite, without a gradient, or
            `step` and `sequence` disagree.
    """
    name = f"The memory {type(core).__name__}"
    if not isinstance(core, MemoryCore):
        raise ConfigError(f"{name} must be a MemoryCore; `build` of its options returned {core!r}.")
    try:
        one_by_one, at_once = _features(core, sizes)
    except MetaRLError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{name} failed on {_STEPS} steps of {_LANES} lanes with {sizes.total} inputs: "
            f"{type(error).__name__}: {error}"
        ) from error
    shape = (_STEPS, _LANES, hidden_size)
    for method, features in (("step", one_by_one), ("sequence", at_once)):
        if features.shape != shape:
            raise ConfigError(
                f"{name}: features of `{method}` over {_STEPS} steps of {_LANES} lanes must be "
                f"{list(shape)}; got {list(features.shape)}."
            )
        if not features.isfinite().all():
            raise ConfigError(f"{name}: features of `{method}` are not finite.")
    if any(each.requires_grad for each in core.parameters()) and not at_once.requires_grad:
        raise ConfigError(f"{name}: features of `sequence` carry no gradient; do not detach them.")
    difference = float((one_by_one - at_once.detach()).abs().max())
    if difference > _TOLERANCE:
        raise ConfigError(
            f"{name}: `step` and `sequence` must return the same features for the same inputs, "
            f"since training replays in one call what acting saw step by step; they differ by "
            f"{difference:.3g}."
        )


def _features(core: MemoryCore, sizes: InputSizes) -> tuple[Tensor, Tensor]:
    """Features of `step`, stacked, and of `sequence`, for the same inputs."""
    numbers = torch.arange(_STEPS * _LANES * sizes.total, dtype=torch.float32)
    values = numbers.sin().view(_STEPS, _LANES, sizes.total)
    state = core.initial_state(_LANES, _STEPS)
    steps = []
    with torch.no_grad():
        for step in values:
            features, state = core.step(PolicyInputs(step, sizes), state)
            steps.append(features)
    with torch.enable_grad():
        state = core.initial_state(_LANES, _STEPS)
        at_once, _ = core.sequence(PolicyInputs(values, sizes), state)
    return torch.stack(steps), at_once
