"""What all trackers share, with a service that records what it is told."""

import json
import logging
import os
import signal
import sys

import pytest

import metarl
from metarl.cli import main as cli
from metarl.errors import ConfigError, NonFiniteError, RunFolderError
from metarl.results.learning_curves import read_metrics
from metarl.tracking.mlflow_tracker import MlflowTracker
from metarl.tracking.tracker import TrackedRun, Tracker, tracked_urls
from metarl.tracking.wandb_tracker import WandbTracker
from metarl.training.callbacks import Callback
from metarl.training.interruption import StoppedBySignal
from metarl.training.loop import train
from tests.training.test_loop import assert_equal_runs

BANDIT = "metarl/BernoulliBandit-v0"
SMALL = {"num_tasks": 8, "hidden_size": 8, "iterations": 3, "progress": False}


class Recorded(TrackedRun):
    def __init__(self, tracker, name):
        self.tracker, self.id, self.url = tracker, name, None

    def log(self, values, env_steps):
        self.tracker.call("log", values, env_steps)

    def finish(self, outcome):
        self.tracker.call("finish", outcome)


class Recorder(Tracker):
    """Records the calls; fails in those of a kind."""

    service = "recorder"

    def __init__(self, fails_at=None):
        self.calls, self.fails_at = [], fails_at

    def call(self, kind, *arguments):
        self.calls.append((kind, *arguments))
        if kind == self.fails_at:
            raise ConnectionError("no route to host")

    def _begin(self, training):
        self.call("begin", training)
        return Recorded(self, training.known_id or f"run-{len(self.calls)}")

    @property
    def kinds(self):
        return [kind for kind, *_ in self.calls]


class Raising(Callback):
    """Raises an error, or sends a signal, after the second iteration."""

    def __init__(self, cause):
        self.cause = cause

    def on_iteration(self, training, row):
        if training.progress.iteration == 2:
            if isinstance(self.cause, BaseException):
                raise self.cause
            os.kill(os.getpid(), self.cause)


def test_all_metrics_and_settings_are_logged(tmp_path):
    tracker = Recorder()
    run = train("rl2", BANDIT, out=tmp_path / "group" / "mine", callbacks=[tracker], **SMALL)
    (_, begun), *logged, ended = tracker.calls
    assert (begun.name, begun.group, begun.known_id) == ("mine", "group", None)
    assert begun.settings["hidden_size"] == 8
    assert begun.settings["task.arms"] == 5
    assert ended == ("finish", "complete")
    rows = read_metrics(run.path / "metrics.csv")
    assert [steps for _, _, steps in logged] == [int(row["env_steps"]) for row in rows]
    for (_, values, _), row in zip(logged, rows, strict=True):
        assert len(values) == len(row) - 1  # all but the environment steps
        assert values["rollout/last_episode_return"] == pytest.approx(
            float(row["last_episode_return"]), rel=1e-5
        )
    assert not tracked_urls(run.path)


def test_a_tracker_changes_no_number_of_the_training(tmp_path):
    plain = train("rl2", BANDIT, out=tmp_path / "plain", **SMALL)
    for at, fails_at in enumerate((None, "begin", "log", "finish")):
        tracker = Recorder(fails_at)
        run = train("rl2", BANDIT, out=tmp_path / f"run{at}", callbacks=[tracker], **SMALL)
        assert_equal_runs(plain, run)


def test_evaluations_are_logged_at_their_steps(tmp_path):
    tracker = Recorder()
    evaluation = metarl.PeriodicEvaluation(2, num_tasks=5)
    train("rl2", BANDIT, out=tmp_path / "run", callbacks=[tracker, evaluation], **SMALL)
    found = [
        (values, steps)
        for kind, *rest in tracker.calls
        if kind == "log"
        for values, steps in [rest]
        if any(name.startswith("evaluation/") for name in values)
    ]
    lines = (tmp_path / "run" / "evaluation_curve.csv").read_text().splitlines()
    assert len(found) == 3  # before training, after two iterations, and after the last
    assert [steps for _, steps in found] == [0, 8 * 10 * 2, 8 * 10 * 3]
    names = [
        f"evaluation/{name}_episode_{n}"
        for n in range(1, 11)
        for name in ("return", "standard_error")
    ]
    assert set(found[0][0]) == set(names)  # a bandit defines no success
    column = lines[0].split(",").index("return")
    assert found[0][0]["evaluation/return_episode_1"] == pytest.approx(
        float(lines[1].split(",")[column]), rel=1e-5
    )


@pytest.mark.parametrize(
    ("cause", "raised", "outcome"),
    [
        (signal.SIGINT, KeyboardInterrupt, "stopped"),
        (signal.SIGTERM, StoppedBySignal, "stopped"),
        (KeyboardInterrupt(), KeyboardInterrupt, "stopped"),
        (ArithmeticError("mine"), ArithmeticError, "failed"),
        (NonFiniteError("mine"), NonFiniteError, "failed"),
    ],
)
def test_the_end_is_marked_and_the_same_run_goes_on(tmp_path, cause, raised, outcome):
    first, second = Recorder(), Recorder()
    options = {"out": tmp_path / "run", **SMALL}
    with pytest.raises(raised):
        train("rl2", BANDIT, callbacks=[first, Raising(cause)], **options)
    assert first.calls[-1] == ("finish", outcome)
    stored = json.loads((tmp_path / "run" / "tracking.json").read_text())
    assert stored == {"recorder": {"id": "run-1"}}
    train("rl2", BANDIT, callbacks=[second], resume=True, **options)
    assert second.calls[0][1].known_id == "run-1"
    assert second.calls[-1] == ("finish", "complete")
    assert second.kinds == ["begin", "log", "finish"]


def test_a_training_that_a_callback_stops_is_marked_so(tmp_path):
    class Stopping(Callback):
        def on_iteration(self, training, row):
            return training.progress.iteration == 1

    tracker = Recorder()
    train("rl2", BANDIT, out=tmp_path / "run", callbacks=[tracker, Stopping()], **SMALL)
    assert tracker.calls[-1] == ("finish", "stopped")


@pytest.mark.parametrize("fails_at", ["begin", "log", "finish"])
def test_a_service_that_fails_is_named_once_and_not_called_again(tmp_path, caplog, fails_at):
    tracker = Recorder(fails_at)
    with caplog.at_level(logging.WARNING, "metarl"):
        run = train("rl2", BANDIT, out=tmp_path / "run", callbacks=[tracker], **SMALL)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("recorder has failed (ConnectionError: no route to host).")
    assert tracker.kinds.count(fails_at) == 1
    assert tracker.kinds[-1] == fails_at
    assert run.load(run.make_agent(run.config.make_family())).iteration == 3


def test_a_tracker_that_has_failed_is_asked_again_when_the_run_goes_on(tmp_path):
    tracker = Recorder("log")
    options = {"out": tmp_path / "run", **SMALL}
    train("rl2", BANDIT, callbacks=[tracker], **options)
    tracker.fails_at = None
    train("rl2", BANDIT, callbacks=[tracker], resume=True, **options | {"iterations": 4})
    assert tracker.kinds == ["begin", "log", "begin", "log", "finish"]


@pytest.mark.parametrize("text", ['{"recorder": {"id": "../x"}}', '{"recorder": 3}', "[]", "{"])
def test_an_edited_id_is_refused(tmp_path, text):
    options = {"out": tmp_path / "run", **SMALL}
    train("rl2", BANDIT, callbacks=[Recorder()], **options)
    (tmp_path / "run" / "tracking.json").write_text(text)
    again = {**options, "iterations": 4, "resume": True}
    with pytest.raises(RunFolderError, match=r"tracking\.json"):
        train("rl2", BANDIT, callbacks=[Recorder()], **again)
    train("rl2", BANDIT, **again)  # without a tracker it is not read


def test_what_a_training_without_an_iteration_left_is_no_foreign_file(tmp_path):
    options = {"out": tmp_path / "run", **SMALL}

    class Failing(Callback):
        def on_start(self, training):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        train("rl2", BANDIT, callbacks=[Recorder(), Failing()], **options)
    assert (tmp_path / "run" / "tracking.json").exists()
    tracker = Recorder()
    train("rl2", BANDIT, callbacks=[tracker], **options)
    assert tracker.calls[0][1].known_id is None


def test_two_trackers_of_a_service_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="one Recorder"):
        train("rl2", BANDIT, out=tmp_path / "r", callbacks=[Recorder(), Recorder()], **SMALL)


@pytest.mark.parametrize("tracker", [WandbTracker, MlflowTracker])
def test_a_missing_extra_is_reported_before_a_folder_exists(tmp_path, monkeypatch, capsys, tracker):
    service = tracker.service
    for name in [*sys.modules]:
        if name.split(".")[0] == service:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, service, None)
    with pytest.raises(ConfigError, match=rf"pip install 'metarl-suite\[{service}\]'"):
        tracker()
    out = tmp_path / "run"
    assert cli.main(["train", "rl2", BANDIT, "--track", service, "--out", str(out)]) == 2
    assert f"pip install 'metarl-suite[{service}]'" in capsys.readouterr().err
    assert not out.exists()


def test_an_unknown_service_is_refused(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["train", "rl2", BANDIT, "--track", "wendb", "--out", str(out)]) == 2
    assert "wandb" in capsys.readouterr().err
    assert not out.exists()
