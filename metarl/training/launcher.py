"""What `torchrun` tells the processes that it starts, in the environment; imports no torch."""

import os
import sys
import time

from metarl.errors import ConfigError

SECONDS_TO_SAY = 5.0
"""that the first rank has to start and to say what is wrong with its options"""
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def started_ranks() -> int:
    """The processes that `torchrun` has started to train together; 1 without it.

    Raises:
        ConfigError: the environment says no whole number.
    """
    if not all(os.environ.get(name) for name in _VARIABLES):
        return 1
    return _whole_number("WORLD_SIZE")


def is_first_rank() -> bool:
    """Whether this process is the one of the ranks that writes files and reports."""
    return started_ranks() == 1 or _whole_number("RANK") == 0


def leave_to_first_rank() -> None:
    """On the other ranks, waits until the first one has ended with the error that all have found.

    `torchrun` ends all ranks as soon as one has failed, so the first must not be the last to say
    why. It then ends this process, whose exit code counts only if it does not.
    """
    if not is_first_rank():
        time.sleep(SECONDS_TO_SAY)


def are_joined() -> bool:
    """Whether this process is joined with the other ranks already."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and bool(distributed.is_initialized())


def device_of_rank(device: str) -> str:
    """`cuda` becomes the GPU with the number of this rank on its machine, if there are several."""
    if device != "cuda" or started_ranks() == 1:
        return device
    return f"cuda:{_whole_number('LOCAL_RANK')}"


def require_one_process(what: str) -> None:
    """Raises `ConfigError` where `torchrun` has started several processes."""
    if started_ranks() > 1:
        raise ConfigError(
            f"torchrun has started {started_ranks()} processes, and {what} runs in one. Several "
            "processes can only train a run together: torchrun ... -m metarl train AGENT TASK."
        )


def _whole_number(name: str) -> int:
    text = os.environ[name]
    if not text.isdecimal():
        raise ConfigError(
            f"The environment variable {name} is {text!r}, but torchrun sets it to a whole number. "
            "Start with torchrun, or unset it."
        )
    return int(text)
