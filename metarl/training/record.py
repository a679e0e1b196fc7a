"""The record of a training: a row of `metrics.csv` and events of TensorBoard per iteration."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from metarl.results.learning_curves import METRICS_FILE, MetricsFile
from metarl.training.events import EventFile


class TrainingRecord:
    """Both files, continued after the first `keep` iterations of an earlier session."""

    def __init__(
        self, folder: Path, *, keep: int, env_steps: int, settings: Mapping[str, Any]
    ) -> None:
        """Opens the files.

        Args:
            folder: of the run.
            keep: iterations of an earlier session.
            env_steps: environment steps of these.
            settings: what defines the run.

        Raises:
            RunFolderError: they cannot be written.
        """
        self._metrics = MetricsFile(folder / METRICS_FILE, keep=keep)
        try:
            self._events = EventFile(folder, purge_step=env_steps + 1)
            if keep == 0:
                self._events.write_settings(settings)
        except BaseException:
            self._metrics.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._metrics.close()
        self._events.close()

    def write(self, row: Mapping[str, float]) -> None:
        """Adds the metrics of one iteration.

        Raises:
            RunFolderError: the disk is full, or a file cannot be written.
        """
        self._metrics.write(row)
        self._events.write(row)

    def sync(self) -> None:
        """Waits until the rows have reached the disk."""
        self._metrics.sync()
