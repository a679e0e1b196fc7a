"""The options of a figure; importing them loads no matplotlib."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from metarl.errors import ConfigError
from metarl.field_types import check_fields

MAX_SIDE = 60
"""inches; larger figures are typos, such as centimetres or pixels"""

FigureKind: TypeAlias = Literal["adaptation", "regret", "learning", "pulls", "paths"]


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """What is plotted, and where the figure is written."""

    kind: FigureKind = "adaptation"
    """adaptation: return over episodes of experience; regret: cumulative regret against the
    ceiling; learning: a training metric over steps and time; pulls: arms pulled in a few bandits;
    paths: trajectories of each episode to a few goals"""
    out: Path | None = None
    """output path, such as curve or curve.pdf; by default named after the kind, next to the runs"""
    references: Sequence[str] | None = None
    """floors, baselines and ceilings to plot; all, none, or names; by default all in curves, and
    none in pulls and paths"""
    data: Path | None = None
    """also write what is plotted to this CSV file: means and intervals, or steps"""
    size: tuple[float, float] | None = None
    """width and height in inches"""
    ylim: tuple[float, float] | None = None
    """ends of the y-axis; by default a curve that would squeeze all others is cut off"""
    labels: Sequence[str] | None = None
    """one name for each run, in their order, in place of the labels of evaluations"""
    formats: Sequence[str] = ("png", "svg")
    """any of png, svg, pdf"""
    metric: str = "last_episode_return"
    """of learning: a column of metrics.csv"""
    smooth: int | None = None
    """of learning: iterations in each running mean; by default a fiftieth of the run, 1 for none"""
    join_unfinished: bool = False
    """join runs that were not trained to their end with others, as seeds of one agent"""
    tasks: int | None = None
    """of pulls and paths: number of tasks to show"""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ylim is not None and self.kind in ("pulls", "paths"):
            raise ConfigError(
                f"ylim is no option of a figure of {self.kind}, but of adaptation, regret and "
                "learning."
            )
        for name, path in (("out", self.out), ("data", self.data)):
            if path is not None and not path.name:
                raise ConfigError(f"{name}={str(path)!r} must be the path of a file.")
        if not self.formats:
            raise ConfigError("formats is empty, so no figure would be written. Name png or svg.")
        if self.size is not None and not all(1 <= side <= MAX_SIDE for side in self.size):
            raise ConfigError(f"size={self.size} must be sides of 1 to {MAX_SIDE} inches.")
        if self.ylim is not None and not -math.inf < self.ylim[0] < self.ylim[1] < math.inf:
            raise ConfigError(f"ylim={self.ylim} must be two finite numbers, the lower one first.")

    @property
    def shown_references(self) -> list[str] | None:
        """The names of the references to plot; None for all."""
        default = ["none"] if self.kind in ("pulls", "paths") else ["all"]
        return reference_names(default if self.references is None else self.references)


def reference_names(wanted: Sequence[str]) -> list[str] | None:
    """The names in `wanted`, where "none" stands for no name; None stands for all references."""
    return None if list(wanted) == ["all"] else [name for name in wanted if name != "none"]
