"""Worker processes that step blocks of environments: starting, waiting for answers, stopping.

Gymnasium's `AsyncVectorEnv` starts them and transfers results. It waits for ever where a worker
hangs, and does not say why one has died; this module does.

Nothing here imports torch: workers use NumPy only.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import _async_worker

from metarl.errors import ConfigError, MetaRLError, WorkerError
from metarl.import_path import (
    end_safe_path,
    safe_path_of_children,
    usual_path_of_children,
)

WORKER_TIMEOUT = 600.0
"""seconds after which a worker that does not answer counts as hung"""
_LOOK_SECONDS = 1.0
"""seconds between two looks at processes that have not answered"""
_CLOSE_SECONDS = 10.0
"""seconds that environments are given to close, and processes to end"""


class Workers:
    """One process for each block."""

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env[Any, Any]]], timeout: float):
        """Starts the processes and waits until they are ready.

        Raises:
            ConfigError: the environment cannot be sent to them, or they ended during their start.
        """
        self._timeout = timeout
        self._vector = _start(makers)
        # Before multiprocessing ends its processes by a signal, which these ignore.
        self._stop = Finalize(self, _stop, (self._vector, True), exitpriority=10)

    @property
    def processes(self) -> list[Any]:
        """The processes, one for each block."""
        return list(self._vector.processes)

    def reset(self, options: dict[str, Any]) -> Any:
        """`EnvBlock.reset` in every worker; raises `WorkerError` as `step` does."""
        return self._answer(lambda: self._vector.reset_async(options=options), "reset_wait")

    def step(self, action: Any) -> Any:
        """`EnvBlock.step` in every worker; the arrays are overwritten by the next step.

        Raises:
            WorkerError: a worker has died, does not answer, or raised an exception of a type that
                cannot be sent.
        """
        return self._answer(lambda: self._vector.step_async(action), "step_wait")

    def close(self, *, kill: bool = False) -> None:
        """Closes the environments and ends the processes; with `kill` at once."""
        if self._stop.still_active():
            self._stop.cancel()
            _stop(self._vector, not kill)

    def _answer(self, send: Callable[[], None], receive: str) -> Any:
        try:
            send()
            self._wait()
            return getattr(self._vector, receive)()[0]
        except (EOFError, ConnectionError) as error:
            if None in self._vector.parent_pipes:  # where a worker has sent an exception
                raise  # it is of an environment
            # A process closes its pipe, then its sentinel, and has an exit code a little later.
            ended = connection.wait([p.sentinel for p in self.processes], _CLOSE_SECONDS)
            for index, process in enumerate(self.processes):
                if process.sentinel in ended:
                    process.join(_CLOSE_SECONDS)
                    raise _death(index, process.exitcode) from error
            raise

    def _wait(self) -> None:
        waiting: dict[Any, Any] = dict(zip(self._vector.parent_pipes, self.processes, strict=True))
        end = time.monotonic() + self._timeout
        while waiting:
            left = max(0.0, end - time.monotonic())
            for pipe in connection.wait(list(waiting), min(left, _LOOK_SECONDS)):
                del waiting[pipe]
            for process in waiting.values():
                if process.exitcode is not None:
                    raise _death(self.processes.index(process), process.exitcode)
            if waiting and not left:
                index = self.processes.index(next(iter(waiting.values())))
                raise WorkerError(
                    f"Worker {index} has not answered for {self._timeout:g} s: an environment "
                    "hangs, or needs longer for one step of all its lanes. Raise --worker-timeout, "
                    "or find the step with --workers 0 and a debugger."
                )


def _start(makers: Sequence[Callable[[], gymnasium.Env[Any, Any]]]) -> AsyncVectorEnv:
    remedy = (
        "Register the environment with entry_point='your_module:Class', in a module that can be "
        "imported from the working directory, with plain values as arguments; guard the main code "
        "of a script with `if __name__ == '__main__':`; or leave workers out."
    )
    try:
        # NOTE: spawn on every platform, because torch's threads do not survive a fork.
        with safe_path_of_children():
            return AsyncVectorEnv(
                [_Maker(make) for make in makers], context="spawn", copy=False, worker=run_worker
            )
    except (EOFError, ConnectionError) as error:
        raise ConfigError(
            "The workers ended during their start; their error messages are above. Most likely a "
            f"new process cannot import the code that makes the environment. {remedy}"
        ) from error
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"The environment cannot be sent to worker processes: {error}. {remedy}"
        ) from error


class _Maker:
    """Makes an environment; `AsyncVectorEnv` also makes one in this process, before it starts any.

    A class, because a function within a function cannot be sent.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]]) -> None:
        self._make = make

    def __call__(self) -> gymnasium.Env[Any, Any]:
        with usual_path_of_children():
            return self._make()


def _stop(vector: AsyncVectorEnv, gracefully: bool) -> None:
    """Ends all processes: environments are closed first, if they answer in time."""
    pipes = [pipe for pipe in vector.parent_pipes if pipe is not None and not pipe.closed]
    end = time.monotonic() + _CLOSE_SECONDS
    for pipe in pipes if gracefully else ():
        try:
            pipe.send(("close", None))
        except OSError:  # the process has died
            continue
    for process in vector.processes:
        if gracefully:
            process.join(max(0.0, end - time.monotonic()))
        process.kill()  # not terminate, which it ignores
        process.join()
    for pipe in pipes:
        pipe.close()
    vector.closed = True  # its own `close` would wait for answers


def _death(index: int, code: int | None) -> WorkerError:
    cause = "its environment, or a library that it uses, has ended the process"
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        cause = f"killed by {name}"
        if -code == signal.SIGKILL:
            cause += ", as systems do where memory is short"
    return WorkerError(
        f"Worker {index} ended with exit code {code} ({cause}). What was completed before is kept; "
        "fewer workers or lanes need less memory, and --workers 0 shows errors of the environment."
    )


def run_worker(index: int, make: Any, pipe: Connection, *arguments: Any) -> None:
    """What a worker process runs, with the arguments that `AsyncVectorEnv` gives."""
    end_safe_path()
    parent = multiprocessing.parent_process()
    assert parent is not None
    # The trainer handles Ctrl-C: it needs its workers to complete the iteration.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    try:
        _async_worker(index, lambda: _WorkerEnv(make()), pipe, *arguments)
    except (EOFError, ConnectionError):  # the trainer has died
        os._exit(1)


def _end_with(sentinel: int) -> None:
    """Ends this process when the trainer has ended, also where an environment hangs."""
    connection.wait([sentinel])
    os._exit(1)


class _WorkerEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A block whose exceptions can be sent, and which signals to the whole group do not end."""

    def reset(self, **options: Any) -> Any:
        """As the block's."""
        # Only now: a worker that is still starting is ended by SIGTERM if another one fails.
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        try:
            return self.env.reset(**options)
        except Exception as error:
            raise _sendable(error) from error

    def step(self, action: Any) -> Any:
        """As the block's."""
        try:
            return self.env.step(action)
        except Exception as error:
            raise _sendable(error) from error


def _sendable(error: Exception) -> Exception:
    """The error, or its text where another process might not be able to make it again."""
    kind = type(error)
    if kind.__module__ == "builtins" or isinstance(error, MetaRLError):
        try:
            kind(error)  # as `AsyncVectorEnv` does
            pickle.loads(pickle.dumps(error))
            return error
        except Exception:
            pass
    text = "".join(traceback.format_exception(error)).rstrip()
    return WorkerError(f"{kind.__qualname__} in an environment of a worker: {error}\n{text}")
