"""The figure of a sweep: a point with an interval for each setting, the best on top."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from metarl.plots.style import COLOURS, MUTED, STYLE, add_note, new_figure, save, tasks_text
from metarl.results.sweeps import SweepTable

MAX_SHOWN = 40
"""settings in the figure; the table has all"""
METRICS = {"last": "return of the last episode", "total": "return of the whole trial"}


def sweep_figure(table: SweepTable) -> Figure:
    """Interquartile means with their intervals, and the scores of the seeds as small points."""
    record = table.record
    rows = [row for row in table.rows if row.score is not None][:MAX_SHOWN]
    figure = new_figure(6.4, 1.4 + 0.24 * max(3, len(rows)))
    axes = figure.subplots()
    for position, row in enumerate(rows):
        assert row.score is not None
        mean, low, high = map(float, row.score)
        seeds = list(row.scores.values())
        axes.plot(seeds, [position] * len(seeds), ".", color=MUTED, markersize=3, zorder=1)
        axes.plot([low, high], [position] * 2, color=COLOURS[0], linewidth=1.5)
        axes.plot(mean, position, "o", color=COLOURS[0], markersize=5)
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=7)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_xlabel(METRICS[record.metric])
    axes.set_title(f"{record.agent} on {record.family}", color=MUTED)
    axes.grid(axis="x", color="0.9")
    add_note(
        figure,
        f"Interquartile mean over seeds with a 95% bootstrap interval; points are single seeds; "
        f"{tasks_text(record.split, record.num_tasks)}. The best of many settings looks better "
        "here than it is: evaluate it in test tasks.",
    )
    return figure


def write_figure(folder: Path, table: SweepTable) -> list[Path]:
    """Writes `sweep.png` and `sweep.svg`."""
    with matplotlib.rc_context(STYLE):
        figure = sweep_figure(table)
        return [save(figure, str(folder / "sweep"), ending) for ending in ("png", "svg")]
