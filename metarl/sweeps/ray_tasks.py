"""Runs of a sweep as tasks of a Ray cluster, an extra: on this machine or on several.

All machines need metarl and a file system that they share, where the folder of the sweep is. A
mailbox, an actor of the cluster, carries rows of metrics to this process, and its request to stop
to the tasks. A task whose process or machine is lost counts as a run that has failed.
"""

import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.errors import ClusterError, ConfigError
from metarl.extras import require_extra
from metarl.results.sweeps import SWEEP_FILE
from metarl.training.executor import (
    POLL_SECONDS,
    Ended,
    Executor,
    JobQueue,
    Message,
    RemoteDisplay,
    Work,
    available_cores,
    carry_out,
    naming_unpicklable,
)
from metarl.training.interruption import StopRequest
from metarl.training.job import TrainingJob
from metarl.training.options import RunOptions
from metarl.training.progress import TrainingProgress

LOCAL = "local"
"""the address of a cluster that is started on this machine, and stopped at the end"""
CONNECT_SECONDS = 10.0
"""in which a cluster must answer"""
REPORT_SECONDS = 0.5
"""between two reports of a task; iterations can be faster"""


class RayTasks(Executor):
    """Tasks of a Ray cluster, as many at once as it has room for."""

    def __init__(
        self,
        queue: JobQueue,
        display: TrainingProgress,
        *,
        address: str,
        options: RunOptions,
        limit: int | None,
        work: Work,
    ) -> None:
        """Connects to the cluster, unless the script is connected already.

        Args:
            queue: of the jobs.
            display: of their progress.
            address: `local`, `auto` for the cluster of this machine, or that of another one.
            options: of every run; they say how many cores and GPUs one needs.
            limit: runs at once; None for as many as the cluster has room for.
            work: what a task does with its job.

        Raises:
            ConfigError: Ray is not installed, there is no cluster at this address, or it has no
                room for a run.
        """
        super().__init__(queue, display)
        self._ray = _ray()
        self._resources = {"CPU": options.threads, "GPU": int(options.device.startswith("cuda"))}
        self._most, self._work = limit, work
        self._active: dict[Any, int] = {}  # line of the display by the reference of the task
        self._reported: set[int] = set()  # lines of tasks that were started by the cluster
        self._is_asked = False
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            _connect(self._ray, address, cores=(limit or 0) * options.threads or available_cores())
        try:
            self._require_room(address)
            lasting = {"max_restarts": -1, "max_task_retries": -1}
            self._mailbox = self._remote(_Mailbox, num_cpus=0, **lasting)()
            # A new process for each run, as without Ray; a failed one is repeated by the queue.
            needs = {"num_cpus": self._resources["CPU"], "num_gpus": self._resources["GPU"]}
            self._task = self._remote(_carry_out, max_calls=1, max_retries=0, **needs)
        except BaseException:
            self._disconnect()
            raise

    def run(self, stop: StopRequest) -> None:
        """As every executor; `ClusterError` if the cluster does not answer any more."""
        try:
            super().run(stop)
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise ClusterError(
                f"The Ray cluster is lost ({type(error).__name__}): its head, or a process of Ray "
                "itself, has ended. What is trained is kept, and each run that was active is saved "
                "up to its last checkpoint; the same command goes on."
            ) from error

    def _remote(self, target: Any, **options: Any) -> Any:
        return self._ray.remote(**options)(target).remote

    @property
    def limit(self) -> int:
        """Runs at once: the room of the cluster, which may grow and shrink."""
        return max(1, self._room) if self._most is None else self._most

    @property
    def num_active(self) -> int:
        """Tasks that run, or wait for room."""
        return len(self._active)

    @property
    def _room(self) -> int:
        """Runs that fit on the machines side by side; none is spread over two."""
        machines = [each["Resources"] for each in self._ray.nodes() if each["Alive"]]
        needs = [(name, number) for name, number in self._resources.items() if number]
        return sum(min(int(has.get(name, 0) / n) for name, n in needs) for has in machines)

    def start(self, line: int, job: TrainingJob) -> None:
        """Submits a task.

        Raises:
            ConfigError: the settings cannot be pickled.
        """
        folder = job.path.resolve()
        job = replace(job, options=replace(job.options, out=folder))
        with naming_unpicklable("a cluster"):
            content = pickle.dumps((self._work, job))
        place = (os.getcwd(), str(folder.parents[1]), tuple(sys.path))
        self._active[self._task(self._mailbox, line, place, content)] = line

    def ask_to_stop(self) -> None:
        """Lets tasks end after their iteration, and takes back those that still wait for room."""
        self._is_asked = True
        for task, line in self._active.items():
            if line not in self._reported:
                self._ray.cancel(task)

    def receive(self) -> None:
        """Shows what is in the mailbox, and handles a task that has ended."""
        ended, _ = self._ray.wait([*self._active], num_returns=1, timeout=POLL_SECONDS)
        for line, message in self._ray.get(self._mailbox.collect.remote(self._is_asked)):
            self._reported.add(line)
            self.show(line, message)
        for task in ended:
            self.end(self._active.pop(task), self._how_ended(task))

    def kill(self) -> None:
        """Kills all tasks; a cluster that was started here is stopped."""
        with suppress(self._ray.exceptions.RayError, ConnectionError):  # a cluster that is lost
            for task in self._active:
                self._ray.cancel(task, force=True)
            self._ray.kill(self._mailbox)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._is_ours:
            self._ray.shutdown()

    def _how_ended(self, task: Any) -> Ended:
        errors = self._ray.exceptions
        try:
            ended: Ended = self._ray.get(task)
        except errors.TaskCancelledError:
            return Ended(None, stopped=True)
        except errors.RayTaskError as error:
            return Ended(
                f"a machine of the cluster could not start it: {error.cause!r}. Each machine needs "
                "the same packages, of the same versions."
            )
        except errors.RayError as error:
            return Ended(
                f"its process or its machine was lost ({type(error).__name__}); is there enough "
                "memory?"
            )
        return ended

    def _require_room(self, address: str) -> None:
        if not self._room:
            needed = " and ".join(f"{n} {name}" for name, n in self._resources.items() if n)
            raise ConfigError(
                f"A run needs {needed} of one machine, which the Ray cluster {address!r} does not "
                "have. Change threads or device under [run], or start more machines."
            )


class _Mailbox:
    """Messages of the tasks, and the request to stop; an actor."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, Message]] = []
        self._is_asked = False

    def report(self, line: int, message: Message) -> bool:
        """Keeps a message; returns whether the task is asked to stop."""
        self._messages.append((line, message))
        return self._is_asked

    def collect(self, is_asked: bool) -> Sequence[tuple[int, Message]]:
        """Returns the messages since the last call."""
        messages, self._messages, self._is_asked = self._messages, [], is_asked
        return messages


class _MailboxDisplay(RemoteDisplay):
    """Sends progress to the mailbox."""

    def __init__(self, mailbox: Any, line: int) -> None:
        self._mailbox = mailbox
        self._line = line
        self._sent_at = 0.0

    def show(self, row: Mapping[str, float]) -> None:
        """Sends a row, if the last message was not sent just before."""
        if time.monotonic() - self._sent_at >= REPORT_SECONDS:
            super().show(dict(row))

    def send(self, message: Message) -> bool:
        self._sent_at = time.monotonic()
        asked: bool = _ray().get(self._mailbox.report.remote(self._line, message))
        return asked


def _carry_out(
    mailbox: Any, line: int, place: tuple[str, str, Sequence[str]], content: bytes
) -> Ended:
    """The task: carries out a job, with the current folder and the modules of the sweep.

    Args:
        mailbox: the actor.
        line: of the display.
        place: the current folder, the folder of the sweep, and the folders that hold modules.
        content: work and job, pickled.
    """
    current, folder, search = place
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all processes
    if not (Path(folder) / SWEEP_FILE).is_file():
        return Ended(
            f"{folder} is not on the machine {socket.gethostname()}. All machines of a cluster "
            "must share the file system that holds the folder of the sweep."
        )
    if Path(current).is_dir():
        os.chdir(current)
    sys.path += [path for path in search if path not in sys.path]  # for modules of users
    work, job = pickle.loads(content)
    return carry_out(work, job, _MailboxDisplay(mailbox, line))


def _connect(ray: Any, address: str, *, cores: int) -> None:
    """Starts a cluster, or connects to one; `ConfigError` if there is none."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        options |= {"num_cpus": cores, "include_dashboard": False}
        os.environ.setdefault("RAY_worker_niceness", "0")  # as without Ray; otherwise it is 15
    with _signal_handlers_kept():
        try:
            if host and port.isdecimal():  # Ray itself would try for minutes
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(address, **options)
        except (OSError, ValueError, RuntimeError) as error:  # OSError: no connection
            raise ConfigError(
                f"There is no Ray cluster at {address!r}: {error}. Start one by `ray start "
                "--head`, or use --ray local."
            ) from error


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Within it Ray may set a handler of SIGTERM, which ends a process without saving."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns of its default
    return require_extra("ray", "ray", "A sweep on a cluster needs Ray")
