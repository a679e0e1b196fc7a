"""Settings of all tests: deterministic property tests, and at most two threads."""

import os  # noqa: I001  (metarl before torch: it bounds how long waiting threads spin)

import metarl  # noqa: F401
import torch
from hypothesis import settings

# No deadline, because the first call of torch can take seconds.
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")

# With pytest-xdist each worker process uses one thread.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
