"""Tests of the command line from training to figures, and of interrupting it."""

import signal
import sys
import time

import pytest

from metarl.cli import main as cli
from metarl.results.learning_curves import read_metrics
from metarl.training.run_folder import load_run

TASK = "metarl/PointNavigation-v0"
SMALL = ["--num-tasks", "8", "--hidden-size", "8", "--no-progress"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_train_evaluate_plot(folder, capsys):
    options = ["--task.steps", "20", "--iterations", "2", *SMALL]
    assert cli.main(["train", "rl2", TASK, "--out", "a", "--seed", "4", *options]) == 0
    assert "metarl evaluate a" in capsys.readouterr().out
    assert cli.main(["train", "rl2", TASK, "--out", "b", "--memory", "none", *options]) == 0
    for run in ("a", "b"):
        assert cli.main(["evaluate", run, "--num-tasks", "30", "--no-progress"]) == 0
    table = capsys.readouterr().out
    assert "oracle (knows" in table
    assert "RL² without" in table
    assert cli.main(["plot", "a", "b", "--out", "both"]) == 0
    assert (folder / "both.svg").exists()
    assert (folder / "both.png").exists()
    for kind in ("regret", "learning", "paths"):
        assert cli.main(["plot", "a", "b", "--kind", kind, "--formats", "svg"]) == 0
        assert (folder / f"{kind}.svg").exists()
    assert cli.main(["compare", "a", "b", "--csv", "table.csv"]) == 0
    assert (folder / "table.csv").exists()
    assert load_run("a").config.task_options == {"steps": 20}


def test_both_kinds_of_agents_share_a_table_and_a_figure(folder, capsys):
    options = ["--task.steps", "20", "--iterations", "2", "--num-tasks", "4", "--no-progress"]
    assert cli.main(["train", "rl2", TASK, "--out", "a", "--hidden-size", "8", *options]) == 0
    small = ["--hidden-sizes", "8", "8", "--rollouts-per-task", "4"]
    assert cli.main(["train", "maml", TASK, "--out", "b", *small, *options]) == 0
    few = ["--num-tasks", "12", "--no-progress"]
    assert cli.main(["evaluate", "a", *few]) == 0
    assert cli.main(["evaluate", "b", *few, "--agent.rollouts-per-task", "5"]) == 0
    assert cli.main(["compare", "a", "b"]) == 0
    table = capsys.readouterr().out
    assert "MAML" in table
    assert "RL²" in table
    assert cli.main(["plot", "a", "b", "--out", "both"]) == 0
    assert cli.main(["plot", "--paths", "b"]) == 0
    assert (folder / "both.png").exists()
    assert (folder / "b" / "paths.svg").exists()


def test_errors_are_one_line_and_an_exit_code(folder, capsys):
    small = ["--iterations", "1", *SMALL]
    assert cli.main(["train", "rl2", TASK, "--out", "a", *small]) == 0
    assert cli.main(["train", "rl2", TASK, "--out", "a", *small]) == 1
    assert "exists and would be overwritten" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["train", "rl2", TASK, "--out", "c", "--num-minibatches", "3", *small]) == 2
    assert "does not divide into num_minibatches=3" in " ".join(capsys.readouterr().err.split())
    (folder / "a" / "checkpoint.safetensors").write_bytes(b"nothing")
    assert cli.main(["evaluate", "a"]) == 1
    assert "truncated or not a safetensors file" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("agent", ["rl2", "maml"])
def test_ctrl_c_in_a_terminal_saves_the_run_and_prints_how_to_continue(
    folder, start_process, agent
):
    command = [sys.executable, "-m", "metarl", "train", agent, TASK, "--out", "run"]
    small = ["--num-tasks", "8", "--no-progress", "--iterations", "100000"]
    process = start_process([*command, *small])
    metrics = folder / "run" / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in printed
    run = load_run("run")
    reached = run.load(run.make_agent(run.config.make_family())).iteration
    assert reached == len(read_metrics(metrics)) > 2
