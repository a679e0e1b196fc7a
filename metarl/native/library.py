"""Loads the compiled library for this processor.

Set `METARL_NATIVE=0` in the environment to compute everything in torch.
"""

import ctypes
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

BUILDS = ("_baseline", "_avx2", "_avx512")
"""in the order of `best_build`"""
SWITCH = "METARL_NATIVE"

_FLOATS = ctypes.c_void_p


class Perceptron(ctypes.Structure):
    """`Perceptron` of perceptron.h."""

    _fields_ = (
        ("rows", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("hidden", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("weight1", _FLOATS),
        ("bias1", _FLOATS),
        ("weight2", _FLOATS),
        ("bias2", _FLOATS),
        ("x", _FLOATS),
        ("packed", _FLOATS),
        ("tape", _FLOATS),
    )


class Layer(ctypes.Structure):
    """`Layer` of recurrent_layout.h; pointers are addresses of contiguous float32 tensors."""

    _fields_ = (
        ("cell", ctypes.c_int32),
        ("embedded", ctypes.c_int32),
        ("steps", ctypes.c_int32),
        ("lanes", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("hidden", ctypes.c_int32),
        ("distinct", ctypes.c_int32),
        ("backward", ctypes.c_int32),
        ("all_lanes", ctypes.c_int32),
        ("block", ctypes.c_int32),
        ("embedding", _FLOATS),
        ("embedding_bias", _FLOATS),
        ("weight_ih", _FLOATS),
        ("weight_hh", _FLOATS),
        ("bias_ih", _FLOATS),
        ("bias_hh", _FLOATS),
        ("x", _FLOATS),
        ("row", _FLOATS),
        ("lane", _FLOATS),
        ("hidden0", _FLOATS),
        ("cell0", _FLOATS),
        ("packed", _FLOATS),
        ("tape", _FLOATS),
    )


class PPOStep(ctypes.Structure):
    """`PPOStep` of ppo.h."""

    _fields_ = (
        ("layer", Layer),
        ("policy", Perceptron),
        ("value", Perceptron),
        ("action", _FLOATS),
        ("old_log_prob", _FLOATS),
        ("advantage", _FLOATS),
        ("value_target", _FLOATS),
        ("valid", _FLOATS),
        ("weight", ctypes.c_double),
        ("clip_range", ctypes.c_float),
        ("value_coef", ctypes.c_float),
        ("entropy_coef", ctypes.c_float),
    )


class Draw(ctypes.Structure):
    """`Draw` of noise.h."""

    _fields_ = (
        ("keys", _FLOATS),
        ("counter", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("lanes", ctypes.c_int32),
        ("size", ctypes.c_int32),
        ("steps", ctypes.c_int32),
    )


class ActingStep(ctypes.Structure):
    """`ActingStep` of acting.h."""

    _fields_ = (
        ("layer", Layer),
        ("policy", Perceptron),
        ("value", Perceptron),
        ("observation", ctypes.c_int32),
        ("actions", ctypes.c_int32),
        ("obs", _FLOATS),
        ("previous_action", _FLOATS),
        ("previous_reward", _FLOATS),
        ("flags", _FLOATS * 4),
        ("uniform", _FLOATS),
        ("hidden", _FLOATS),
        ("cell", _FLOATS),
        ("action", _FLOATS),
        ("log_prob", _FLOATS),
        ("values", _FLOATS),
    )


class StackedNet(ctypes.Structure):
    """`StackedNet` of stacked.h."""

    _fields_ = (
        ("tasks", ctypes.c_int32),
        ("samples", ctypes.c_int32),
        ("layers", ctypes.c_int32),
        ("constants", ctypes.c_int32),
        ("relu", ctypes.c_int32),
        ("learn_constants", ctypes.c_int32),
        ("size", ctypes.c_int64),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("params", _FLOATS),
        ("x", _FLOATS),
        ("features", _FLOATS),
    )


class StackedSecond(ctypes.Structure):
    """`StackedSecond` of stacked.h."""

    _fields_ = (
        ("direction", _FLOATS),
        ("tangents", _FLOATS),
        ("cotangent", _FLOATS),
        ("by_features", _FLOATS),
    )


_switches: list[None] = []


def library() -> ctypes.CDLL | None:
    """The fastest build that this processor can run; None without one, or if it is switched off."""
    return None if _switches else _fastest_build()


@contextmanager
def switched_off() -> Iterator[None]:
    """Within it, torch computes everything."""
    _switches.append(None)
    try:
        yield
    finally:
        _switches.pop()


@cache
def _fastest_build() -> ctypes.CDLL | None:
    if os.environ.get(SWITCH) == "0":
        return None
    baseline = load("_baseline")
    if baseline is None:
        return None
    for build in reversed(BUILDS[1 : baseline.best_build() + 1]):
        if (fast := load(build)) is not None:
            return fast
    return baseline


def require_library() -> ctypes.CDLL:
    """The library, which is there: see `serves`."""
    loaded = library()
    assert loaded is not None
    return loaded


def load(build: str) -> ctypes.CDLL | None:
    """One build; None where it was not compiled, or its sources have changed since."""
    folder = Path(__file__).parent
    sources = [path.stat().st_mtime for path in (*folder.glob("*.h"), *folder.glob("*.cpp"))]
    for suffix in EXTENSION_SUFFIXES:
        path = folder / (build + suffix)
        if path.is_file() and path.stat().st_mtime >= max(sources, default=0.0):
            return _with_signatures(ctypes.CDLL(str(path)))
    return None


def compiled_library() -> str | None:
    """The build of the compiled library in use: "avx512", "avx2" or "baseline".

    None where torch computes everything: without a compiler at installation, or with
    `METARL_NATIVE=0` in the environment.
    """
    loaded = library()
    return None if loaded is None else Path(loaded._name).name.partition(".")[0].removeprefix("_")


def is_missed() -> bool:
    """Whether the library is wanted and cannot be used."""
    return library() is None and os.environ.get(SWITCH) != "0"


_ON_BLOCKS = (
    "act",
    "perceptron_backward",
    "perceptron_forward",
    "ppo_gradients",
    "recurrent_backward",
    "recurrent_forward",
    "stacked_backward",
    "stacked_forward",
    "stacked_tangents",
)
"""functions whose blocks are shared out to threads: shared.h"""


def _with_signatures(loaded: ctypes.CDLL) -> ctypes.CDLL:
    layer, net = ctypes.POINTER(Layer), ctypes.POINTER(Perceptron)
    whole, real, sizes = ctypes.c_int, ctypes.c_float, ctypes.POINTER(ctypes.c_int64)
    exact, numbers = ctypes.c_double, ctypes.POINTER(ctypes.c_double)
    stacked = ctypes.POINTER(StackedNet)
    signatures: dict[str, list[Any]] = {
        "recurrent_blocks": [layer],
        "recurrent_sizes": [layer, sizes],
        "recurrent_prepare": [layer],
        "recurrent_finish": [layer, *[_FLOATS] * 7],
        "distinct_rows": [_FLOATS, whole, whole, whole, *[_FLOATS] * 2],
        "perceptron_blocks": [net],
        "perceptron_sizes": [net, sizes],
        "perceptron_prepare": [net],
        "perceptron_finish": [net, *[_FLOATS] * 5],
        "categorical_forward": [whole, whole, ctypes.c_long, *[_FLOATS] * 5],
        "categorical_backward": [whole, whole, ctypes.c_long, *[_FLOATS] * 6],
        "surrogate": [whole, *[_FLOATS] * 7, exact, *[real] * 3, numbers, *[_FLOATS] * 3],
        "acting_sizes": [ctypes.POINTER(ActingStep), sizes],
        "acting_prepare": [ctypes.POINTER(ActingStep)],
        "draw_words": [ctypes.POINTER(Draw), _FLOATS],
        "draw_uniform": [ctypes.POINTER(Draw), _FLOATS],
        "draw_integers": [ctypes.POINTER(Draw), ctypes.c_int64, _FLOATS],
        "ppo_sizes": [ctypes.POINTER(PPOStep), sizes],
        "ppo_prepare": [ctypes.POINTER(PPOStep)],
        "ppo_finish": [ctypes.POINTER(PPOStep), _FLOATS, _FLOATS],
        "stacked_blocks": [stacked],
        "stacked_tape": [stacked],
        "gradient_norm": [whole, _FLOATS, sizes],
        "adam_step": [whole, *[_FLOATS] * 5, sizes, *[exact] * 5],
    }
    signatures |= {f"{name}_shared": [_FLOATS, whole, whole, _FLOATS] for name in _ON_BLOCKS}
    results = {"gradient_norm": exact, "stacked_tape": ctypes.c_int64} | dict.fromkeys(
        ("recurrent_blocks", "distinct_rows", "perceptron_blocks", "stacked_blocks"), whole
    )
    for name, arguments in signatures.items():
        function = getattr(loaded, name)
        function.argtypes = arguments
        function.restype = results.get(name)
    return loaded


def address(value: Tensor | None) -> int | None:
    """Of the first number of a contiguous tensor."""
    return None if value is None else value.data_ptr()


def new_memory(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for the library, whatever torch's defaults for new tensors are; not initialised."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def serves(*values: Tensor) -> bool:
    """Whether the library is there and computes with these tensors; not in a graph of torch."""
    usable = library() is not None and not torch.compiler.is_compiling()
    return usable and all(
        value.dtype == torch.float32 and value.device.type == "cpu" and value.numel() > 0
        for value in values
    )


_own_threads: list[int] = []


def threads() -> int:
    """Threads that the library may use: torch's, or those that `alone` took over."""
    return _own_threads[-1] if _own_threads else torch.get_num_threads()


@contextmanager
def alone(*weights: Tensor) -> Iterator[None]:
    """Within it, torch's threads are the library's, and torch itself uses one.

    Waiting threads of torch spin, which costs the library more than they bring to torch. Nothing
    changes where the library does not compute with these weights.
    """
    before = torch.get_num_threads()
    if before == 1 or not serves(*weights):
        yield
        return
    _own_threads.append(threads())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _own_threads.pop()
        torch.set_num_threads(before)


Address: TypeAlias = int | None
"""None: a null pointer"""


def share_out(
    function: str, step: ctypes.Structure, blocks: int, others: Sequence[Sequence[Address]]
) -> None:
    """Calls a function on blocks of the library for nearly equal parts of them, a thread for each.

    Args:
        function: its name.
        step: its first argument.
        blocks: their number.
        others: its further arguments for each part, of which there are no more than blocks.
    """
    flat = [each for part in others for each in part]
    given = (ctypes.c_void_p * len(flat))(*flat)
    shared = getattr(require_library(), f"{function}_shared")
    shared(ctypes.byref(step), blocks, len(others), given)


MOST_LANES, LEAST_LANES = 64, 8
"""of a block: more leave the cache, and with fewer the products are slow"""


def block_lanes(lanes: int) -> int:
    """Lanes that go through all steps together: fewer where threads would have none otherwise."""
    share = math.ceil(lanes / threads() / 4) * 4
    return min(MOST_LANES, max(LEAST_LANES, share))


def parts_of(blocks: int, least: int = 1) -> int:
    """Threads that are worth having for these blocks, where each has `least` of them or more."""
    return max(1, min(threads(), blocks // least))
