"""Carrying out trainings side by side, as many at once as are allowed: what all executors share.

An executor takes jobs from a queue, sends each to a process, and passes on what these report: rows
of metrics to the display, and how each has ended to the queue. The executor decides when to stop.
"""

import os
import pickle
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

from metarl.errors import ConfigError, MetaRLError
from metarl.training.interruption import StoppedBySignal, StopRequest
from metarl.training.job import TrainingJob
from metarl.training.progress import ProgressDisplay, TrainingProgress

POLL_SECONDS = 0.2
"""longest time in which an executor does not notice a signal"""

Work: TypeAlias = Callable[[TrainingJob, ProgressDisplay], object]
"""what a process does with its job, such as `run_job`; it can be pickled"""
Message: TypeAlias = int | Mapping[str, float]
"""the iteration from which a run continues, or a row of metrics"""


class Ended(NamedTuple):
    """How a job has ended."""

    error: str | None  # None: it has trained all iterations
    stopped: bool = False  # by the executor, or by a signal


TRAINED = Ended(None)
"""the job was carried out"""


class JobQueue(Protocol):
    """Jobs in the order in which they are started; each has a line of the display."""

    def next_job(self) -> tuple[int, TrainingJob] | None:
        """The next job, after the index of its line; None if there is none at present."""

    def end(self, line: int, ended: Ended) -> None:
        """Is told how the job of this line has ended."""


class Executor(ABC):
    """Carries out the jobs of a queue; jobs that still run when the context ends are killed."""

    def __init__(self, queue: JobQueue, display: TrainingProgress) -> None:
        self._queue = queue
        self._display = display

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.kill()

    def run(self, stop: StopRequest) -> None:
        """Carries out all jobs, or until `stop` is set."""
        asked = False
        with self._display:
            while self._start_all(stop):
                if stop and not asked:
                    self.ask_to_stop()
                    asked = True
                self.receive()

    @property
    @abstractmethod
    def limit(self) -> int:
        """Jobs at once."""

    @property
    @abstractmethod
    def num_active(self) -> int:
        """Jobs that were started and have not ended."""

    @abstractmethod
    def start(self, line: int, job: TrainingJob) -> None:
        """Sends a job to a process."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Lets every job end after its iteration, which is saved."""

    @abstractmethod
    def receive(self) -> None:
        """Handles what the processes report; waits `POLL_SECONDS` for it at most."""

    @abstractmethod
    def kill(self) -> None:
        """Ends all processes at once."""

    def show(self, line: int, message: Message) -> None:
        """Shows what a job has reported."""
        if isinstance(message, int):
            self._display.show_iteration(message, run=line)
        else:
            self._display.show(message, run=line)

    def end(self, line: int, ended: Ended) -> None:
        """Shows how a job has ended, and tells the queue."""
        if ended.error is not None:
            self._display.show_end(f"failed: {ended.error.splitlines()[0]}", run=line)
        self._queue.end(line, ended)

    def _start_all(self, stop: StopRequest) -> bool:
        """Starts jobs while there is room; returns whether one is active."""
        while not stop and self.num_active < self.limit:
            found = self._queue.next_job()
            if found is None:
                break
            self.start(*found)
        return self.num_active > 0


class RemoteDisplay(ABC):
    """Sends the progress of a job to the process that started it, which may ask the job to stop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        return

    @abstractmethod
    def send(self, message: Message) -> bool:
        """Sends a message; returns whether the job is asked to stop."""

    def show_iteration(self, iteration: int) -> None:
        """Sends the iteration from which the run continues."""
        self._send(iteration)

    def show(self, row: Mapping[str, float]) -> None:
        """Sends a row."""
        self._send(row)

    def _send(self, message: Message) -> None:
        if self.send(message):
            raise KeyboardInterrupt


@contextmanager
def naming_unpicklable(target: str) -> Iterator[None]:
    """Within it a job is pickled, to be sent to `target`; `ConfigError` if it cannot be."""
    try:
        yield
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"The settings cannot be sent to {target}: {error}. Define the config of the agent at "
            "the top level of a module, with plain values in its fields."
        ) from error


def available_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def carry_out(work: Work, job: TrainingJob, display: ProgressDisplay) -> Ended:
    """Does the work in this process, and says how it has ended."""
    try:
        work(job, display)
    except KeyboardInterrupt:
        return Ended(None, stopped=True)
    except StoppedBySignal as stop:
        return Ended(f"its process was asked to end ({stop.code}).", stopped=True)
    except MetaRLError as error:
        return Ended(str(error) or repr(error))
    except Exception as error:
        return Ended(f"{error!r}\n{traceback.format_exc()}")
    return TRAINED
