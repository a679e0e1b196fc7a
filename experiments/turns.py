"""Work in turns: a process works for some seconds when it is asked to, and sleeps otherwise.

Both sides of the pipe. Only the standard library is used, because workers import this module under
interpreters that may have nothing else.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, Self

WARM_UP_CALLS = 2
"""calls before the first turn: compilation, first allocations"""
SETTLE_SECONDS = 0.15
"""pause before each turn, in which the threads of the former one stop spinning"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is measured: RL^2 on Bernoulli bandits with five arms."""

    work: str
    """train (rollout and update), rollout, or env (random actions, no network)"""
    lanes: int
    """environments stepped together, and trials of a meta-batch"""
    hidden_size: int
    """of embedding, GRU and heads; without meaning for env"""
    pulls: int
    """steps of a trial"""

    @property
    def name(self) -> str:
        """Such as train-512-64-10: work, lanes, hidden size (except for env), pulls."""
        hidden = [] if self.work == "env" else [self.hidden_size]
        return "-".join(map(str, [self.work, self.lanes, *hidden, self.pulls]))

    @property
    def arguments(self) -> list[str]:
        """On the command line of a worker."""
        return [str(value) for value in astuple(self)]

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Self:
        """The inverse of `arguments`."""
        work, *sizes = arguments
        lanes, hidden_size, pulls = map(int, sizes)
        return cls(work=work, lanes=lanes, hidden_size=hidden_size, pulls=pulls)


def serve(work: Callable[[], int], versions: Mapping[str, str]) -> None:
    """The worker's side: warms up, then does a turn for each line of stdin, until it is closed.

    Args:
        work: takes environment steps and returns their number.
        versions: of what is measured, by name.
    """
    replies, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not answer for us
    for _ in range(WARM_UP_CALLS):
        work()
    _send(replies, versions)
    for line in sys.stdin:
        _send(replies, steps_per_second(work, float(line)))


def steps_per_second(work: Callable[[], int], seconds: float) -> float:
    """Calls `work` for at least so many seconds, and at least once."""
    started, steps, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds or not steps:
        steps += work()
        elapsed = time.perf_counter() - started
    return steps / elapsed


def _send(stream: Any, message: object) -> None:
    print(json.dumps(message), file=stream, flush=True)


class WorkerProcess:
    """A worker in a process of its own, as seen from outside; warmed up when it is constructed."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts it.

        Raises:
            SystemExit: it ended, for the reason that it printed to stderr.
        """
        self._command = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        try:
            self.versions: dict[str, str] = self._reply()
        except BaseException:
            self.close()
            raise

    def ask(self, seconds: float) -> None:
        """Lets it work for so many seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    def answer(self) -> float:
        """Waits for the end of its turn; steps per second."""
        return float(self._reply())

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise SystemExit(
                f"A worker ended with code {code}; its own message is above. Repeat it alone: "
                f"{' '.join(self._command)}"
            )
        return json.loads(line)


def take_turn(workers: Sequence[WorkerProcess], seconds: float) -> float:
    """Steps per second of workers that work at the same time, in sum."""
    time.sleep(SETTLE_SECONDS)
    for worker in workers:
        worker.ask(seconds)
    return sum([worker.answer() for worker in workers])


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """Within it, so many processes with one thread each use all the processor time they get."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    if processes:
        time.sleep(2 * SETTLE_SECONDS)  # their start
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
