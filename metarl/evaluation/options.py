"""The options of an evaluation; importing them loads no engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metarl.errors import ConfigError
from metarl.field_types import check_fields
from metarl.results.evaluation_files import TableForm
from metarl.split import Split
from metarl.text import first_control
from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How an agent is evaluated. Equal seeds and numbers of tasks give the same tasks."""

    num_tasks: int = 1000
    """tasks drawn from the split"""
    seed: int = 0
    """of tasks and noise, independent of the training seed; equal seeds make runs comparable task
    by task"""
    episodes: int | None = None
    """consecutive episodes per phase; by default as in training, else as the family defines"""
    split: Split = "test"
    """test, or train to look for a generalisation gap"""
    references: Sequence[str] = ("default",)
    """floors, baselines and ceilings to evaluate in the same tasks; default, all, none, or names"""
    label: str | None = None
    """name in figures and tables, by default that of the agent; runs with equal labels count as
    seeds of one agent"""
    out: Path | None = None
    """folder for the results; by default the run folder, where an earlier evaluation with other
    settings is moved to evaluations/"""
    table: TableForm = "csv"
    """form of the rows: csv writes adaptation.csv; parquet writes adaptation.parquet, which is
    small and fast to read for long runs (extra parquet)"""
    device: str = "cpu"
    """torch device, such as cpu or cuda"""
    threads: int = 1
    """CPU threads, as in training"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this process does"""
    progress: bool = False
    """show a progress bar"""

    def __post_init__(self) -> None:
        if isinstance(self.references, bool):  # short for "default" and "none"
            object.__setattr__(self, "references", ("default" if self.references else "none",))
        check_fields(self)
        require_positive("num_tasks", self.num_tasks)
        require_positive("episodes", self.episodes)
        require_positive("threads", self.threads)
        if self.label is not None and (not self.label.strip() or first_control(self.label)):
            raise ConfigError(
                f"label={self.label!r} must be a text of one line; it names the agent in figures "
                "and tables."
            )
