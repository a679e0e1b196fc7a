"""Loads the compiled library for this processor.

Set `METARL_NATIVE=0` in the environment to compute everything in torch.
"""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

BUILDS = ("_baseline", "_avx2", "_avx512")
"""in the order of `best_build`"""
SWITCH = "METARL_NATIVE"

_FLOATS = ctypes.c_void_p


class Layer(ctypes.Structure):
    """`Layer` of recurrent.h; pointers are addresses of contiguous float32 tensors."""

    _fields_ = (
        ("cell", ctypes.c_int32),
        ("embedded", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("lanes", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("hidden", ctypes.c_int32),
        ("distinct", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("embedding", _FLOATS),
        ("embedding_bias", _FLOATS),
        ("weight_ih", _FLOATS),
        ("weight_hh", _FLOATS),
        ("bias_ih", _FLOATS),
        ("bias_hh", _FLOATS),
        ("x", _FLOATS),
        ("row", _FLOATS),
        ("hidden0", _FLOATS),
        ("cell0", _FLOATS),
        ("packed", _FLOATS),
        ("tape", _FLOATS),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The fastest build that this processor can run; None without one, or if it is switched off."""
    if os.environ.get(SWITCH) == "0":
        return None
    baseline = load("_baseline")
    if baseline is None:
        return None
    for build in reversed(BUILDS[1 : baseline.best_build() + 1]):
        if (fast := load(build)) is not None:
            return fast
    return baseline


def load(build: str) -> ctypes.CDLL | None:
    """One build; None where it was not compiled."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(build + suffix)
        if path.is_file():
            return _with_signatures(ctypes.CDLL(str(path)))
    return None


def _with_signatures(loaded: ctypes.CDLL) -> ctypes.CDLL:
    layer, number = ctypes.POINTER(Layer), ctypes.c_int
    signatures: dict[str, list[type]] = {
        "blocks": [layer],
        "buffer_sizes": [layer, ctypes.POINTER(ctypes.c_int64)],
        "prepare": [layer],
        "forward": [layer, number, number, *[_FLOATS] * 2],
        "backward": [layer, number, number, *[_FLOATS] * 6],
        "finish": [layer, *[_FLOATS] * 7],
        "distinct_rows": [_FLOATS, number, number, number, *[_FLOATS] * 2],
    }
    for name, arguments in signatures.items():
        function = getattr(loaded, name)
        function.argtypes = arguments
        function.restype = number if name in ("blocks", "distinct_rows") else None
    return loaded


def share_out(count: int, threads: int, work: Callable[[int, int, int], None]) -> None:
    """Calls work(part, first, last) for nearly equal parts of range(count), a thread for each."""
    parts = min(count, threads)
    bounds = [part * count // parts for part in range(parts + 1)]
    jobs = [(part, bounds[part], bounds[part + 1]) for part in range(parts)]
    others = [_pool().submit(work, *job) for job in jobs[1:]]
    work(*jobs[0])
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="metarl-native")
