"""Settings of all tests: deterministic property tests, and one thread, as in training."""

import torch
from hypothesis import settings

# No deadline, because the first call of torch can take seconds.
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")

torch.set_num_threads(1)
