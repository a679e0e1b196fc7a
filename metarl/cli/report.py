"""The command `metarl report`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarl.cli.modules import import_for_run
from metarl.cli.terminal import SUCCESS, parse, print_text
from metarl.reports.options import ReportOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportCommand:
    """Writes one page of HTML about runs: figures, table, films, settings, and what to be wary of.

    The page needs no network and runs no script. Runs of one agent count as its seeds. A run that
    was not evaluated is shown with its learning curve alone.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """folders of runs of one family, evaluated in the same tasks, or zoo:NAME"""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """a module that defines the task or an agent, and that you trust: it is imported, from the
    current folder if it is not installed; may be repeated"""
    report: Annotated[ReportOptions, tyro.conf.OmitArgPrefixes] = ReportOptions(progress=True)


def report(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit code."""
    command = parse(ReportCommand, arguments, "report")
    for run in command.runs:
        import_for_run(command.module, run)
    from metarl.reports.report import report as write_report

    print_text(str(write_report(command.runs, options=command.report)))
    return SUCCESS
