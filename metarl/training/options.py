"""The options of a run; importing them loads no engine."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metarl.errors import ConfigError
from metarl.field_types import check_fields
from metarl.validation import require_between, require_positive

OnNaN = Literal["stop", "rollback"]
MAX_WORKERS = 10_000
"""more processes are a typo"""
KEPT_CHECKPOINTS = 3
"""number of checkpoints that a run keeps by default"""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how to run. Equal seeds on the same device and threads give equal runs."""

    seed: int = 0
    """root of all randomness of the run"""
    out: Path | None = None
    """the run folder; by default runs/AGENT-TASK-seedSEED"""
    resume: bool = False
    """go on with the run folder if it exists, exactly as if it had never stopped; with more
    iterations the run is prolonged, and schedules stretch over all of them"""
    init_from: str | None = None
    """another run in whose weights training starts, on tasks with equal spaces; optimiser and
    schedules start from the beginning"""
    device: str = "cpu"
    """torch device, such as cpu or cuda"""
    threads: int = 1
    """CPU threads for torch and the compiled library; more can help large networks and batches on
    an idle machine, and slow training down many times where other jobs use the cores"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this one does"""
    worker_timeout: float | None = None
    """seconds after which a worker that does not answer counts as hung; by default ten minutes"""
    checkpoint_seconds: float = 60.0
    """wall time between checkpoints; the first is after one iteration, the last at the end"""
    checkpoints: int = KEPT_CHECKPOINTS
    """number of checkpoints that are kept; --resume falls back to an older one if one is broken"""
    on_nan: OnNaN = "stop"
    """what to do where a loss, a gradient or an environment gives NaN: `stop`, keeping what was
    completed, or `rollback`, which goes back at most ten iterations and halves the learning rate"""
    max_rollbacks: int = 3
    """rollbacks of the whole run, after which training stops"""
    progress: bool = True
    """show a progress bar; without a terminal, a line every minute"""

    def __post_init__(self) -> None:
        if isinstance(self.init_from, os.PathLike):  # a run or its path
            object.__setattr__(self, "init_from", os.fspath(self.init_from))
        check_fields(self)
        require_positive("threads", self.threads)
        require_positive("checkpoint_seconds", self.checkpoint_seconds)
        require_positive("checkpoints", self.checkpoints)
        require_positive("max_rollbacks", self.max_rollbacks)
        require_positive("worker_timeout", self.worker_timeout)
        require_between("workers", self.workers or 0, 0, MAX_WORKERS)


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """What is measured, and how."""

    num_tasks: tuple[int, ...] = (64, 512, 2048)
    """tasks of a meta-batch; each number is measured"""
    rounds: int = 9
    """measurements of each workload; the median is shown, with the quartiles"""
    device: str = "cpu"
    """torch device, such as cpu or cuda"""
    threads: int = 1
    """CPU threads for torch and the compiled library"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this one does"""
    out: Path | None = None
    """also write a page (.md) and a JSON file (.json) of this name"""
    progress: bool = False
    """show a progress bar"""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.out is not None and (not self.out.name or self.out.is_dir()):
            raise ConfigError(
                f"out={str(self.out)!r} is a folder; name a file in it, such as speed."
            )
        if not self.num_tasks:
            raise ConfigError("num_tasks is empty; name one number or more, such as 512.")
        for number in self.num_tasks:
            require_positive("num_tasks", number)
        if self.rounds < 2:
            raise ConfigError(f"rounds={self.rounds} is too small for quartiles; use 2 or more.")
        require_positive("threads", self.threads)

    @property
    def files(self) -> tuple[Path, Path]:
        """The page and the JSON file; `out` must be given."""
        assert self.out is not None
        page, numbers = (self.out.with_name(self.out.name + end) for end in (".md", ".json"))
        return page, numbers
