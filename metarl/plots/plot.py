"""`plot`: every kind of figure, from the rows in run folders.

Agents and environments are never imported: any folder with such rows can be plotted, without torch.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase

from metarl.errors import ConfigError
from metarl.field_types import overridden, require_instance
from metarl.plots.adaptation import adaptation_curves
from metarl.plots.episode_curves import PLOTTED_COLUMNS, Look, curves_figure, plotted_rows
from metarl.plots.learning import LEARNING_COLUMNS, learning_figure, learning_rows
from metarl.plots.options import PlotOptions
from metarl.plots.paths import PATHS_COLUMNS, paths_figure, paths_rows
from metarl.plots.pulls import PULLS_COLUMNS, pulls_figure, pulls_rows
from metarl.plots.regret import regret_curves
from metarl.plots.style import METADATA, STYLE, save
from metarl.results.bootstrap import choose_references
from metarl.results.csv_files import write_table
from metarl.results.evaluation_files import STEPS_FILE
from metarl.results.files import make_parent
from metarl.results.folders import common_folder, unique_folders
from metarl.results.learning_curves import read_learning
from metarl.results.run_curves import read_run_curves
from metarl.results.step_log import StepLog, read_step_logs


def plot(
    runs: Sequence[str | os.PathLike[str]],
    *,
    options: PlotOptions | None = None,
    reference: Sequence[str] | None = None,
    ax: Axes | FigureBase | None = None,
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
        ax: axes of a figure of yours to draw into; no file is written then but that of `data`. A
            kind with several panels divides them among each other, or takes a figure or subfigure
            of yours in place of axes.
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
    if ax is not None:
        _require_target(ax, options)
    with matplotlib.rc_context(STYLE):
        if kind == "learning":
            figure = _learning_figure(folders, options, ax)
        elif kind in ("pulls", "paths"):
            figure = _trials_figure(folders, options, ax)
        else:
            figure = _episodes_figure(folders, options, ax)
        if ax is not None or not isinstance(figure, Figure):
            return []
        return [save(figure, stem, ending) for ending in formats]


def _require_target(ax: object, options: PlotOptions) -> None:
    """Raises `ConfigError` unless these are plane axes, or a figure, and nothing is to be saved."""
    require_instance("ax", ax, (Axes, FigureBase), "axes of Matplotlib, or a figure of it")
    if isinstance(ax, Axes) and ax.name != "rectilinear":
        raise ConfigError(f"ax are {ax.name} axes, but figures are drawn into plane ones.")
    if options.out is not None:
        raise ConfigError(
            f"out={options.out!r} and ax are given, but what is drawn into your axes is saved by "
            "you, with savefig. Leave one of them out."
        )


Target: TypeAlias = Axes | FigureBase | None
"""what the user gave to draw into"""


def _episodes_figure(folders: Sequence[Path], options: PlotOptions, ax: Target) -> FigureBase:
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
        _write_data(options.data, PLOTTED_COLUMNS, plotted_rows(shown.curves))
    axes = ax.add_subplot() if isinstance(ax, FigureBase) else ax
    return curves_figure(shown, Look(size=options.size, ylim=options.ylim, axes=axes))


def _learning_figure(folders: Sequence[Path], options: PlotOptions, ax: Target) -> FigureBase:
    """The figure of learning; writes its numbers if these are wanted."""
    curves = [read_learning(folder, options.metric) for folder in folders]
    if names := _names(options, len(curves)):
        curves = [replace(curve, label=name) for curve, name in zip(curves, names, strict=True)]
    wanted: dict[str, Any] = {
        "smooth": options.smooth,
        "join_unfinished": options.join_unfinished,
    }
    if options.data is not None:
        _write_data(options.data, LEARNING_COLUMNS, learning_rows(curves, **wanted))
    look: dict[str, Any] = {"size": options.size, "ylim": options.ylim, "target": ax}
    return learning_figure(curves, **look, **wanted)


def _write_data(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes the numbers of a figure as CSV, into a new folder if need be."""
    make_parent(path)
    write_table(path, columns, rows)


def _names(options: PlotOptions, count: int) -> list[str] | None:
    """The user's names of the runs, one for each."""
    names = None if options.labels is None else list(options.labels)
    if names is not None and len(names) != count:
        raise ConfigError(
            f"Got {len(names)} labels for {count} runs; give one for each, in the order of the "
            "runs."
        )
    return names


def _trials_figure(folders: Sequence[Path], options: PlotOptions, ax: Target) -> FigureBase:
    """One trial log of each agent and of each chosen reference; writes its steps if wanted."""
    logs = [log for folder in folders for log in read_step_logs(folder / STEPS_FILE)]
    agents = [log for log in logs if log.role == "agent"]
    names = iter(_names(options, len(agents)) or [log.label for log in agents])
    logs = [replace(log, label=next(names)) if log.role == "agent" else log for log in logs]
    chosen: dict[tuple[str, str], StepLog] = {}
    for log in choose_references(logs, options.shown_references):
        chosen.setdefault((log.agent, log.label), log)
    shown = sorted(chosen.values(), key=lambda log: log.role != "agent")
    limit = {} if options.tasks is None else {"tasks": options.tasks}
    is_pulls = options.kind == "pulls"
    if options.data is not None:
        columns, rows = (PULLS_COLUMNS, pulls_rows) if is_pulls else (PATHS_COLUMNS, paths_rows)
        _write_data(options.data, columns, list(rows(shown, **limit)))
    draw = pulls_figure if is_pulls else paths_figure
    return draw(shown, size=options.size, target=ax, **limit)


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
