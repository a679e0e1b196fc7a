"""Processes that carry out trainings side by side, as many at once as are allowed.

The processes share nothing but a pipe to the parent. It carries rows of metrics to the parent, and
its request to stop to the child. A child ignores Ctrl-C, which a terminal sends to all processes:
the parent decides. Where the parent has gone, the pipe is broken, and the child stops, too.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

from metarl.errors import ConfigError, MetaRLError
from metarl.training.interruption import StoppedBySignal, StopRequest
from metarl.training.job import TrainingJob
from metarl.training.loop import run_job
from metarl.training.progress import ProgressDisplay, TrainingProgress

POLL_SECONDS = 0.2
"""longest time in which the parent does not notice a signal"""

Work: TypeAlias = Callable[[TrainingJob, ProgressDisplay], object]
"""what a process does with its job, such as `run_job`; it can be pickled"""


class Ended(NamedTuple):
    """How a job has ended."""

    error: str | None  # None: it has trained all iterations
    stopped: bool = False  # by the parent, or by a signal


TRAINED = Ended(None)
"""the job was carried out"""


class JobQueue(Protocol):
    """Jobs in the order in which they are started; each has a line of the display."""

    def next_job(self) -> tuple[int, TrainingJob] | None:
        """The next job, after the index of its line; None if there is none at present."""

    def end(self, line: int, ended: Ended) -> None:
        """Is told how the job of this line has ended."""


def available_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Children:
    """The processes of the jobs; those that still run when the context ends are killed."""

    def __init__(
        self, queue: JobQueue, display: TrainingProgress, *, limit: int, work: Work = run_job
    ) -> None:
        self._queue = queue
        self._display = display
        self._limit = limit  # of processes at once
        self._work = work
        self._active: dict[Connection, tuple[int, BaseProcess]] = {}  # line of the display, process
        self._reported: set[int] = set()  # lines whose process has told how it ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for _, child in self._active.values():
            child.kill()
            child.join()

    def run(self, stop: StopRequest) -> None:
        """Carries out all jobs, or until `stop` is set."""
        asked = False
        with self._display:
            while self._start_all(stop):
                if stop and not asked:
                    self._ask_to_stop()
                    asked = True
                for connection in wait(list(self._active), timeout=POLL_SECONDS):
                    assert isinstance(connection, Connection)
                    self._receive(connection)

    def _start_all(self, stop: StopRequest) -> bool:
        """Starts jobs while there is room; returns whether a process is active."""
        while not stop and len(self._active) < self._limit:
            found = self._queue.next_job()
            if found is None:
                break
            self._start(*found)
        return bool(self._active)

    def _start(self, line: int, job: TrainingJob) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        ours, theirs = context.Pipe()
        child = context.Process(target=_carry_out, args=(theirs, self._work, job))
        try:
            with _interrupt_blocked():
                child.start()
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"The settings cannot be sent to another process: {error}. Define the config of "
                "the agent at the top level of a module, with plain values in its fields."
            ) from error
        theirs.close()  # so that the pipe ends with the child
        self._active[ours] = (line, child)

    def _ask_to_stop(self) -> None:
        """Sends every child a message, which it finds after its iteration."""
        for connection in self._active:
            with suppress(OSError):  # the child has just ended
                connection.send(None)

    def _receive(self, connection: Connection) -> None:
        line, child = self._active[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            del self._active[connection]
            child.join()
            connection.close()
            if line not in self._reported:  # it could not report its end
                self._end(line, Ended(exit_text(child.exitcode)))
            return
        if isinstance(message, Ended):
            self._reported.add(line)
            self._end(line, message)
        elif isinstance(message, int):
            self._display.show_iteration(message, run=line)
        else:
            self._display.show(message, run=line)

    def _end(self, line: int, ended: Ended) -> None:
        if ended.error is not None:
            self._display.show_end(f"failed: {ended.error.splitlines()[0]}", run=line)
        self._queue.end(line, ended)


def exit_text(code: int | None) -> str:
    """Why a process ended that could not tell it, from its exit code."""
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}; is there enough memory?"
    return (
        f"its process ended with exit code {code}; its error messages are above. Most likely a new "
        "process cannot import the script that calls metarl. Guard the code of a script with "
        "`if __name__ == '__main__':`."
    )


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Within it Ctrl-C waits; a process that is started keeps it waiting until `_carry_out`."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _carry_out(connection: Connection, work: Work, job: TrainingJob) -> None:
    """Carries out a job, and reports to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        work(job, _ParentDisplay(connection))
        end = TRAINED
    except KeyboardInterrupt:
        end = Ended(None, stopped=True)
    except StoppedBySignal as stop:
        end = Ended(f"its process was asked to end ({stop.code}).", stopped=True)
    except MetaRLError as error:
        end = Ended(str(error) or repr(error))
    except Exception as error:
        end = Ended(f"{error!r}\n{traceback.format_exc()}")
    with suppress(OSError):  # the parent has gone
        connection.send(end)


class _ParentDisplay:
    """Sends progress to the parent; raises `KeyboardInterrupt` if it asks to stop, or has gone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        pass

    def show_iteration(self, iteration: int) -> None:
        """Sends the iteration from which the run continues."""
        self._send(iteration)

    def show(self, row: Mapping[str, float]) -> None:
        """Sends a row."""
        self._send(row)

    def _send(self, message: Any) -> None:
        try:
            self._connection.send(message)
            asked = self._connection.poll()
        except OSError:
            asked = True
        if asked:
            raise KeyboardInterrupt
