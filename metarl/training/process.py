"""Process settings for many small tensor operations on a CPU.

* One thread. On an idle machine with two cores a second one gained nothing for RL^2 on 512 lanes
  and trials of 10 steps, and half on trials of 100 steps (`experiments/results/speed.md`). Where
  another job uses the cores, threads wait for each other after every operation, and training was
  ten times slower.
* glibc returns freed tensors to the system at once, and the page faults of the next ones take a
  tenth of an update. Keeping freed memory for reuse avoids them.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within it torch uses this number of CPU threads, afterwards that of the caller."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for the next tensor; does nothing elsewhere."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, 2**30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
