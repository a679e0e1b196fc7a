"""What all tests share: repeatable property tests, and the two threads a laptop can spare."""

import metarl  # noqa: F401, I001  (before torch: it bounds how long waiting threads spin)
import torch
from hypothesis import settings

# Without a deadline, because the first call into torch can take seconds.
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")

torch.set_num_threads(2)
