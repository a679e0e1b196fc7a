"""Settings of torch that hold for the whole process or thread, put aside for a computation."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Within it torch is as after its import: float32, tensors on the CPU, gradients enabled.

    The caller's settings are put back at the end. All code of agents and families may rely on it.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if torch.get_default_device() != torch.device("cpu"):
            # NOTE: only here, because the context slows down every operation.
            stack.enter_context(torch.device("cpu"))
        yield
