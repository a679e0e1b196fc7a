"""Progress bars on the terminal, and log lines where there is no terminal."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from metarl.native.library import is_missed
from metarl.training import process

T = TypeVar("T")
LOG_SECONDS = 60.0
"""seconds between two log lines"""
_CLOSED = (OSError, SystemExit)  # rich raises SystemExit where a pipe is broken


class TrainingProgress:
    """Shows iteration, first- and last-episode return, steps per second and time left.

    Without a terminal (as in a cluster's log) it prints a line every minute, and a last one.
    A terminal that was closed, or a pipe that nothing reads, ends no training.
    """

    def __init__(self, title: str, iterations: int, *, enabled: bool) -> None:
        console = Console(stderr=True)
        self._title = title
        self._iterations = iterations
        self._logs = enabled and not (console.is_terminal or console.is_jupyter)
        self._logged = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            disable=not enabled or self._logs,
        )
        self._task = self._bar.add_task(title, total=iterations, numbers="")

    def __enter__(self) -> Self:
        self._bar.start()
        if process.openmp_spins_unlimited():
            self._bar.console.print(
                "torch was imported before metarl. Where other jobs share the cores, import metarl "
                "first or set GOMP_SPINCOUNT=30000: training can be ten times faster.",
                style="yellow",
            )
        if is_missed():
            self._bar.console.print(
                "The compiled library is missing or older than its sources: agents with memory "
                "train at half the speed. With a C++ compiler, install metarl again.",
                style="yellow",
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(*_CLOSED):
            self._bar.stop()

    def show_iteration(self, iteration: int) -> None:
        """Sets the bar to the iteration from which a run continues."""
        self._bar.update(self._task, completed=iteration)

    def show(self, row: Mapping[str, float]) -> None:
        """Updates the bar with a row of metrics."""
        numbers = (
            f"episode return {row['first_episode_return']:.3g} first, "
            f"{row['last_episode_return']:.3g} last; "
            f"{row['steps_per_second'] / 1000:,.0f}k steps/s"
        )
        with suppress(*_CLOSED):
            self._print(row["iteration"], numbers)

    def _print(self, iteration: float, numbers: str) -> None:
        self._bar.update(self._task, completed=iteration, numbers=numbers)
        last = iteration == self._iterations
        if self._logs and (last or time.monotonic() - self._logged >= LOG_SECONDS):
            self._logged = time.monotonic()
            line = f"{self._title} {iteration:.0f}/{self._iterations} {numbers}"
            self._bar.console.print(line, soft_wrap=True, markup=False, highlight=False)


def tracked(items: Iterable[T], title: str, *, enabled: bool) -> Iterable[T]:
    """`items`, with a progress bar on the terminal while they are iterated."""
    return track(items, title, console=Console(stderr=True), disable=not enabled, transient=True)


@contextmanager
def progress_counter(title: str, total: int, *, enabled: bool) -> Iterator[Callable[[], None]]:
    """A context with a progress bar; yields a function that advances it by one of `total`."""
    bar = Progress(console=Console(stderr=True), disable=not enabled, transient=True)
    with bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
