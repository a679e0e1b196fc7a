"""Settings of the process that make many small tensor operations fast on a CPU.

Both were measured on two cores, with RL^2 on 2048 lanes:

* GNU OpenMP lets a waiting thread spin for milliseconds. That is fast on an idle machine, but where
  another job shares the cores it cost a factor of ten and more, at times. Spinning for about a
  tenth of that keeps all but 8% of the speed on an idle machine and sleeps out the rest.
* glibc gives freed tensors back to the system at once and pays page faults for the next ones,
  a tenth of an update. Keeping freed memory for reuse avoids that.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def spin_briefly() -> None:
    """Bounds the spinning of OpenMP threads, unless the user has chosen; before torch is loaded."""
    if "torch" not in sys.modules and not _user_has_chosen():
        os.environ["GOMP_SPINCOUNT"] = "30000"


def spins_long() -> bool:
    """Whether torch was loaded before `spin_briefly` could help, and nobody else has chosen."""
    return not _user_has_chosen()


def _user_has_chosen() -> bool:
    return not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}.isdisjoint(os.environ)


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
