"""The options of a video; importing them loads no engine and no image library."""

from dataclasses import dataclass
from pathlib import Path

from metarl.errors import ConfigError
from metarl.field_types import check_fields
from metarl.validation import require_between, require_positive

MIN_SIZE, MAX_SIZE = 120, 2000
"""pixels of a frame's longer side: captions need a minimum, memory sets a maximum"""


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """Which trial is recorded, and how it is written."""

    out: Path | None = None
    """output file, such as trial.gif or trial.mp4; by default trial.gif in the run folder"""
    num: int = 0
    """index of the task in the test split; equal indices and seeds are the tasks of an evaluation
    with its default number of tasks"""
    seed: int = 0
    """of the task and the trial, independent of the training seed"""
    episodes: int | None = None
    """consecutive episodes per phase; by default as in training"""
    every: int = 1
    """keep each n-th step of an episode, its start and its end"""
    fps: float = 10.0
    """frames per second"""
    size: int = 400
    """pixels of a frame's longer side"""
    device: str = "cpu"
    """torch device, such as cpu or cuda"""
    progress: bool = False
    """show a progress bar"""

    def __post_init__(self) -> None:
        check_fields(self)
        require_positive("episodes", self.episodes)
        require_positive("every", self.every)
        if self.num < 0:
            raise ConfigError(f"num={self.num} must not be negative: tasks are numbered from 0 on.")
        require_between("fps", self.fps, 0.1, 50)  # the limits of GIF timing and of browsers
        require_between("size", self.size, MIN_SIZE, MAX_SIZE)
