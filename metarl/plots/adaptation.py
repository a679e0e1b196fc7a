"""The figure of adaptation curves: the return of each episode in unseen tasks."""

from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from metarl.plots.episode_curves import curves_figure
from metarl.results.adaptation_curves import Curve
from metarl.results.bootstrap import choose_references, join_curves


def adaptation_figure(curves: Iterable[Curve], *, reference: Sequence[str] | None = None) -> Figure:
    """The adaptation curve of each agent, with its floors and ceilings."""
    curves = list(curves)
    joined = join_curves(choose_references(curves, reference))
    return curves_figure(curves[0], joined, "Return of the episode")
