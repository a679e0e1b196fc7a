"""What all tests share: repeatable property tests, and the two threads a laptop can spare."""

import os

# Read once, when torch is imported. Threads that spin while they wait are ten times slower where
# other jobs share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from hypothesis import settings

# Without a deadline, because the first call into torch can take seconds.
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")

torch.set_num_threads(2)
