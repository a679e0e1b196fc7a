"""Ranks as `torchrun` starts them: processes joined by `torch.distributed`.

On CPUs the backend is gloo, on GPUs NCCL for tensors there. A rank that ends breaks the connections
of the others, whose next sum then fails at once; one that hangs is given up after an
hour, because the others also wait for what rank 0 does alone, such as an evaluation.
"""

import atexit
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, final

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from metarl.errors import RankError
from metarl.ranks import ALONE, Ranks, report_of
from metarl.training.launcher import started_ranks

Value = TypeVar("Value")
TIMEOUT = timedelta(hours=1)
"""after which a rank that does not answer is given up"""
PARTING_SECONDS = 3.0
"""that a rank waits for the others at its end"""


def joined_ranks(device: str) -> Ranks:
    """The processes that `torchrun` has started, joined; one process is alone.

    They stay joined until the process ends: torch cannot join the same processes a second time.

    Raises:
        RankError: they could not be joined.
    """
    if started_ranks() == 1:
        return ALONE
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        try:
            store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
            distributed.init_process_group(
                backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT
            )
        except (RuntimeError, ValueError) as error:
            raise RankError(f"The ranks could not be joined: {error}") from error
        atexit.register(_part, store, size)
    return ProcessRanks()


def _part(store: Store, size: int) -> None:
    """Ends the connections when all ranks have come so far, or some have ended otherwise.

    A rank that ends its connections while another still waits for its part of a sum looks as if it
    had failed.
    """
    deadline = time.monotonic() + PARTING_SECONDS
    with suppress(RuntimeError):  # the store ends with torchrun
        parted = store.add("metarl/parted", 1)
        while parted < size and time.monotonic() < deadline:
            time.sleep(0.01)
            parted = store.add("metarl/parted", 0)
    if distributed.is_initialized():
        distributed.destroy_process_group()


@final
class ProcessRanks(Ranks):
    """All processes of the default group of `torch.distributed`."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def sum(self, value: Tensor) -> Tensor:
        """By an all-reduce."""
        total = value.detach().clone()
        with _naming_lost_ranks():
            distributed.all_reduce(total)
        return total

    def gather(self, value: Value) -> list[Value]:
        """By an all-gather of pickled values."""
        values: list[Any] = [None] * self.size
        with _naming_lost_ranks():
            distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], Value]) -> Value:
        """By a broadcast of the pickled value, or of the error's text."""
        error: Exception | None = None
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer[0] = make()
            except Exception as caught:  # raised below, when the others know of it
                error, answer[1] = caught, report_of(caught)
        with _naming_lost_ranks():
            distributed.broadcast_object_list(answer)
        if error is not None:
            raise error
        if answer[1] is not None:
            raise answer[1].as_error(0)
        made: Value = answer[0]
        return made


@contextmanager
def _naming_lost_ranks() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason, _, _ = str(error).partition(" This is typically")  # an advice of gloo
        raise RankError(
            f"Another rank has ended or does not answer, so this one ends, too ({reason}). The "
            "message of that rank, or of the system that ended it, says why. When the cause is "
            "removed, continue with --resume."
        ) from error
