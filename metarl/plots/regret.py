"""The figure of cumulative regret over episodes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from metarl.plots.episode_curves import EpisodeCurves, curves_figure
from metarl.results.adaptation_curves import Curve
from metarl.results.bootstrap import choose_references, join_curves
from metarl.results.scores import cumulative_regret, regret_reference


def regret_figure(curves: Iterable[Curve], *, reference: Sequence[str] | None = None) -> Figure:
    """The cumulative regret of each agent against the highest ceiling."""
    return curves_figure(regret_curves(curves, reference=reference))


def regret_curves(
    curves: Iterable[Curve], *, reference: Sequence[str] | None = None
) -> EpisodeCurves:
    """What the figure shows.

    Raises:
        ConfigError: there is no ceiling, or episodes are missing from a curve.
    """
    curves = list(curves)
    ceiling = regret_reference(join_curves(curves))
    joined = [
        replace(curve, returns=cumulative_regret(curve, ceiling))
        for curve in join_curves(choose_references(curves, reference))
        if curve.label != ceiling.label
    ]
    return EpisodeCurves(curves[0], joined, f"Cumulative regret against\n{ceiling.label}")
