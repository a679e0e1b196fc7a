"""Signals that ask a training to end: Ctrl-C, and those of clusters and of closed terminals."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Windows has no SIGHUP"""


class StoppedBySignal(SystemExit):
    """A training was ended by SIGTERM or SIGHUP; not caught, it gives the exit code of a shell.

    That is 143 and 129.
    """

    code: int


class StopRequest:
    """Whether a signal has asked for the end."""

    def __init__(self) -> None:
        self._number: int | None = None

    def __bool__(self) -> bool:
        return self._number is not None

    @property
    def number(self) -> int | None:
        """Of the signal, if one has come."""
        return self._number

    def set(self, number: int) -> None:
        """Records the signal."""
        self._number = number

    def raise_if_set(self) -> None:
        """Raises `KeyboardInterrupt` after Ctrl-C, `StoppedBySignal` after another signal."""
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._number is not None:
            raise StoppedBySignal(128 + self._number)


@contextmanager
def stop_between_iterations() -> Iterator[StopRequest]:
    """Within it the first signal only sets the request; a second one has its usual effect.

    Handlers can be set in the main thread only. In another one signals keep their usual effect, and
    so does one that is ignored or handled by code that Python does not know.
    """
    request = StopRequest()
    previous: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        request.set(number)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        previous |= {n: h for n, h in handlers.items() if h not in (signal.SIG_IGN, None)}
    try:
        for number in previous:
            signal.signal(number, handle)
        yield request
    finally:
        restore()
