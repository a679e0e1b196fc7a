"""`plot`: every kind of figure, from the rows in run folders.

Agents and environments are never imported: any folder with such rows can be plotted, without torch.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from metarl.errors import ConfigError
from metarl.field_types import overridden
from metarl.plots.adaptation import adaptation_figure
from metarl.plots.learning import learning_figure
from metarl.plots.options import PlotOptions
from metarl.plots.paths import paths_figure
from metarl.plots.pulls import pulls_figure
from metarl.plots.regret import regret_figure
from metarl.plots.style import METADATA, STYLE, save
from metarl.results.bootstrap import choose_references
from metarl.results.comparison import unique_folders
from metarl.results.learning_curves import read_learning
from metarl.results.run_curves import read_run_curves
from metarl.results.step_log import STEPS_FILE, StepLog, read_step_logs


def plot(
    runs: Sequence[str | os.PathLike[str]],
    *,
    options: PlotOptions | None = None,
    reference: Sequence[str] | None = None,
    **overrides: Any,
) -> list[Path]:
    """Plots runs in one figure, by default the adaptation curves of their agents.

    adaptation  return of the first, second, ... episode in unseen tasks
    regret      cumulative regret against the highest ceiling, episode by episode
    learning    a metric of training over environment steps and over wall time
    pulls       of bandits: the arms pulled in a few tasks, next to their expected rewards
    paths       in the plane: the trajectory of each episode in a few tasks

    Runs of the same agent count as its training seeds and are joined into one line: the mean, with
    a 95% bootstrap interval over tasks and, where there are several, over runs; for learning the
    mean and the range. Pulls and paths show single trials, of the first seed of each agent.

    Args:
        runs: folders of evaluated runs; for learning, trained is enough.
        options: what is plotted; by default made from `overrides`.
        reference: another name for the option `references`.
        overrides: fields of `PlotOptions`, such as `kind="regret", out="regret.pdf"`. An `out`
            with an ending such as `.pdf` selects that format alone; without `out`, the figure is
            written into the run's folder, or the folder that the runs have in common.

    Returns:
        The files written.

    Raises:
        RunFolderError: a run has not been evaluated, or the figure cannot be written.
        ConfigError: the runs cannot be compared, the kind does not fit them, or an option is
            unknown.
        UnknownNameError: there is no such reference or metric.
    """
    if reference is not None:
        overrides["references"] = reference
    options = overridden(options, PlotOptions(), overrides)
    kind = options.kind
    folders = unique_folders(runs)
    stem, formats = _target(folders, options)
    with matplotlib.rc_context(STYLE):
        if kind == "learning":
            curves = [read_learning(folder, options.metric) for folder in folders]
            figure = learning_figure(
                curves, smooth=options.smooth, join_unfinished=options.join_unfinished
            )
        elif kind in ("pulls", "paths"):
            figure = _trials_figure(folders, options)
        else:
            draw = adaptation_figure if kind == "adaptation" else regret_figure
            evaluated = read_run_curves(folders, join_unfinished=options.join_unfinished)
            figure = draw(evaluated, reference=options.shown_references)
        return [save(figure, stem, ending) for ending in formats]


def _trials_figure(folders: Sequence[Path], options: PlotOptions) -> Figure:
    """One trial log of each agent and of each chosen reference."""
    logs = [log for folder in folders for log in read_step_logs(folder / STEPS_FILE)]
    chosen: dict[tuple[str, str], StepLog] = {}
    for log in choose_references(logs, options.shown_references):
        chosen.setdefault((log.agent, log.label), log)
    draw = pulls_figure if options.kind == "pulls" else paths_figure
    limit = {} if options.tasks is None else {"tasks": options.tasks}
    return draw(sorted(chosen.values(), key=lambda log: log.role != "agent"), **limit)


def _target(folders: Sequence[Path], options: PlotOptions) -> tuple[str, Sequence[str]]:
    """Path of the figure without its ending, and the endings."""
    for ending in options.formats:
        if ending not in METADATA:
            raise ConfigError(
                f"{ending!r} is no format of a figure here; use {', '.join(METADATA)}."
            )
    if options.out is None:
        common = (
            folders[0]
            if len(folders) == 1
            else Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
        )
        return str(common / options.kind), options.formats
    path = Path(options.out)
    if path.suffix.removeprefix(".") in METADATA:
        return str(path.with_suffix("")), [path.suffix.removeprefix(".")]
    return str(path), options.formats
