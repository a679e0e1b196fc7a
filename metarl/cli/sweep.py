"""The command `metarl sweep`."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.cli.modules import import_for_run
from metarl.cli.table import LOG_WIDTH
from metarl.cli.terminal import (
    FAILURE,
    INTERRUPTED,
    SUCCESS,
    parse,
    print_error,
    print_text,
    shell_command,
)
from metarl.errors import ConfigError
from metarl.text import visible

if TYPE_CHECKING:
    from metarl.results.sweeps import SweepRow, SweepTable

# NOTE: functions import the modules that they need when they run, so that --help is fast.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepCommand:
    """Trains an agent with many settings and seeds, and compares the settings in one table.

    The file names agent, task and fixed options as for `metarl train --config`, and under [sweep]
    the values to try. The same command goes on with a sweep that was interrupted. Examples:

      metarl sweep rates.toml --processes 4
      metarl sweep rates.toml --ray auto
    """

    file: tyro.conf.Positional[Path | None] = None
    """TOML file of the sweep"""
    out: Path | None = None
    """folder of the sweep, by default runs/NAME for NAME.toml; a run is in OUT/SETTING/seedK"""
    processes: int | None = None
    """runs at once, each in a process; by default as many as there are CPU cores for their
    threads"""
    ray: str | None = None
    """carry out the runs on a Ray cluster: `local` starts one on this machine, `auto` finds the one
    that runs there, anything else is an address; its machines share the file system of --out"""
    retries: int = 1
    """how often a run that has failed is resumed, after all others"""
    show: Path | None = None
    """print the table of this folder of a sweep again, and train nothing"""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a module that defines the task or the agent, and that you trust: it is imported, from the
    current folder if it is not installed; may be repeated"""
    progress: bool = True
    """show a progress bar; without a terminal, a line every minute"""


def sweep(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse(SweepCommand, arguments, "sweep")
    if options.file is not None and options.show is None:
        return _sweep(options, options.file, arguments)
    if options.file is not None or options.show is None:
        raise ConfigError(
            "Give the TOML file of a sweep, or --show OUT for the table of one: metarl sweep FILE."
        )
    from metarl.results.sweeps import sweep_table

    _print_table(sweep_table(options.show))
    return SUCCESS


def _sweep(options: SweepCommand, file: Path, arguments: Sequence[str]) -> int:
    import_for_run(options.module, file.parent)
    from metarl.results.sweeps import run_folder
    from metarl.sweeps import sweep as sweeps
    from metarl.training.interruption import StoppedBySignal

    folder = sweeps.sweep_folder(file, options.out)
    try:
        table = sweeps.sweep(
            file,
            out=folder,
            processes=options.processes,
            ray=options.ray,
            retries=options.retries,
            progress=options.progress,
        )
    except (KeyboardInterrupt, StoppedBySignal) as stop:
        return _report_interruption(folder, arguments, stop)
    _print_table(table)
    print_text(f"The sweep is in {folder}: sweep.csv, sweep.png and a folder for each setting.")
    for failed, reason in table.failures.items():
        print_error(f"{failed} has failed: {reason}")
    if table.failures:
        print_error(f"Remove the cause, and repeat\n  {shell_command('sweep', *arguments)}")
        return FAILURE
    best = next(s for s in table.record.settings if s.name == table.rows[0].name)
    runs = [run_folder(folder, best, seed) for seed in table.record.seeds]
    commands = "".join(f"\n  {shell_command('evaluate', run)}" for run in runs)
    print_text(f"Evaluate the best setting in test tasks, which did not choose it:{commands}")
    return SUCCESS


def _report_interruption(folder: Path, arguments: Sequence[str], stop: BaseException) -> int:
    """Prints how to go on, and returns the exit code; raises `stop` where nothing was saved."""
    from metarl.results.sweeps import SWEEP_FILE, sweep_table

    if not (folder / SWEEP_FILE).exists():
        raise stop
    table = sweep_table(folder)
    trained = sum(len(row.scores) for row in table.rows)
    with contextlib.suppress(OSError):  # after SIGHUP the terminal may be gone
        print_error(
            f"Interrupted. {trained} runs are trained, those that were active are saved in "
            f"{folder}; the same command goes on:\n  {shell_command('sweep', *arguments)}"
        )
    return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else INTERRUPTED


def _print_table(table: "SweepTable") -> None:
    record = table.record
    shown = Table(box=box.SIMPLE)
    shown.add_column("setting", overflow="fold")
    for heading in ("seeds", "interquartile mean", "mean"):
        shown.add_column(heading, justify="right", overflow="fold")  # a number is never cut
    for row in table.rows:
        shown.add_row(*map(Text, (visible(row.name), *_cells(row, len(record.seeds)))))
    console = Console(highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = LOG_WIDTH
    measure = "whole trial" if record.metric == "total" else "last episode"
    print_text(f"{record.agent} on {record.family}, {record.search} search")
    console.print(shown)
    print_text(
        f"Return of the {measure} in {record.num_tasks:,} {record.split} tasks of seed "
        f"{record.evaluation_seed}; interquartile mean over seeds [95% bootstrap interval]."
    )


def _cells(row: "SweepRow", seeds: int) -> tuple[str, str, str]:
    """Seeds that were trained, interquartile mean with interval, and mean."""
    trained = f"{len(row.scores)} of {seeds}" if len(row.scores) < seeds else str(seeds)
    if row.score is None or row.mean is None:
        return trained, "-", "-"
    mean, low, high = (f"{float(part):.3f}" for part in row.score)
    return trained, f"{mean} [{low},{high}]", f"{row.mean:.3f}"
