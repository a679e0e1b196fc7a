"""`plot`: every kind of figure, from the rows in run folders.

Agents and environments are never imported: any folder with such rows can be plotted, without torch.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.errors import ConfigError
from metarl.field_types import overridden
from metarl.plots.adaptation import adaptation_curves
from metarl.plots.episode_curves import PLOTTED_COLUMNS, Look, curves_figure, plotted_rows
from metarl.plots.learning import LEARNING_COLUMNS, learning_figure, learning_rows
from metarl.plots.options import PlotOptions
from metarl.plots.paths import paths_figure
from metarl.plots.pulls import pulls_figure
from metarl.plots.regret import regret_curves
from metarl.plots.style import METADATA, STYLE, save
from metarl.results.bootstrap import choose_references
from metarl.results.csv_files import write_table
from metarl.results.folders import common_folder, unique_folders
from metarl.results.learning_curves import read_learning
from metarl.results.run_curves import read_run_curves
from metarl.results.step_log import STEPS_FILE, StepLog, read_step_logs


def plot(
    runs: Sequence[str | os.PathLike[str]],
    *,
    options: PlotOptions | None = None,
    reference: Sequence[str] | None = None,
    ax: Axes | None = None,
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
        ax: axes of a figure of yours, into which adaptation or regret is drawn; no file is written
            then but that of `data`.
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
    if ax is not None and kind not in ("adaptation", "regret"):
        raise ConfigError(
            f"A figure of {kind} has panels of its own; only adaptation and regret are drawn into "
            "given axes."
        )
    with matplotlib.rc_context(STYLE):
        if kind == "learning":
            figure = _learning_figure(folders, options)
        elif kind in ("pulls", "paths"):
            figure = _trials_figure(folders, options)
        else:
            figure = _episodes_figure(folders, options, ax)
        if ax is not None:
            return []
        return [save(figure, stem, ending) for ending in formats]


def _episodes_figure(folders: Sequence[Path], options: PlotOptions, ax: Axes | None) -> Figure:
    """The figure of adaptation or regret; writes its numbers if these are wanted."""
    evaluated = read_run_curves(folders, join_unfinished=options.join_unfinished)
    agents = [curve for curve in evaluated if curve.role == "agent"]
    names = iter(_names(options, len(agents)) or [curve.label for curve in agents])
    curves = [
        replace(curve, label=next(names)) if curve.role == "agent" else curve for curve in evaluated
    ]
    choose = adaptation_curves if options.kind == "adaptation" else regret_curves
    shown = choose(curves, reference=options.shown_references)
    if options.data is not None:
        write_table(options.data, PLOTTED_COLUMNS, plotted_rows(shown.curves))
    return curves_figure(shown, Look(size=options.size, ylim=options.ylim, axes=ax))


def _learning_figure(folders: Sequence[Path], options: PlotOptions) -> Figure:
    """The figure of learning; writes its numbers if these are wanted."""
    curves = [read_learning(folder, options.metric) for folder in folders]
    if names := _names(options, len(curves)):
        curves = [replace(curve, label=name) for curve, name in zip(curves, names, strict=True)]
    wanted: dict[str, Any] = {
        "smooth": options.smooth,
        "join_unfinished": options.join_unfinished,
    }
    if options.data is not None:
        write_table(options.data, LEARNING_COLUMNS, learning_rows(curves, **wanted))
    return learning_figure(curves, size=options.size, ylim=options.ylim, **wanted)


def _names(options: PlotOptions, count: int) -> list[str] | None:
    """The user's names of the runs, one for each."""
    names = None if options.labels is None else list(options.labels)
    if names is not None and len(names) != count:
        raise ConfigError(
            f"Got {len(names)} labels for {count} runs; give one for each, in the order of the "
            "runs."
        )
    return names


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
        return str(common_folder(folders) / options.kind), options.formats
    path = Path(options.out)
    if path.suffix.removeprefix(".") in METADATA:
        return str(path.with_suffix("")), [path.suffix.removeprefix(".")]
    return str(path), options.formats
