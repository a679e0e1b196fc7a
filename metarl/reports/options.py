"""The options of a report; importing them loads no engine and no matplotlib."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import ConfigError
from metarl.field_types import check_fields
from metarl.validation import require_positive

ENDINGS = (".html", ".htm")


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """What a report shows, and where it is written."""

    out: Path | None = None
    """output file; by default report.html in the run folder, or in the folder that the runs have in
    common"""
    title: str | None = None
    """heading of the page; by default the agents and their family"""
    references: Sequence[str] | None = None
    """floors, baselines and ceilings to show; all, none, or names; by default all"""
    metric: str = "last_episode_return"
    """of the learning curves: a column of metrics.csv"""
    smooth: int | None = None
    """iterations in each running mean of the learning curves; by default a fiftieth of the run"""
    join_unfinished: bool = False
    """join runs that were not trained to their end with others, as seeds of one agent"""
    films: bool = True
    """include a short film of one trial of each agent"""
    progress: bool = False
    """show a progress bar while films are recorded"""

    def __post_init__(self) -> None:
        check_fields(self)
        require_positive("smooth", self.smooth)
        if self.out is not None and self.out.suffix.lower() not in ENDINGS:
            raise ConfigError(f"out={str(self.out)!r} must end in .html: a report is a web page.")
