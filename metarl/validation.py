"""Checks of option values, which raise `ConfigError`."""

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

from gymnasium import Space, spaces

from metarl.errors import ConfigError

if TYPE_CHECKING:
    import torch

MAX_INTEGER = 2**63 - 1
"""the largest whole number of NumPy and torch"""


def as_device(name: str) -> "torch.device":
    """The torch device of this name.

    Raises:
        ConfigError: torch has no such device, or it is not available.
    """
    import torch  # NOTE: not at the top, because options are checked without torch, too

    if not isinstance(name, str | torch.device):
        kind = type(name).__name__
        raise ConfigError(f"device must be a text, such as 'cpu'; got a value of type {kind}.")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={name!r} cannot be used here: {reason}. Use 'cpu', or 'cuda' where torch "
            "finds a GPU."
        ) from error


def require_positive(name: str, value: float | None) -> None:
    """Raises `ConfigError` unless the option is None, or greater than zero and finite."""
    if value is not None and not (isinstance(value, Real) and 0 < value < math.inf):
        raise ConfigError(f"{name}={value!r} must be greater than zero, and finite.")
    if isinstance(value, int) and value > MAX_INTEGER:
        raise ConfigError(f"{name}={value!r} is too large: it must be at most {MAX_INTEGER}.")


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raises `ConfigError` unless `low <= value <= high`."""
    if not (isinstance(value, Real) and low <= value <= high):
        raise ConfigError(f"{name}={value!r} must lie between {low} and {high}.")


def vector_size(space: Space[Any]) -> int:
    """The number of components D of an observation space.

    Raises:
        ConfigError: it is not a Box of vectors [D].
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ConfigError(f"Observations must be a Box vector [D]; got {space}.")
    return int(space.shape[0])
