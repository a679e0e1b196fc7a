"""What all trackers share: which numbers are logged, and that a failing service ends no training.

A tracker logs the metrics of each iteration and all evaluations over environment steps, and the
settings of the run. The id that the service gives a run is kept in the run folder, so that a
training that goes on is logged to the same one.
"""

import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from metarl.errors import ConfigError, RunFolderError
from metarl.results.files import json_text, write_text
from metarl.results.reading import quoted, read_json
from metarl.training.callbacks import Callback, Outcome, Row, TrainingView
from metarl.training.events import STEPS, flat_settings, grouped_tag
from metarl.training.leftovers import TRACKING_FILE

log = logging.getLogger("metarl")


@dataclass(frozen=True, kw_only=True)
class TrackedTraining:
    """What a service is told of a training that starts, or goes on."""

    name: str
    """of the run folder"""
    group: str
    """name of the folder that holds the run folder"""
    settings: Mapping[str, bool | int | float | str]
    """what defines the run"""
    known_id: str | None
    """of the service's run to which an earlier session of the training was logged"""


class TrackedRun(ABC):
    """The run of a service to which a training is logged."""

    id: str
    url: str | None
    """where it can be looked at in a browser"""

    @abstractmethod
    def log(self, values: Mapping[str, float], env_steps: int) -> None:
        """Adds metrics after so many environment steps."""

    @abstractmethod
    def finish(self, outcome: Outcome) -> None:
        """Logs what was not yet, and marks the run as ended in this way."""


class Tracker(Callback, ABC):
    """Logs a training to a service; one that fails causes a warning, and the training goes on.

    With several seeds each process has a copy, and a run of its own. Put it before
    `PeriodicEvaluation` in the list of callbacks, whose first evaluation is at the start.
    """

    service: ClassVar[str]
    """its name"""
    _tracked: TrackedRun | None = None
    _has_failed = False

    @abstractmethod
    def _begin(self, training: TrackedTraining) -> TrackedRun:
        """Starts a run of the service, or continues that of `training.known_id`."""

    def on_start(self, training: TrainingView) -> None:
        """Opens the run of the service.

        Raises:
            ConfigError: the training has two trackers of this service.
            RunFolderError: `tracking.json` cannot be read or written.
        """
        if sum(type(each) is type(self) for each in training.callbacks) > 1:
            raise ConfigError(f"A training can have one {type(self).__name__}.")
        path = training.run.path
        if not training.progress.rollbacks:
            self._has_failed = False
        if self._has_failed:
            return
        start = TrackedTraining(
            name=path.resolve().name,
            group=path.resolve().parent.name,
            settings=flat_settings(asdict(training.run.config)),
            known_id=_stored_id(path, self.service),
        )
        self._attempt(lambda: self._open(start))
        if self._tracked is not None:
            _store_id(path, self.service, self._tracked)

    def on_iteration(self, training: TrainingView, row: Row) -> None:
        """Logs the metrics."""
        self._log({grouped_tag(name): row[name] for name in row if name != STEPS}, training)

    def on_evaluation(self, training: TrainingView, rows: Sequence[Row]) -> None:
        """Logs every column of every measured episode, such as `evaluation/return_episode_10`."""
        self._log(_evaluated(rows), training)

    def on_end(self, training: TrainingView) -> None:
        """Ends the run of the service, with the outcome of the training."""
        tracked = self._tracked
        if tracked is not None:
            self._attempt(lambda: tracked.finish(training.outcome))
        self._tracked = None

    def _open(self, start: TrackedTraining) -> None:
        self._tracked = self._begin(start)

    def _log(self, values: Mapping[str, float], training: TrainingView) -> None:
        tracked = self._tracked
        if tracked is not None:
            self._attempt(lambda: tracked.log(values, training.progress.env_steps))

    def _attempt(self, action: Callable[[], None]) -> None:
        """Calls the service; its first error is the last call, because each may take a minute."""
        try:
            action()
        except Exception as error:
            self._tracked, self._has_failed = None, True
            log.warning(
                "%s has failed (%s: %s). The training goes on and is not logged there any more; "
                "the run folder has all numbers.",
                self.service,
                type(error).__name__,
                error,
            )


def _evaluated(rows: Sequence[Row]) -> dict[str, float]:
    """The points of an evaluation as metrics; success is left out where it is not defined."""
    return {
        f"evaluation/{name}_episode_{row['episode']:.0f}": row[name]
        for row in rows
        for name in ("return", "standard_error", "success")
        if not math.isnan(row[name])
    }


def tracked_urls(folder: Path) -> list[str]:
    """Where the run in a folder can be looked at in a browser, for each service that has a page."""
    entries = [entry for entry in _stored(folder).values() if isinstance(entry, dict)]
    return [str(entry["url"]) for entry in entries if "url" in entry]


def _stored(folder: Path) -> dict[str, Any]:
    path = folder / TRACKING_FILE
    content = read_json(path, "a run's tracking.json") if path.exists() else {}
    if not isinstance(content, dict):
        raise RunFolderError(
            f"{path} is no mapping of services. Remove it to start new runs there."
        )
    return content


def _stored_id(folder: Path, service: str) -> str | None:
    """The id that an earlier session has stored."""
    entry = _stored(folder).get(service)
    if entry is None:
        return None
    found = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(found, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", found):
        raise RunFolderError(
            f"{folder / TRACKING_FILE} has {quoted(found)} as the id of a run of {service}; it was "
            "edited. Remove the file to start a new run there."
        )
    return found


def _store_id(folder: Path, service: str, tracked: TrackedRun) -> None:
    path = folder / TRACKING_FILE
    entry = {"id": tracked.id, **({"url": tracked.url} if tracked.url else {})}
    write_text(path, json_text(path, {**_stored(folder), service: entry}))
