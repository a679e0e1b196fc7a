"""The tracker of MLflow, an extra: to a server, or to a database file of this machine."""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from metarl.errors import ConfigError
from metarl.extras import require_extra
from metarl.field_types import check_fields
from metarl.results.reading import shortened
from metarl.tracking.tracker import TrackedRun, TrackedTraining, Tracker
from metarl.training.callbacks import Outcome
from metarl.training.launcher import is_first_rank

EXPERIMENT = "metarl"
STATUS: Mapping[Outcome, str] = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""MLflow's words"""
BATCH_SECONDS = 2.0
"""between two requests to the store; iterations can be faster"""
BATCH_METRICS = 1000
"""the most that MLflow takes in a request"""
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that does not answer delays the training once, by seconds instead of many minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""defaults of variables that MLflow reads"""


@dataclass
class MlflowTracker(Tracker):
    """Logs a training to MLflow.

    Raises:
        ConfigError: MLflow, or the package for its database files, is not installed, or the file
            cannot be opened.
    """

    experiment: str | None = None
    """by default that of MLFLOW_EXPERIMENT_NAME, or metarl"""
    uri: str | None = None
    """of a server or a store; by default that of MLFLOW_TRACKING_URI, or the file mlflow.db in the
    current folder"""
    service: ClassVar[str] = "mlflow"

    def __post_init__(self) -> None:
        check_fields(self)
        if "://" in (uri := self.store) and not uri.startswith("http"):
            for package in ("sqlalchemy", "alembic"):
                need = f"MLflow's store {without_login(uri)} needs {package}"
                require_extra(package, "mlflow", need)
            if is_first_rank():  # the one whose callbacks are called
                _make_store(uri)

    @property
    def store(self) -> str:
        """The URI that is used."""
        return self.uri or str(_mlflow().get_tracking_uri())

    def _begin(self, training: TrackedTraining) -> TrackedRun:
        """Starts or continues a run."""
        return _MlflowRun(self, training)


def without_login(address: str) -> str:
    """The address without a name and a password in it."""
    return re.sub(r"(?<=://)[^/@]*@", "", address)


def _make_store(uri: str) -> None:
    """Makes the tables of a database; two processes that do it at the same time break it."""
    path = Path(uri.removeprefix("sqlite:///"))
    reason = "there is no such folder"
    if not uri.startswith("sqlite:") or (path.parent.is_dir() and not path.is_dir()):
        try:
            _mlflow().MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
            return
        except Exception as error:  # of MLflow, SQLAlchemy or the driver of a database
            reason = shortened(without_login(str(error)))
    raise ConfigError(
        f"MLflow cannot open the store {without_login(uri)}: {reason}. Name another one in "
        "MLFLOW_TRACKING_URI, such as sqlite:///mlflow.db, or the address of a server."
    )


class _MlflowRun(TrackedRun):
    def __init__(self, tracker: MlflowTracker, training: TrackedTraining) -> None:
        self._mlflow, store = _mlflow(), tracker.store
        self._client = self._mlflow.MlflowClient(tracking_uri=store)
        self._waiting: list[Any] = []
        self._sent_at = time.monotonic()
        found = None
        if training.known_id is not None:
            found = self._found(training.known_id)
        if found is None:
            found = self._new(tracker, training)
        self.id = found.info.run_id
        place = f"{without_login(store)}/#/experiments/{found.info.experiment_id}/runs/{self.id}"
        self.url = place if store.startswith("http") else None

    def _found(self, run_id: str) -> Any:
        """The run of an earlier session, which runs again; None if the store does not have it."""
        try:
            self._client.update_run(run_id, status="RUNNING")
            return self._client.get_run(run_id)
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _new(self, tracker: MlflowTracker, training: TrackedTraining) -> Any:
        name = tracker.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.create_run(
            self._experiment(name), run_name=training.name, tags={"group": training.group}
        )
        params = [
            self._mlflow.entities.Param(key, str(value)) for key, value in training.settings.items()
        ]
        self._client.log_batch(found.info.run_id, params=params)
        return found

    def _experiment(self, name: str) -> str:
        """The id of an experiment, which another process may make at the same time."""
        try:
            return str(self._client.create_experiment(name))
        except self._mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self._client.get_experiment_by_name(name).experiment_id)

    def log(self, values: Mapping[str, float], env_steps: int) -> None:
        now = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        self._waiting += [metric(name, value, now, env_steps) for name, value in values.items()]
        if time.monotonic() - self._sent_at >= BATCH_SECONDS or len(self._waiting) >= BATCH_METRICS:
            self._send()

    def finish(self, outcome: Outcome) -> None:
        self._send()
        self._client.set_terminated(self.id, status=STATUS[outcome])

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self.id, metrics=self._waiting[:BATCH_METRICS])
            del self._waiting[:BATCH_METRICS]
        self._sent_at = time.monotonic()


def _mlflow() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    require_extra("mlflow.entities", "mlflow", "Tracking by MLflow needs the package mlflow-skinny")
    return require_extra("mlflow", "mlflow", "Tracking by MLflow needs the package mlflow-skinny")
