"""Settings of all tests: deterministic property tests, and one thread, as in training."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import settings

# No deadline, because the first call of torch can take seconds.
settings.register_profile("metarl", derandomize=True, deadline=None)
settings.load_profile("metarl")

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of single files of tests."""
    parser.addoption(
        "--damaged-files",
        type=int,
        default=200,
        help="cases of tests/results/test_damaged_files.py, for each kind of file a tenth of it",
    )
    parser.addoption("--clients", help="folder for what tests/clients downloads; else skipped")
    for name in ("CleanRL", "Gymnasium"):
        option = f"--{name.lower()}"
        parser.addoption(option, help=f"clone of {name} for tests/clients; else cloned")


@pytest.fixture
def start_process() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts programs in process groups of their own, of which nothing is left after the test.

    They do not ignore Ctrl-C, as they would if the tests run in the background of a shell.
    """
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str], **options: Any) -> "subprocess.Popen[str]":
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            process = subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
            )
        finally:
            signal.signal(signal.SIGINT, before)
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
