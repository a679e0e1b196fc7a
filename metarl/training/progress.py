"""Progress bars on the terminal, and log lines where there is no terminal."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, Self, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    track,
)

from metarl.native.library import is_missed
from metarl.text import visible

T = TypeVar("T")
LOG_SECONDS = 60.0
"""seconds between two log lines"""
MISSED = (
    "The compiled library is missing or older than its sources: agents with memory train at a "
    "third to half of the speed. With a C++ compiler, install metarl again."
)
_CLOSED = (OSError, SystemExit)  # rich raises SystemExit where a pipe is broken


class ProgressDisplay(Protocol):
    """Shows how far a training is; it is opened as a context."""

    def __enter__(self) -> Any:
        """Opens the display."""

    def __exit__(self, *error: Any) -> None:
        """Closes it."""

    def show_iteration(self, iteration: int) -> None:
        """Shows the iteration from which a run continues."""

    def show(self, row: Mapping[str, float]) -> None:
        """Shows a row of metrics."""


class TrainingProgress:
    """Shows iteration, first- and last-episode return, steps per second and time left.

    Without a terminal (as in a cluster's log) it prints a line every minute, and a last one. It can
    show several runs, each in a line. A terminal that was closed, or a pipe that nothing reads,
    ends no training.
    """

    def __init__(self, titles: Sequence[str], iterations: int, *, enabled: bool) -> None:
        console = Console(stderr=True)
        self._titles: list[str] = []
        self._iterations: list[int] = []
        self._enabled = enabled
        self._logs = enabled and not (console.is_terminal or console.is_jupyter)
        self._logged: list[float] = []
        self._tasks: list[TaskID] = []
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            disable=not enabled or self._logs,
        )
        for title in titles:
            self.add_run(title, iterations)

    def __enter__(self) -> Self:
        self._bar.start()
        if self._enabled and is_missed():
            with suppress(*_CLOSED):
                self._bar.console.print(MISSED, style="yellow")
        return self

    def __exit__(self, *error: Any) -> None:
        with suppress(*_CLOSED):
            self._bar.stop()

    def add_run(self, title: str, iterations: int) -> int:
        """Adds a line, and returns the number by which it is shown as `run`."""
        self._titles.append(visible(title))
        self._iterations.append(iterations)
        self._logged.append(time.monotonic())
        self._tasks.append(self._bar.add_task(self._titles[-1], total=iterations, numbers=""))
        return len(self._tasks) - 1

    def hide(self, run: int) -> None:
        """Removes the line of a run that has ended."""
        self._bar.update(self._tasks[run], visible=False)

    def show_iteration(self, iteration: int, *, run: int = 0) -> None:
        """Sets the bar of a run to the iteration from which it continues."""
        # Speed and time left are those from here on, not from the start of the display.
        self._bar.reset(self._tasks[run], completed=iteration)

    def show(self, row: Mapping[str, float], *, run: int = 0) -> None:
        """Updates the bar of a run with a row of metrics."""
        numbers = (
            f"episode return {row['first_episode_return']:.3g} first, "
            f"{row['last_episode_return']:.3g} last; "
            f"{row['steps_per_second'] / 1000:,.0f}k steps/s"
        )
        self.show_numbers(row["iteration"], numbers, run=run)

    def show_numbers(self, iteration: float, numbers: str, *, run: int) -> None:
        """Updates the bar of a run with a text."""
        with suppress(*_CLOSED):
            self._print(iteration, numbers, run)

    def _print(self, iteration: float, numbers: str, run: int) -> None:
        self._bar.update(self._tasks[run], completed=iteration, numbers=numbers)
        last = iteration == self._iterations[run]
        if self._logs and (last or time.monotonic() - self._logged[run] >= LOG_SECONDS):
            self._logged[run] = time.monotonic()
            self._log(f"{self._titles[run]} {iteration:.0f}/{self._iterations[run]} {numbers}")

    def show_end(self, reason: str, *, run: int) -> None:
        """Shows why a run has ended before its last iteration."""
        with suppress(*_CLOSED):
            self._bar.update(self._tasks[run], numbers=reason)
            self._bar.stop_task(self._tasks[run])
            if self._logs:
                self._log(f"{self._titles[run]} {reason}")

    def _log(self, line: str) -> None:
        self._bar.console.print(line, soft_wrap=True, markup=False, highlight=False)


def tracked(items: Iterable[T], title: str, *, enabled: bool) -> Iterable[T]:
    """`items`, with a progress bar on the terminal while they are iterated."""
    title = escape(visible(title))
    return track(items, title, console=Console(stderr=True), disable=not enabled, transient=True)


@contextmanager
def progress_counter(title: str, total: int, *, enabled: bool) -> Iterator[Callable[[], None]]:
    """A context with a progress bar; yields a function that advances it by one of `total`."""
    bar = Progress(console=Console(stderr=True), disable=not enabled, transient=True)
    with bar:
        task = bar.add_task(escape(visible(title)), total=total)
        yield lambda: bar.advance(task)
