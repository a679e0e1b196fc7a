"""Sweeps on a Ray cluster of this machine, next to the same sweep in processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

import metarl
from metarl.cli import main as cli
from metarl.errors import ConfigError
from metarl.sweeps.ray_tasks import _Mailbox
from tests.fragile_agents import AGENT
from tests.training.test_loop import TASK, assert_equal_runs
from tests.training.test_seeds import ROOT

TOML = f"""
agent = "{AGENT}"
task = "{TASK}"
seeds = [0, 1, 2, 3]
metric = "total"
[agent_options]
num_tasks = 8
hidden_size = 8
iterations = 3
[sweep]
learning_rate = [1e-3, 3e-3, 1e-2]
[evaluate]
num_tasks = 5
"""
SHORT = TOML.replace("[0, 1, 2, 3]", "[0, 1]").replace("[1e-3, 3e-3, 1e-2]", "[1e-3]")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rates.toml"
    path.write_text(TOML)
    return path


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_without_ray_the_sweep_is_refused_before_a_folder_is_made(tmp_path, file, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray.*pip install 'metarl-suite\[ray\]'"):
        metarl.sweep(file, out=tmp_path / "out", ray="local", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_missing_cluster_is_reported_before_a_folder_is_made(tmp_path, file, capsys):
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    out = tmp_path / "out"
    arguments = ["sweep", str(file), "--out", str(out), "--module", "tests.fragile_agents"]
    assert cli.main([*arguments, "--ray", "127.0.0.1:1", "--no-progress"]) == 2
    assert "There is no Ray cluster at '127.0.0.1:1'" in capsys.readouterr().err
    assert not out.exists()


def test_the_mailbox_keeps_messages_in_order_and_the_request_to_stop():
    mailbox = _Mailbox()
    assert not mailbox.report(0, 3)
    assert not mailbox.report(1, {"iteration": 4})
    assert mailbox.collect(False) == [(0, 3), (1, {"iteration": 4})]
    assert mailbox.collect(True) == []
    assert mailbox.report(0, 5)


@pytest.mark.learning
def test_the_table_and_the_runs_are_those_of_processes(tmp_path, file, cluster):
    expected = metarl.sweep(file, out=tmp_path / "processes", progress=False)
    table = metarl.sweep(file, out=tmp_path / "ray", ray="auto", progress=False)
    assert [len(row.scores) for row in table.rows] == [4, 4, 4]
    assert table == expected
    tables = [(tmp_path / name / "sweep.csv").read_text() for name in ("processes", "ray")]
    assert tables[0] == tables[1]
    for folder in (tmp_path / "ray").glob("*/seed*"):
        other = tmp_path / "processes" / folder.relative_to(tmp_path / "ray")
        assert_equal_runs(metarl.load_run(folder), metarl.load_run(other))
    assert cluster.is_initialized()  # it was there before
    again = metarl.sweep(file, out=tmp_path / "ray", ray="auto", progress=False)
    assert again == table


@pytest.mark.learning
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("killed", "its process or its machine was lost (WorkerCrashedError); is there enough"),
        ("not finite", "the loss is NaN"),
        ("error", "ZeroDivisionError('a mistake of the agent')"),
    ],
)
def test_a_run_that_fails_is_named_then_repeated(tmp_path, file, cluster, failure, reason):
    failing = f"iterations = 3\nfailing_seed = 1\nfailure = '{failure}'"
    saving = "[run]\ncheckpoint_seconds = 1e-6\n[sweep]"  # a process that is killed saves nothing
    file.write_text(SHORT.replace("iterations = 3", failing).replace("[sweep]", saving))
    out = tmp_path / "out"
    table = metarl.sweep(file, out=out, ray="auto", retries=0, progress=False)
    ((folder, found),) = table.failures.items()
    assert folder == str(out / "learning_rate=0.001" / "seed1")
    assert found.startswith(reason)
    assert [list(row.scores) for row in table.rows] == [[0]]
    # Each attempt is one iteration further, because a process counts its updates from the start.
    table = metarl.sweep(file, out=out, ray="auto", retries=1, progress=False)
    assert not table.failures
    assert [list(row.scores) for row in table.rows] == [[0, 1]]


@pytest.mark.learning
def test_machines_without_the_folder_are_named(tmp_path, file, cluster, monkeypatch):
    file.write_text(SHORT)
    monkeypatch.setattr("metarl.sweeps.sweep.write_sweep", lambda folder, record: None)
    table = metarl.sweep(file, out=tmp_path / "out", ray="auto", retries=0, progress=False)
    (reason, _) = table.failures.values()
    assert "must share the file system" in reason


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("option", "needed"), [("threads = 64", "64 CPU"), ("device = 'cuda'", "1 CPU and 1 GPU")]
)
def test_a_cluster_without_room_is_refused(tmp_path, file, monkeypatch, option, needed):
    monkeypatch.setattr("metarl.sweeps.sweep._require_valid", lambda jobs, metric: None)
    file.write_text(SHORT.replace("[sweep]", f"[run]\n{option}\n[sweep]"))
    with pytest.raises(ConfigError, match=f"A run needs {needed} of one machine"):
        metarl.sweep(file, out=tmp_path / "out", ray="auto", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.learning
def test_ctrl_c_saves_all_runs_leaves_no_process_and_the_sweep_goes_on(tmp_path, file):
    out = tmp_path / "out"
    child = training_sweep(file, out)
    os.killpg(child.pid, signal.SIGINT)
    _, printed = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "0 runs are trained, those that were active are saved" in printed
    assert "Traceback" not in printed
    for folder in out.glob("*/seed*"):
        run = metarl.load_run(folder)
        saved = run.load(run.make_agent(run.config.make_family())).iteration
        assert 0 < saved < 30
        assert saved == len(metarl.read_metrics(run))
    assert processes_of(child.pid) == []
    table = metarl.sweep(file, out=out, processes=2, progress=False)
    assert [list(row.scores) for row in table.rows] == [[0, 1]]


@pytest.mark.learning
def test_a_cluster_that_is_lost_is_one_message_and_the_sweep_goes_on(tmp_path, file):
    out = tmp_path / "out"
    child = training_sweep(file, out)
    listed = subprocess.run(
        ["ps", "-eo", "pid=,sid=,comm="], capture_output=True, text=True, check=True
    )
    lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    (raylet,) = [pid for pid, sid, name in lines if (int(sid), name) == (child.pid, "raylet")]
    os.kill(int(raylet), signal.SIGKILL)
    _, printed = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "metarl: The Ray cluster is lost (" in printed
    assert "Traceback" not in printed
    assert processes_of(child.pid) == []
    table = metarl.sweep(file, out=out, processes=2, progress=False)
    assert [list(row.scores) for row in table.rows] == [[0, 1]]


def training_sweep(file, out):
    """A process that has started a sweep of two slow runs on a cluster of its own."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    file.write_text(SHORT.replace("iterations = 3", "iterations = 30\npause = 0.2"))
    options = ["--module", "tests.fragile_agents", "--ray", "local", "--processes", "2"]
    child = subprocess.Popen(
        [sys.executable, "-m", "metarl", "sweep", str(file), "--out", str(out), *options],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len([*out.glob("*/*/checkpoint.safetensors")]) < 2:
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.1)
    return child


def processes_of(session):
    """Process numbers of a session that have not ended."""
    for _ in range(50):
        listed = subprocess.run(
            ["ps", "-eo", "pid=,sid=,stat="], capture_output=True, text=True, check=True
        )
        lines = [line.split() for line in listed.stdout.splitlines()]
        found = [pid for pid, sid, state in lines if int(sid) == session and state[0] != "Z"]
        if not found:
            break
        time.sleep(0.2)
    return found
