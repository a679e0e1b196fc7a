"""What all tests share: repeatable property tests, and the two threads a laptop can spare."""

import os  # noqa: I001  (metarl before torch: it bounds how long waiting threads spin)

import metarl  # noqa: F401
import torch
from hypothesis import settings

# Without a deadline, because the first call into torch can take seconds.
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")

# Of two processes that share the tests, each has one.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
