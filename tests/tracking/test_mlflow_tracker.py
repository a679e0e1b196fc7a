"""The tracker of MLflow, read back from a database file."""

import os
import sys

import pytest

import metarl
from metarl.cli import main as cli
from metarl.errors import ConfigError
from metarl.results.learning_curves import read_metrics
from metarl.tracking.mlflow_tracker import MlflowTracker
from metarl.training.loop import train
from metarl.training.seeds import train_seeds
from tests.tracking.test_tracker import Raising

mlflow = pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
pytest.importorskip("sqlalchemy", reason="needs the extra 'mlflow'")

# MLflow uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

BANDIT = "metarl/BernoulliBandit-v0"
SMALL = {"num_tasks": 8, "hidden_size": 8, "iterations": 3, "progress": False}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def uri(tmp_path):
    return f"sqlite:///{tmp_path}/mlflow.db"


def runs(uri, experiment="metarl"):
    """The runs of an experiment by name, and a client that reads them."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return {run.info.run_name: run for run in client.search_runs([found.experiment_id])}, client


def history(client, run, metric):
    """Steps and values of a metric, in order."""
    points = client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in points)


def test_metrics_settings_and_evaluations_are_in_the_store(tmp_path, uri):
    evaluation = metarl.PeriodicEvaluation(3, num_tasks=4)
    run = train(
        "rl2", BANDIT, out=tmp_path / "mine", callbacks=[MlflowTracker(), evaluation], **SMALL
    )
    found, client = runs(uri)
    tracked = found["mine"]
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["hidden_size"] == "8"
    assert tracked.data.params["task.arms"] == "5"
    assert tracked.data.tags["group"] == tmp_path.name
    written = read_metrics(run.path / "metrics.csv")
    losses = history(client, tracked, "loss/value_loss")
    assert losses == [
        (int(row["env_steps"]), pytest.approx(float(row["value_loss"]), rel=1e-5))
        for row in written
    ]
    names = {name for name in tracked.data.metrics if not name.startswith("evaluation/")}
    assert len(names) == len(written[0]) - 1  # all but the environment steps
    steps = [step for step, _ in history(client, tracked, "evaluation/return_episode_10")]
    assert steps == [0, 240]


@pytest.mark.parametrize(
    ("cause", "status"), [(KeyboardInterrupt(), "KILLED"), (ArithmeticError("mine"), "FAILED")]
)
def test_the_end_is_marked_and_the_same_run_goes_on(tmp_path, uri, cause, status):
    options = {"out": tmp_path / "run", **SMALL}
    with pytest.raises(type(cause)):
        train("rl2", BANDIT, callbacks=[MlflowTracker(), Raising(cause)], **options)
    assert runs(uri)[0]["run"].info.status == status
    train("rl2", BANDIT, callbacks=[MlflowTracker()], resume=True, **options)
    found, client = runs(uri)
    assert len(found) == 1
    assert found["run"].info.status == "FINISHED"
    points = history(client, found["run"], "time/iteration")
    assert [value for _, value in points] == [1.0, 2.0, 3.0]


def test_a_run_that_another_store_has_is_started_in_this_one(tmp_path, uri):
    options = {"out": tmp_path / "run", **SMALL}
    train("rl2", BANDIT, callbacks=[MlflowTracker(uri=f"sqlite:///{tmp_path}/a.db")], **options)
    more = {**options, "iterations": 4}
    train("rl2", BANDIT, callbacks=[MlflowTracker(uri=uri)], resume=True, **more)
    found, client = runs(uri)
    assert len(history(client, found["run"], "time/iteration")) == 1


def test_seeds_side_by_side_share_a_new_store(tmp_path, uri):
    options = {"out": tmp_path / "both", **SMALL}
    train_seeds("rl2", BANDIT, seeds=[0, 1], callbacks=[MlflowTracker("mine", uri)], **options)
    found, client = runs(uri, "mine")
    assert sorted(found) == ["seed0", "seed1"]
    for run in found.values():
        assert len(history(client, run, "time/iteration")) == 3


def test_the_variables_of_mlflow_are_used(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "named")
    options = "--num-tasks 8 --hidden-size 8 --iterations 2 --no-progress --track mlflow"
    assert cli.main(["train", "rl2", BANDIT, "--out", "run", *options.split()]) == 0
    assert list(runs(uri, "named")[0]) == ["run"]


def test_a_server_that_cannot_be_reached_ends_no_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = MlflowTracker(uri="http://127.0.0.1:9")
    run = train("rl2", BANDIT, out=tmp_path / "run", callbacks=[tracker], **SMALL)
    assert len(read_metrics(run.path / "metrics.csv")) == 3
    (message,) = [r.getMessage() for r in caplog.records if r.name == "metarl"]
    assert message.startswith("mlflow has failed")


@pytest.mark.parametrize("name", ["missing/mlflow.db", ".", "text.db"])
def test_a_store_that_cannot_be_opened_is_reported_before_a_folder_exists(tmp_path, name):
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(ConfigError, match="MLflow cannot open the store"):
        MlflowTracker(uri=f"sqlite:///{tmp_path}/{name}")


def test_a_missing_package_of_the_database_is_reported(monkeypatch, uri):
    monkeypatch.setitem(sys.modules, "alembic", None)
    with pytest.raises(ConfigError, match=r"needs alembic.*pip install 'metarl-suite\[mlflow\]'"):
        MlflowTracker(uri=uri)
    MlflowTracker(uri="http://127.0.0.1:9")
