"""Training with several seeds at once, each in a process of its own.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from metarl.agent import AgentConfig
from metarl.errors import ConfigError, MetaRLError, SeedsError
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution
from metarl.training.callbacks import Callback
from metarl.training.interruption import StoppedBySignal, StopRequest, stop_between_iterations
from metarl.training.loop import TrainingJob, run_job, training_job
from metarl.training.options import RunOptions
from metarl.training.progress import TrainingProgress
from metarl.training.run_folder import Run, load_run
from metarl.training.torch_defaults import torch_defaults

POLL_SECONDS = 0.2
"""longest time in which the parent does not notice a signal"""


@torch_defaults()
def train_seeds(
    agent: str,
    task: str | TaskDistribution,
    *,
    seeds: Sequence[int],
    task_options: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config: AgentConfig | None = None,
    run: RunOptions | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> list[Run]:
    """Meta-trains an agent with several seeds, as many at once as there are CPU cores.

    Each seed is trained in a process of its own, by `threads` threads, and its run equals that of
    `train` with this seed. Where the seed of one run fails, the others go on. Call this from code
    that is guarded by `if __name__ == "__main__":`, because each process imports the script again.

    Args:
        agent: as in `train`, like all arguments but `seeds`.
        task: a family, or the id of one.
        seeds: one for each run.
        task_options: options of the family when `task` is an id.
        preset: name of tuned hyper-parameters for this agent and family.
        config: the agent's hyper-parameters.
        run: where and how; `out` is the parent of the folders `seed0`, `seed1`, ... With `resume`,
            existing runs go on and others are started.
        callbacks: copied to the process of each seed, so they must be picklable.
        options: fields of the agent's config and of `RunOptions`, except `seed`.

    Returns:
        The runs, in the order of the seeds.

    Raises:
        ConfigError: a seed is no whole number, there is none, one occurs twice, `seed` is given,
            too, or an option is out of range.
        RunFolderError: a run folder exists, or is resumed with other settings.
        SeedsError: some seeds have failed; names them with their errors. The runs of the others
            are complete.
        KeyboardInterrupt: Ctrl-C, after all runs have finished their iterations and saved them. A
            second one ends them at once.
        SystemExit: SIGTERM or SIGHUP, likewise, with code 143 or 129.
    """
    if "seed" in options or (run is not None and run.seed != RunOptions().seed):
        raise ConfigError("Got `seed` and `seeds`. One seed is trained by `train`; omit `seed`.")
    whole = training_job(
        agent,
        task,
        task_options=task_options,
        preset=preset,
        config=config,
        run=run,
        callbacks=callbacks,
        **options,
    )
    return train_jobs(seed_jobs(whole, seeds))


def train_jobs(jobs: Sequence[TrainingJob]) -> list[Run]:
    """Carries out jobs that differ in their seeds alone; errors are those of `train_seeds`."""
    are_started = [job.open_folder().is_started for job in jobs]
    first = jobs[0]
    make = first.new_agent if all(are_started) else first.first_agent
    make(first.make_family())  # reports what would fail for every seed
    titles = [f"seed {job.options.seed}" for job in jobs]
    display = TrainingProgress(titles, first.config.iterations, enabled=first.options.progress)
    with stop_between_iterations() as stop, _Children(jobs, display) as children:
        ended = children.run(stop)
    if sum(end == _TRAINED for end in ended.values()) < len(jobs):
        stop.raise_if_set()
    errors = {
        jobs[at].options.seed: end.error for at, end in ended.items() if end.error is not None
    }
    if errors:
        trained = [job.path for at, job in enumerate(jobs) if ended[at] == _TRAINED]
        raise SeedsError(_failure_message(errors, len(trained)), trained=trained)
    return [load_run(job.path) for job in jobs]


def seed_jobs(whole: TrainingJob, seeds: Sequence[int]) -> list[TrainingJob]:
    """The job with each of the seeds.

    Raises:
        ConfigError: a seed is no whole number, there is none, one occurs twice, or one is negative.
    """
    whole_numbers = isinstance(seeds, (list, tuple, range)) and all(
        isinstance(seed, (int, np.integer)) for seed in seeds
    )
    if not whole_numbers or not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds={seeds!r} must be different whole numbers, one for each run.")
    out, jobs = whole.options.out, []
    for seed in seeds:
        folder = None if out is None else Path(out) / f"seed{Seeds(seed).root}"
        jobs.append(replace(whole, options=replace(whole.options, seed=seed, out=folder)))
    return jobs


def available_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _failure_message(errors: Mapping[int, str], trained: int) -> str:
    reasons = "".join(f"\nSeed {seed}: {error}" for seed, error in sorted(errors.items()))
    return (
        f"{len(errors)} of {len(errors) + trained} seeds failed; {trained} were trained to the "
        f"end.{reasons}\nRemove the cause, and train the same seeds again with `resume`, which "
        "keeps what was trained."
    )


class _Ended(NamedTuple):
    """The last message of a child."""

    error: str | None  # None: it has trained all iterations
    stopped: bool = False  # by the parent, or by a signal


_TRAINED = _Ended(None)


class _Children:
    """The processes of the jobs; those that still run when the context ends are killed."""

    def __init__(self, jobs: Sequence[TrainingJob], display: TrainingProgress) -> None:
        self._jobs = jobs
        self._display = display
        self._active: dict[Connection, tuple[int, BaseProcess]] = {}  # index of the job, process
        self._ended: dict[int, _Ended] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        for _, child in self._active.values():
            child.kill()
            child.join()

    def run(self, stop: StopRequest) -> dict[int, _Ended]:
        """Trains all jobs, or until `stop` is set; returns how those that were started ended."""
        waiting = list(range(len(self._jobs)))
        limit = max(1, available_cores() // self._jobs[0].options.threads)
        asked = False
        with self._display:
            while self._active or (waiting and not stop):
                while waiting and not stop and len(self._active) < limit:
                    self._start(waiting.pop(0))
                if stop and not asked:
                    self._ask_to_stop()
                    asked = True
                for connection in wait(list(self._active), timeout=POLL_SECONDS):
                    assert isinstance(connection, Connection)
                    self._receive(connection)
        return self._ended

    def _start(self, index: int) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        ours, theirs = context.Pipe()
        child = context.Process(target=_train_child, args=(theirs, self._jobs[index]))
        try:
            with _interrupt_blocked():
                child.start()
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"The settings cannot be sent to another process: {error}. Define the config of "
                "the agent at the top level of a module, with plain values in its fields."
            ) from error
        theirs.close()  # so that the pipe ends with the child
        self._active[ours] = (index, child)

    def _ask_to_stop(self) -> None:
        """Sends every child a message, which it finds after its iteration."""
        for connection in self._active:
            with suppress(OSError):  # the child has just ended
                connection.send(None)

    def _receive(self, connection: Connection) -> None:
        index, child = self._active[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            del self._active[connection]
            child.join()
            connection.close()
            if index not in self._ended:  # it could not report its end
                self._end(index, _Ended(_exit_text(child.exitcode)))
            return
        if isinstance(message, _Ended):
            self._end(index, message)
        elif isinstance(message, int):
            self._display.show_iteration(message, run=index)
        else:
            self._display.show(message, run=index)

    def _end(self, index: int, end: _Ended) -> None:
        self._ended[index] = end
        if end.error is not None:
            self._display.show_end(f"failed: {end.error.splitlines()[0]}", run=index)


def _exit_text(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}; is there enough memory?"
    return (
        f"its process ended with exit code {code}; its error messages are above. Most likely a new "
        "process cannot import the script that calls metarl. Guard the code of a script with "
        "`if __name__ == '__main__':`."
    )


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Within it Ctrl-C waits; a process that is started keeps it waiting until `_train_child`."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _train_child(connection: Connection, job: TrainingJob) -> None:
    """Carries out a job, and reports to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        run_job(job, _ParentDisplay(connection))
        end = _TRAINED
    except KeyboardInterrupt:
        end = _Ended(None, stopped=True)
    except StoppedBySignal as stop:
        end = _Ended(f"its process was asked to end ({stop.code}).", stopped=True)
    except MetaRLError as error:
        end = _Ended(str(error) or repr(error))
    except Exception as error:
        end = _Ended(f"{error!r}\n{traceback.format_exc()}")
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
