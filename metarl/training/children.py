"""Processes of this machine that carry out trainings side by side.

The processes share nothing but a pipe to the parent. It carries rows of metrics to the parent, and
its request to stop to the child. A child ignores Ctrl-C, which a terminal sends to all processes:
the parent decides. Where the parent has gone, the pipe is broken, and the child stops, too.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from metarl.import_path import end_safe_path, safe_path_of_children
from metarl.training.executor import (
    POLL_SECONDS,
    Ended,
    Executor,
    JobQueue,
    Message,
    RemoteDisplay,
    Work,
    carry_out,
    naming_unpicklable,
)
from metarl.training.job import TrainingJob
from metarl.training.loop import run_job
from metarl.training.progress import TrainingProgress


class Children(Executor):
    """Processes of this machine, which share nothing but a pipe with this one."""

    def __init__(
        self, queue: JobQueue, display: TrainingProgress, *, limit: int, work: Work = run_job
    ) -> None:
        super().__init__(queue, display)
        self._limit = limit
        self._work = work
        self._active: dict[Connection, tuple[int, BaseProcess]] = {}  # line of the display, process
        self._reported: set[int] = set()  # lines whose process has told how it ended

    @property
    def limit(self) -> int:
        """Processes at once."""
        return self._limit

    @property
    def num_active(self) -> int:
        """Processes that run."""
        return len(self._active)

    def kill(self) -> None:
        """Kills all processes."""
        for _, child in self._active.values():
            child.kill()
            child.join()

    def start(self, line: int, job: TrainingJob) -> None:
        """Starts a process.

        Raises:
            ConfigError: the settings cannot be pickled.
        """
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        ours, theirs = context.Pipe()
        child = context.Process(target=_carry_out, args=(theirs, self._work, job))
        with naming_unpicklable("another process"), _interrupt_blocked(), safe_path_of_children():
            child.start()
        theirs.close()  # so that the pipe ends with the child
        self._active[ours] = (line, child)

    def ask_to_stop(self) -> None:
        """Sends every child a message, which it finds after its iteration."""
        for connection in self._active:
            with suppress(OSError):  # the child has just ended
                connection.send(None)

    def receive(self) -> None:
        """Handles a message of each child that has sent one."""
        for connection in wait(list(self._active), timeout=POLL_SECONDS):
            assert isinstance(connection, Connection)
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        line, child = self._active[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            del self._active[connection]
            child.join()
            connection.close()
            if line not in self._reported:  # it could not report its end
                self.end(line, Ended(exit_text(child.exitcode)))
            return
        if isinstance(message, Ended):
            self._reported.add(line)
            self.end(line, message)
        else:
            self.show(line, message)


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
    end_safe_path()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    end = carry_out(work, job, _ParentDisplay(connection))
    with suppress(OSError):  # the parent has gone
        connection.send(end)


class _ParentDisplay(RemoteDisplay):
    """Sends progress to the parent; where that has gone, the job stops, too."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, message: Message) -> bool:
        try:
            self._connection.send(message)
            return self._connection.poll()
        except OSError:
            return True
