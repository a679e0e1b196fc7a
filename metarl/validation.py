"""Checks of option values, which raise `ConfigError`."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gymnasium import Space, spaces

from metarl.errors import ConfigError

if TYPE_CHECKING:
    import torch


def as_device(name: str) -> "torch.device":
    """The torch device of this name.

    Raises:
        ConfigError: torch has no such device, or it is not available.
    """
    import torch  # NOTE: not at the top, because options are checked without torch, too

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={name!r} cannot be used here: {reason}. Use 'cpu', or 'cuda' where torch "
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


def vector_size(space: Space[Any]) -> int:
    """The number of components D of an observation space.

    Raises:
        ConfigError: it is not a Box of vectors [D].
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ConfigError(f"Observations must be a Box vector [D]; got {space}.")
    return int(space.shape[0])


def require_known(
    owner: str, given: Iterable[str], known: Sequence[str], others: Iterable[str] = ()
) -> None:
    """Raises `ConfigError` unless all options given are known.

    Args:
        owner: name of the agent or family that has the options, for the message.
        given: names of the options given.
        known: names of the options that exist.
        others: further names to suggest from.
    """
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{owner} has no option {name!r}.{suggestion(name, [*known, *others])} Its "
                f"options: {', '.join(known) or 'none'}."
            )


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name, or nothing if none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
