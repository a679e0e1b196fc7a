"""Adaptation curves as pictures: rows of evaluated runs go in, figures come out.

Nothing here knows agents or environments; whatever wrote the rows can be drawn.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metarl.errors import ConfigError, RunFolderError, UnknownNameError
from metarl.rows import FILE_NAME, Curve, read_curves
from metarl.statistics import ROLES, Line, bootstrap_mean, join_curves

FEW_POINTS = 12
"""up to here each point is worth a marker of its own"""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES: tuple[Any, ...] = ("-", (0, (7, 1.5)), (0, (7, 1.5, 1.5, 1.5)), (0, (3, 1)))
_GREYS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "ceiling": ("black", ((0, (5, 2)), (0, (5, 2, 1, 2)), (0, (5, 2, 1, 2, 1, 2)))),
    "baseline": ("0.35", ((0, (3, 1.5)), (0, (3, 1.5, 1, 1.5)), (0, (8, 2)))),
    "floor": ("0.55", ((0, (1, 1.2)), (0, (1, 3)), (0, (1, 1.2, 4, 1.2)))),
}
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.titlesize": 9,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "metarl",  # equal rows give equal files
}
_METADATA: dict[str, dict[str, None]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def plot(
    runs: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    reference: Sequence[str] | None = None,
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draws how fast the agents of some evaluated runs adapt, into one picture.

    Runs of the same agent are taken as its training seeds and joined into one line: the mean,
    with a 95% bootstrap interval over tasks and, where there are several, over runs.

    Args:
        runs: folders of runs that `evaluate` has been through.
        out: the picture's path; an ending such as `.pdf` asks for that format alone. By default
            `adaptation` in the run's folder, or in the folder that the runs have in common.
        reference: names of the floors, baselines and ceilings to draw; None draws all.
        formats: any of png, svg, pdf.

    Returns:
        The files written.

    Raises:
        RunFolderError: a run has not been evaluated, or the picture cannot be written.
        ConfigError: the runs cannot be compared, or a format is unknown.
        UnknownNameError: there is no such reference.
    """
    folders = _folders(runs)
    stem, formats = _target(folders, out, formats)
    curves = [curve for folder in folders for curve in read_curves(folder / FILE_NAME)]
    with matplotlib.rc_context(_STYLE):
        figure = adaptation_figure(curves, reference=reference)
        return [_save(figure, stem, ending) for ending in formats]


def adaptation_figure(curves: Iterable[Curve], *, reference: Sequence[str] | None = None) -> Figure:
    """The adaptation curve of each agent over its floors and ceilings."""
    curves = list(curves)
    lines = join_curves(_chosen(curves, reference))
    figure = Figure(figsize=(6.4, 3.4), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw(axes, lines)
    axes.set_title(curves[0].family, loc="left", color="0.35")
    axes.set_xlabel("Episodes of experience in the task")
    axes.set_ylabel("Return of the episode")
    axes.grid(color="0.92", linewidth=0.8)
    _add_legend(figure, axes, lines)
    figure.supxlabel(_note(curves, lines), fontsize=8, color="0.35")
    return figure


def _chosen(curves: Sequence[Curve], reference: Sequence[str] | None) -> list[Curve]:
    known = sorted({curve.agent for curve in curves if curve.role != "agent"})
    for name in reference or ():
        if name not in known:
            raise UnknownNameError(
                f"No reference is called {name!r}; the rows hold {', '.join(known) or 'none'}."
            )
    return [
        curve
        for curve in curves
        if curve.role == "agent" or reference is None or curve.agent in reference
    ]


def _drawing_order(lines: Sequence[Line]) -> list[Line]:
    """References first, so that agents lie on top."""
    return sorted(lines, key=lambda line: line.role == "agent")


def _draw(axes: Axes, lines: Sequence[Line]) -> None:
    few = all(len(line.episode) <= FEW_POINTS for line in lines)
    agents = sum(line.role == "agent" for line in lines)
    drawn: dict[str, int] = dict.fromkeys(ROLES, 0)
    bottom = _bottom(lines)
    for line in _drawing_order(lines):
        index = drawn[line.role]
        drawn[line.role] += 1
        if line.role != "agent":
            _draw_reference(axes, line, index, bottom)
        elif len(line.episode) <= FEW_POINTS:
            # Side by side, so that the intervals of equally good agents stay legible.
            _draw_points(axes, line, index, shift=0.06 * (index - (agents - 1) / 2) * few)
        else:
            _draw_band(axes, line, index)
    if few:
        axes.set_xticks(sorted({int(k) for line in lines for k in line.episode}))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.06 if few else 0.02)


def _add_legend(figure: Figure, axes: Axes, lines: Sequence[Line]) -> None:
    """Beside the axes, in the order in which the eye meets the lines at the right edge."""
    handles, labels = axes.get_legend_handles_labels()
    # Some points, not one: the last alone may be noisier than the gap between two lines.
    height = [line.mean[-1 - len(line.mean) // 10 :].mean() for line in _drawing_order(lines)]
    order = np.argsort(height, kind="stable")[::-1]
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside right upper",
        frameon=False,
        handlelength=3.2,
    )


def _bottom(lines: Sequence[Line]) -> float:
    """Below this a floor would press everything else flat, so it is only named in the legend."""
    above = [line.mean for line in lines if line.role != "floor"]
    if not above:
        return -np.inf
    low, high = min(mean.min() for mean in above), max(mean.max() for mean in above)
    return float(low - 5 * (high - low)) if high > low else -np.inf


def _draw_reference(axes: Axes, line: Line, index: int, bottom: float) -> None:
    colour, dashes = _GREYS[line.role]
    far = bool(line.mean.max() < bottom)
    axes.plot(
        [] if far else line.episode,
        [] if far else line.mean,
        color=colour,
        linestyle=dashes[index % len(dashes)],
        linewidth=1.4,
        marker="_" if len(line.episode) == 1 else "",  # a line of one point is not seen
        label=f"{line.label} (at {line.mean.mean():.3g})" if far else line.label,
    )


def _draw_points(axes: Axes, line: Line, index: int, *, shift: float) -> None:
    mean, low, high = bootstrap_mean(line.returns)
    axes.errorbar(
        line.episode + shift,
        mean,
        yerr=[mean - low, high - mean],
        color=_COLOURS[index % len(_COLOURS)],
        linestyle=_DASHES[index // len(_COLOURS) % len(_DASHES)],
        linewidth=1.6,
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=5,
        capsize=2.5,
        label=line.label,
    )


def _draw_band(axes: Axes, line: Line, index: int) -> None:
    mean, low, high = bootstrap_mean(line.returns)
    colour = _COLOURS[index % len(_COLOURS)]
    axes.fill_between(line.episode, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(
        line.episode,
        mean,
        color=colour,
        linestyle=_DASHES[index % len(_DASHES)],
        linewidth=1.8,
        label=line.label,
    )


def _note(curves: Sequence[Curve], lines: Sequence[Line]) -> str:
    kind = "unseen tasks" if curves[0].split == "test" else f"{curves[0].split}ing tasks"
    text = f"Mean and 95% bootstrap interval over {curves[0].num_tasks:,} {kind}"
    runs = sorted({line.num_runs for line in lines if line.role == "agent"})
    if not runs:
        return text
    if runs[-1] == 1:
        return f"{text}, one training seed"
    several = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else str(runs[0])
    return f"{text} and {several} training seeds"


def _folders(runs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Each folder once, in order; a single path is taken as a list of one."""
    if isinstance(runs, str | os.PathLike):
        runs = [runs]
    folders = list({Path(run).resolve(): Path(run) for run in runs}.values())
    if not folders:
        raise ConfigError("There is nothing to plot; name at least one run folder.")
    return folders


def _target(
    folders: Sequence[Path], out: str | os.PathLike[str] | None, formats: Sequence[str]
) -> tuple[str, Sequence[str]]:
    """Path of the picture without its ending, and the endings wanted."""
    for ending in formats:
        if ending not in _METADATA:
            raise ConfigError(
                f"{ending!r} is no format of a picture here; use {', '.join(_METADATA)}."
            )
    if out is None:
        common = (
            folders[0]
            if len(folders) == 1
            else Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
        )
        return str(common / "adaptation"), formats
    path = Path(out)
    if path.suffix.removeprefix(".") in _METADATA:
        return str(path.with_suffix("")), [path.suffix.removeprefix(".")]
    return str(path), formats


def _save(figure: Figure, stem: str, ending: str) -> Path:
    path = Path(f"{stem}.{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=_METADATA[ending])
    except OSError as error:
        raise RunFolderError(
            f"The picture cannot be written to {path}: {error.strerror}. Choose another place "
            "with `out`."
        ) from error
    return path
