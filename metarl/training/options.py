"""The options of a run; importing them loads no engine."""

from dataclasses import dataclass
from pathlib import Path

from metarl.validation import require_positive


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where and how to run. Equal seeds on the same device and threads give equal runs."""

    seed: int = 0
    """root of all randomness of the run"""
    out: Path | None = None
    """the run folder; by default runs/AGENT-TASK-seedSEED"""
    resume: bool = False
    """go on with the run folder if it exists, exactly as if it had never stopped"""
    device: str = "cpu"
    """torch device, such as cpu or cuda"""
    threads: int = 1
    """CPU threads for torch and the compiled library; more can help large networks and batches on
    an idle machine, and slow training down many times where other jobs use the cores"""
    workers: int | None = None
    """processes that step ordinary Gymnasium environments; by default this one does"""
    checkpoint_seconds: float = 60.0
    """wall time between checkpoints; there is always one at the end"""
    progress: bool = True
    """show a progress bar; without a terminal, a line every minute"""

    def __post_init__(self) -> None:
        require_positive("threads", self.threads)
        require_positive("checkpoint_seconds", self.checkpoint_seconds)
