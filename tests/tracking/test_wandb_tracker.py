"""The tracker of Weights & Biases, read back from the files that it writes offline."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

import metarl
from metarl.cli import main as cli
from metarl.errors import ConfigError
from metarl.results.learning_curves import read_metrics
from metarl.tracking.wandb_tracker import WandbTracker
from metarl.training.loop import train
from metarl.training.seeds import train_seeds

wandb = pytest.importorskip("wandb", reason="needs the extra 'wandb'")

BANDIT = "metarl/BernoulliBandit-v0"
SMALL = {"num_tasks": 8, "hidden_size": 8, "iterations": 3, "progress": False}
BLOCK = 32768
"""bytes of a block in the log files of LevelDB, whose form wandb's files have"""


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield
    wandb.teardown()


def records(path: Path):
    """The records of a file: each has a head of 7 bytes, and may lie in several blocks."""
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # waits until its process has written all
    content, at, begun = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        begun += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(begun)
            yield record
            begun = b""


def sessions(folder: Path):
    """For each file, oldest first: the run, its settings, the logged rows and the exit code."""
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime):
        run, rows, code, settings = None, [], None, {}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = record.run
                settings |= {
                    item.key: json.loads(item.value_json) for item in run.config.update if item.key
                }
            elif kind == "history":
                rows.append(
                    {
                        item.key or "/".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item
                    }
                )
            elif kind == "exit":
                code = record.exit.exit_code
        found.append((run, settings, rows, code))
    return found


def test_metrics_settings_and_evaluations_are_in_its_file(tmp_path):
    evaluation = metarl.PeriodicEvaluation(3, num_tasks=4)
    run = train(
        "rl2", BANDIT, out=tmp_path / "mine", callbacks=[WandbTracker(), evaluation], **SMALL
    )
    ((tracked, settings, rows, code),) = sessions(tmp_path)
    assert (tracked.display_name, tracked.project, code) == ("mine", "metarl", 0)
    assert tracked.run_id == json.loads((run.path / "tracking.json").read_text())["wandb"]["id"]
    assert settings["hidden_size"] == 8
    assert settings["task.arms"] == 5
    trained = [row for row in rows if "time/iteration" in row]
    for row, expected in zip(trained, read_metrics(run.path / "metrics.csv"), strict=True):
        assert row["env_steps"] == int(expected["env_steps"])
        assert row["loss/value_loss"] == pytest.approx(float(expected["value_loss"]), rel=1e-5)
    evaluated = [row["env_steps"] for row in rows if "evaluation/return_episode_10" in row]
    assert evaluated == [0, 240]


def test_nothing_else_is_written(tmp_path):
    train("rl2", BANDIT, out=tmp_path / "run", callbacks=[WandbTracker()], **SMALL)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    kinds = {record.WhichOneof("record_type") for record in records(path)}
    assert kinds.isdisjoint({"output", "output_raw", "stats", "environment"})
    (run,) = [r.run for r in records(path) if r.WhichOneof("record_type") == "run"][:1]
    assert not run.git.remote_url
    assert not run.git.commit
    assert not run.host
    assert not [*tmp_path.glob("wandb/offline-run-*/files/requirements.txt")]


def test_a_run_that_goes_on_has_the_same_id(tmp_path):
    options = {"out": tmp_path / "run", **SMALL}
    train("rl2", BANDIT, callbacks=[WandbTracker()], **options)
    time.sleep(1.1)  # the names of its folders have seconds
    more = {**options, "iterations": 5}
    train("rl2", BANDIT, callbacks=[WandbTracker()], resume=True, **more)
    first, second = sessions(tmp_path)
    assert first[0].run_id == second[0].run_id
    assert [row["env_steps"] for row in second[2]] == [320, 400]
    assert second[1]["iterations"] == 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_tracked_run_too(tmp_path, number, code):
    options = "--num-tasks 8 --hidden-size 8 --iterations 100000 --no-progress --track wandb"
    command = [sys.executable, "-m", "metarl", "train", "rl2", BANDIT, "--out", "run"]
    child = subprocess.Popen(
        [*command, *options.split()], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.1)
    os.killpg(child.pid, number)  # as a terminal does
    _, errors = child.communicate(timeout=60)
    assert child.returncode == code
    assert "Interrupted. The run is saved" in errors
    ((_, _, rows, exit_code),) = sessions(tmp_path)
    assert exit_code == 130
    written = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["env_steps"] for row in rows] == [int(row["env_steps"]) for row in written]


def test_each_seed_has_a_run_in_a_group(tmp_path):
    options = {"out": tmp_path / "both", "callbacks": [WandbTracker(project="mine")], **SMALL}
    train_seeds("rl2", BANDIT, seeds=[0, 1], **options)
    runs = [found[0] for found in sessions(tmp_path)]
    assert sorted(run.display_name for run in runs) == ["seed0", "seed1"]
    assert {(run.run_group, run.project) for run in runs} == {("both", "mine")}
    assert len({run.run_id for run in runs}) == 2


def test_the_command_tracks(tmp_path):
    options = "--num-tasks 8 --hidden-size 8 --iterations 2 --no-progress --track wandb"
    assert cli.main(["train", "rl2", BANDIT, "--out", "run", *options.split()]) == 0
    assert [len(rows) for _, _, rows, _ in sessions(tmp_path)] == [2]


def test_without_a_login_no_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    wandb.teardown()
    with pytest.raises(ConfigError, match="wandb login"):
        WandbTracker()


def test_a_server_that_cannot_be_reached_ends_no_training(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    wandb.teardown()
    run = train("rl2", BANDIT, out=tmp_path / "run", callbacks=[WandbTracker()], **SMALL)
    assert len(read_metrics(run.path / "metrics.csv")) == 3
    (message,) = [r.getMessage() for r in caplog.records if r.name == "metarl"]
    assert message.startswith("wandb has failed")
