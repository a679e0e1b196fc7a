"""Checks of options: each raises a `ConfigError` for a value that cannot be used."""

import math

import torch

from metarl.errors import ConfigError


def as_device(name: str) -> torch.device:
    """The torch device of this name.

    Raises:
        ConfigError: torch knows no such device, or there is none here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={name!r} cannot be used here: {reason}. Take 'cpu', or 'cuda' where torch "
            "finds a GPU."
        ) from error


def require_positive(name: str, value: float | None) -> None:
    """Raises `ConfigError` unless the option is None, or greater than zero and finite."""
    if value is not None and not 0 < value < math.inf:
        raise ConfigError(f"{name}={value} must be greater than zero, and finite.")


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raises `ConfigError` unless `low <= value <= high`."""
    if not low <= value <= high:
        raise ConfigError(f"{name}={value} must lie between {low} and {high}.")
