"""The numbers of independent random streams by the compiled library, bit by bit those of torch.

Axes: `K` steps, `L` lanes, `E` elements.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.native.library import Draw, address, library, new_memory, require_library


class Addresses(NamedTuple):
    """Which numbers of the streams: E from `counter` on in the first of K steps."""

    counter: int
    stride: int
    """from one step to the next"""
    elements: int
    steps: int


def can_draw(keys: Tensor) -> bool:
    """Whether the library serves streams with these keys."""
    return keys.device.type == "cpu" and keys.dtype == torch.int64 and library() is not None


def words(keys: Tensor, at: Addresses) -> Tensor:
    """64 random bits each, [K, L, E] int64, for keys [L] int64."""
    return _drawn("draw_words", keys, at, torch.int64)


def uniform(keys: Tensor, at: Addresses) -> Tensor:
    """Uniform in [0, 1): [K, L, E] float32."""
    return _drawn("draw_uniform", keys, at, torch.float32)


def integers(keys: Tensor, at: Addresses, high: int) -> Tensor:
    """Uniform in 0, ..., high - 1: [K, L, E] int64."""
    return _drawn("draw_integers", keys, at, torch.int64, int(high))


def _drawn(name: str, keys: Tensor, at: Addresses, dtype: torch.dtype, *more: int) -> Tensor:
    keys = keys.contiguous()
    out = new_memory(at.steps, len(keys), at.elements, dtype=dtype)
    draw = Draw(
        keys=address(keys),
        counter=at.counter,
        stride=at.stride,
        lanes=len(keys),
        size=at.elements,
        steps=at.steps,
    )
    getattr(require_library(), name)(draw, *more, address(out))
    return out
