"""Several processes that train one agent: the update of one, resumed runs, failures, refusals."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metarl.cli.main import main
from metarl.errors import ConfigError
from metarl.ranks import ALONE
from metarl.training import launcher
from metarl.training.launcher import device_of_rank, is_first_rank, started_ranks
from metarl.training.loop import train
from metarl.training.process_ranks import joined_ranks
from metarl.training.run_folder import load_run
from tests import rank_updates
from tests.rank_trainings import OPTIONS, TASK

ROOT = Path(__file__).parents[2]
SECONDS = 240
MAML = "maml metarl/PointNavigation-v0"
RANK_1 = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


def start_ranks(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m"]
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def updates(tmp_path_factory):
    """What one and two processes have learned from the same experience, by case."""
    two = tmp_path_factory.mktemp("ranks") / "two.pt"
    process = start_ranks("tests.rank_updates", two)
    alone = {case: rank_updates.update(case, ALONE) for case in rank_updates.CASES}
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    return alone, torch.load(two)


@pytest.mark.parametrize("case", rank_updates.CASES)
def test_two_ranks_learn_what_one_process_does_in_float64(updates, case):
    alone, two = (one[case] for one in updates)
    assert alone.keys() == two.keys()
    assert any(name.startswith("change of") and bool(value.any()) for name, value in alone.items())
    for name, value in alone.items():
        error = float((two[name].double() - value.double()).norm())
        assert error <= 1e-6 * float(value.double().norm()) + 1e-12, name


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the trainings, and what each rank said at their ends."""
    folder = tmp_path_factory.mktemp("trainings")
    started = time.monotonic()
    process = start_ranks("tests.rank_trainings", folder)
    output, _ = process.communicate(timeout=SECONDS)
    assert time.monotonic() - started < SECONDS
    ends = {}
    for rank in range(2):
        for line in (folder / f"rank-{rank}.txt").read_text().splitlines():
            name, _, end = line.partition(": ")
            ends[f"{rank}, {name}"] = end
    assert "0, whole" in ends, output
    return folder, ends


def metrics(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


@pytest.mark.parametrize("name", ["whole", "stopped", "resumed", "maml", "rollback"])
def test_ranks_train_to_the_end(trained, name):
    assert [trained[1][f"{rank}, {name}"] for rank in range(2)] == ["trained", "trained"]


def test_only_rank_0_writes(trained):
    folder = trained[0] / "whole"
    assert len(list(folder.glob("events*"))) == 1
    assert json.loads((folder / "config.json").read_text())["ranks"] == 2


def test_a_run_of_ranks_is_that_of_one_process_but_for_rounding(trained, tmp_path):
    train("rl2", TASK, out=tmp_path / "run", **OPTIONS)
    expected, found = metrics(tmp_path / "run"), metrics(trained[0] / "whole")
    assert len(expected) == len(found) == 6
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)


def test_a_resumed_run_of_ranks_equals_one_without_a_stop_bit_for_bit(trained):
    folder = trained[0]
    states = []
    for name in ("whole", "resumed"):
        run = load_run(folder / name)
        agent = run.make_agent(run.config.make_family())
        assert run.load(agent).iteration == 6
        states.append(agent.state())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert metrics(folder / "whole") == metrics(folder / "resumed")


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("again", "RunFolderError: The run folder", "RankError: Rank 0 has failed"),
        ("not finite", "NonFiniteError: Rank 1 has failed", "NonFiniteError: the reward is NaN"),
        ("error", "RankError: Rank 1 has failed", "its own a mistake of the task"),
        ("memory", "ConfigError: VariBAD cannot", "RankError: Rank 0 has failed"),
        ("shares", "ConfigError: num_tasks=9 does", "RankError: Rank 0 has failed"),
        ("callback", "NonFiniteError: not a number", "NonFiniteError: Rank 0 has failed"),
        ("seeds", "ConfigError: torchrun has started 2", "ConfigError: torchrun has started 2"),
        ("killed", "RankError: Another rank has ended", ""),
    ],
)
def test_a_failure_of_one_rank_ends_all_and_each_says_why(trained, name, first, second):
    ends = trained[1]
    assert ends[f"0, {name}"].startswith(first)
    assert ends.get(f"1, {name}", "").startswith(second)
    assert second or f"1, {name}" not in ends
    assert not (trained[0] / "refused").exists()


def test_where_a_callback_fails_with_nan_all_ranks_go_back_until_none_is_left(trained):
    rows = metrics(trained[0] / "callback")
    assert [row["iteration"] for row in rows] == [1.0]  # rolled back as often as is allowed


@pytest.mark.parametrize("name", ["whole", "resumed"])
def test_train_returns_on_every_rank_when_the_last_checkpoint_is_written(trained, name):
    assert [trained[1][f"{rank}, {name}, saved"] for rank in range(2)] == ["6", "6"]


@pytest.mark.parametrize("name", ["not finite", "error", "killed"])
def test_what_was_finished_before_a_failure_is_kept(trained, name):
    folder = trained[0] / {"not finite": "stop"}.get(name, name)
    run = load_run(folder)
    assert run.load(run.make_agent(run.config.make_family())).iteration == 2
    assert len(metrics(folder)) == 2


def test_a_rollback_of_ranks_halves_the_rate_on_all(trained):
    rows = metrics(trained[0] / "rollback")
    assert [row["rollbacks"] for row in rows] == [1.0] * 6
    assert rows[0]["learning_rate"] == pytest.approx(0.0015)


@pytest.mark.slow  # a launcher of two processes, whose signals depend on the load of the machine
def test_sigterm_saves_ends_all_ranks_and_prints_the_command_once(tmp_path):
    folder = tmp_path / "run"
    process = start_ranks(
        *f"metarl train {MAML} --num-tasks 4 --rollouts-per-task 4 --iterations 3000".split(),
        *("--out", folder),
    )
    deadline = time.monotonic() + SECONDS
    while not (folder / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=SECONDS)  # ends with the last of all processes
    assert output.count("continue with\n  metarl train maml") == 1, output
    run = load_run(folder)
    progress = run.load(run.make_agent(run.config.make_family()))
    assert progress.iteration == len(metrics(folder)) >= 1


def test_a_run_that_other_ranks_started_goes_on_with_a_warning(trained, caplog):
    run = load_run(trained[0] / "whole")
    run.warn_of_other_ranks(2)
    assert not caplog.records
    run.warn_of_other_ranks(1)
    assert "was started by 2 processes" in caplog.text


def test_without_torchrun_one_process_is_alone():
    assert started_ranks() == 1
    assert is_first_rank()
    assert device_of_rank("cuda") == "cuda"
    assert joined_ranks("cpu") is ALONE


def test_each_rank_has_the_gpu_of_its_number(monkeypatch):
    for name, value in RANK_1.items():
        monkeypatch.setenv(name, value)
    assert started_ranks() == 2
    assert not is_first_rank()
    assert device_of_rank("cuda") == "cuda:1"
    assert device_of_rank("cuda:0") == "cuda:0"
    assert device_of_rank("cpu") == "cpu"


@pytest.mark.parametrize("command", ["evaluate", "sweep", "list", "train rl2 X --seeds 0 1"])
def test_other_commands_refuse_several_processes_and_rank_0_says_so(monkeypatch, capsys, command):
    monkeypatch.setattr(launcher, "SECONDS_TO_SAY", 0)
    for name, value in RANK_1.items():
        monkeypatch.setenv(name, value)
    words = command.replace("X", TASK).split()
    assert main(words) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    assert main(words) == 2
    assert "torchrun has started 2 processes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    ["--num-taks 8", "--num-tasks many", "--memory", "--preset gone", "--num-tasks 0"],
)
def test_wrong_options_are_said_by_rank_0_alone(monkeypatch, capsys, tmp_path, wrong):
    waited = []
    monkeypatch.setattr(launcher.time, "sleep", waited.append)
    words = ["train", "rl2", TASK, *wrong.split(), "--out", str(tmp_path / "run")]
    for name, value in RANK_1.items():
        monkeypatch.setenv(name, value)
    assert main(words) == 2
    assert capsys.readouterr() == ("", "")
    assert waited == [launcher.SECONDS_TO_SAY]
    monkeypatch.setenv("RANK", "0")
    assert main(words) == 2
    assert capsys.readouterr().err
    assert len(waited) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["--help", "train --help", "train rl2 X --help"])
def test_help_is_printed_by_rank_0_alone(monkeypatch, capsys, command):
    words = command.replace("X", TASK).split()
    for name, value in RANK_1.items():
        monkeypatch.setenv(name, value)
    assert main(words) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    assert main(words) == 0
    assert "usage" in capsys.readouterr().out


def test_a_number_of_ranks_that_is_none_is_refused(monkeypatch, capsys):
    for name, value in {**RANK_1, "WORLD_SIZE": "two"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE is 'two'"):
        started_ranks()
    assert main(["train", "rl2", TASK]) == 2
    assert "WORLD_SIZE is 'two'" in capsys.readouterr().err
