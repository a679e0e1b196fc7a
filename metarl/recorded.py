"""Work on a GPU that is recorded once and then replayed with a single launch.

Where lanes are few, a GPU waits for Python: a step of rollout is dozens of kernels of microseconds
each. A CUDA graph holds the kernels of a whole function, with the addresses that they read and
write, so that to replay it costs one call. Nothing else of the function happens again: it must
depend on its tensors alone, and read no result back.
"""

import os
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

SWITCH = "METARL_CUDA_GRAPHS"
"""environment variable; 1: a GPU replays what it can"""


class Recorder:
    """Calls one function again and again, and replays it where nothing but numbers has changed."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._function: Callable[..., Any] | None = None  # so that what the key names stays
        self._recording: _Recording | None = None
        self._failed = False

    def __call__(self, key: Hashable, function: Callable[..., Any], *inputs: Tensor) -> Any:
        """`function(*inputs)`, by a replay from the third call in a row with one key on.

        The second call is recorded; the first, which loads libraries and allocates, is not.
        What a replay returns is valid until the next one.

        Args:
            key: equal keys promise that the function, the shapes of its inputs, and the addresses
                and sizes of all other tensors that it reads or writes are those of the call before.
                None: nothing is recorded.
            function: is called, or what it did is replayed.
            inputs: its arguments.
        """
        if key is None or not can_replay(inputs[0]):
            return function(*inputs)
        if key != self._key:
            self._key, self._function = key, function
            self._recording, self._failed = None, False
            return function(*inputs)
        if self._recording is None and not self._failed:
            self._recording = self._record(function, inputs)
        return function(*inputs) if self._recording is None else self._recording(*inputs)

    def _record(
        self, function: Callable[..., Any], inputs: tuple[Tensor, ...]
    ) -> "_Recording | None":
        try:
            return _Recording(function, inputs)
        except RuntimeError as error:  # a kernel's result was read back, or moved from the CPU
            self._failed = True
            warnings.warn(
                "This cannot be recorded as a CUDA graph, so it is computed kernel by kernel, "
                "which is slower on a GPU. A family's `reset`, `step` and `observe` must neither "
                "read numbers back (`bool`, `int`, `.tolist()`, masks as indices) nor make tensors "
                f"of Python numbers (`torch.tensor`). torch says: {str(error).splitlines()[0]}",
                stacklevel=3,
            )
            return None


def can_replay(value: Tensor) -> bool:
    """Whether work on such a tensor can be recorded, and the switch is set."""
    return value.is_cuda and os.environ.get(SWITCH) == "1"


class _Recording:
    """A function with inputs and results in place."""

    def __init__(self, function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [each.clone() for each in inputs]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._result
