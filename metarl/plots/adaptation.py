"""The figure of adaptation curves: the return of each episode in unseen tasks."""

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from metarl.plots.episode_curves import EpisodeCurves, curves_figure
from metarl.results.adaptation_curves import Curve
from metarl.results.bootstrap import choose_references, join_curves, task_sets


def adaptation_figure(curves: Iterable[Curve], *, reference: Sequence[str] | None = None) -> Figure:
    """The adaptation curve of each agent, with its floors and ceilings."""
    return curves_figure(adaptation_curves(curves, reference=reference))


def adaptation_curves(
    curves: Iterable[Curve], *, reference: Sequence[str] | None = None
) -> EpisodeCurves:
    """What the figure shows."""
    curves = list(curves)
    sets = task_sets(choose_references(curves, reference))
    joined = [curve for group in sets for curve in join_curves(group)]
    several = "the tasks of each evaluation" if len(sets) > 1 else None
    return EpisodeCurves(curves[0], joined, "Return of the episode", several)
