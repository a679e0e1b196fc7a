"""The door to all pictures: folders of runs go in, files of figures come out.

Nothing here knows agents or environments; whatever wrote the rows can be drawn, without torch.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import matplotlib
from matplotlib.figure import Figure

from metarl.errors import ConfigError
from metarl.plots.adaptation import adaptation_figure, regret_figure
from metarl.plots.learning import learning_figure
from metarl.plots.paths import paths_figure
from metarl.plots.pulls import pulls_figure
from metarl.plots.style import METADATA, STYLE, save
from metarl.results.bootstrap import choose_references
from metarl.results.comparison import unique_folders
from metarl.results.learning_curves import read_learning
from metarl.results.run_curves import read_run_curves
from metarl.results.step_log import FILE_NAME as TRIALS
from metarl.results.step_log import TrialLog, read_trials

PictureKind: TypeAlias = Literal["adaptation", "regret", "learning", "pulls", "paths"]


def plot(
    runs: Sequence[str | os.PathLike[str]],
    *,
    kind: PictureKind = "adaptation",
    out: str | os.PathLike[str] | None = None,
    reference: Sequence[str] | None = None,
    formats: Sequence[str] = ("png", "svg"),
    metric: str = "last_episode_return",
    smooth: int | None = None,
    tasks: int | None = None,
) -> list[Path]:
    """Draws some runs into one picture: how fast their agents adapt, unless asked for another.

    adaptation  return of the first, second, ... episode in a task never seen
    regret      what has been lost against the highest ceiling, episode by episode
    learning    a metric of training over environment steps and over wall time
    pulls       of bandits: the arms pulled in a few tasks beside what they pay
    paths       in the plane: the way of each episode in a few tasks

    Runs of the same agent are taken as its training seeds and joined into one line: the mean,
    with a 95% bootstrap interval over tasks and, where there are several, over runs; of learning
    the mean and the range. Pulls and paths show single trials, of the first seed of each agent.

    Args:
        runs: folders of runs that `evaluate` has been through; for learning, trained is enough.
        kind: what to draw.
        out: the picture's path; an ending such as `.pdf` asks for that format alone. By default
            the kind's name in the run's folder, or in the folder that the runs have in common.
        reference: names of the floors, baselines and ceilings to draw. By default all of them
            stand beside curves, and none beside pulls and paths.
        formats: any of png, svg, pdf.
        metric: of learning, a column of `metrics.csv`.
        smooth: of learning, the iterations that each drawn value is the mean of; by default a
            fiftieth of them all, and 1 for none.
        tasks: of pulls and paths, how many tasks to show.

    Returns:
        The files written.

    Raises:
        RunFolderError: a run has not been evaluated, or the picture cannot be written.
        ConfigError: the runs cannot be compared, the kind does not fit them, or an option is
            unknown.
        UnknownNameError: there is no such reference or metric.
    """
    folders = unique_folders(runs)
    if kind not in get_args(PictureKind):
        raise ConfigError(
            f"{kind!r} is no kind of picture; use one of {', '.join(get_args(PictureKind))}."
        )
    stem, formats = _target(folders, kind, out, formats)
    with matplotlib.rc_context(STYLE):
        if kind == "learning":
            curves = [read_learning(folder, metric) for folder in folders]
            figure = learning_figure(curves, smooth=smooth)
        elif kind in ("pulls", "paths"):
            figure = _trials_figure(kind, folders, reference or (), tasks)
        else:
            draw = adaptation_figure if kind == "adaptation" else regret_figure
            figure = draw(read_run_curves(folders), reference=reference)
        return [save(figure, stem, ending) for ending in formats]


def _trials_figure(
    kind: str, folders: Sequence[Path], reference: Sequence[str], tasks: int | None
) -> Figure:
    """One trial log of each agent, and of the references named."""
    logs = [log for folder in folders for log in read_trials(folder / TRIALS)]
    chosen: dict[tuple[str, str], TrialLog] = {}
    for log in choose_references(logs, reference):
        chosen.setdefault((log.agent, log.label), log)
    draw = pulls_figure if kind == "pulls" else paths_figure
    few = {} if tasks is None else {"tasks": tasks}
    return draw(sorted(chosen.values(), key=lambda log: log.role != "agent"), **few)


def _target(
    folders: Sequence[Path],
    kind: str,
    out: str | os.PathLike[str] | None,
    formats: Sequence[str],
) -> tuple[str, Sequence[str]]:
    """Path of the picture without its ending, and the endings wanted."""
    for ending in formats:
        if ending not in METADATA:
            raise ConfigError(
                f"{ending!r} is no format of a picture here; use {', '.join(METADATA)}."
            )
    if out is None:
        common = (
            folders[0]
            if len(folders) == 1
            else Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
        )
        return str(common / kind), formats
    path = Path(out)
    if path.suffix.removeprefix(".") in METADATA:
        return str(path.with_suffix("")), [path.suffix.removeprefix(".")]
    return str(path), formats
