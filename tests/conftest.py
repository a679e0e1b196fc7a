"""Settings of all tests: deterministic property tests, and one thread, as in training."""

import pytest
import torch
from hypothesis import settings

# No deadline, because the first call of torch can take seconds.
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The size of the test of damaged files."""
    parser.addoption(
        "--damaged-files",
        type=int,
        default=200,
        help="cases of tests/results/test_damaged_files.py, for each kind of file a tenth of it",
    )
