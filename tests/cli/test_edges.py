"""Edges of the system: encodings, closed pipes, the home folder, and names that are too long."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import metarl
from metarl.evaluation.options import EvaluationOptions
from metarl.plots.options import PlotOptions
from metarl.training.options import RunOptions
from tests.cli.test_main import run
from tests.foreign_runs import TINY

BANDIT = "metarl/BernoulliBandit-v0"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    trained = metarl.train("rl2", BANDIT, out=tmp_path_factory.mktemp("edges") / "r", **TINY)
    metarl.evaluate(trained, num_tasks=4)
    return trained.path


@pytest.mark.parametrize("encoding", ["gbk", "cp932", "cp1251", "ascii"])
def test_a_table_is_printed_in_any_encoding(evaluated, encoding):
    command = [sys.executable, "-m", "metarl", "compare", str(evaluated)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    finished = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert "RL? " in finished.stdout.decode(encoding)


def test_a_reader_that_stops_early_ends_without_a_traceback():
    command = f"{sys.executable} -m metarl list | head -1; exit ${{PIPESTATUS[0]}}"
    finished = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (finished.stdout, finished.stderr) == ("Task families:\n", "")


@pytest.mark.parametrize("kind", [RunOptions, EvaluationOptions, PlotOptions])
def test_a_tilde_is_the_home_folder(kind):
    assert kind(out="~/x").out == Path.home() / "x"


def test_runs_are_found_in_the_home_folder(evaluated, monkeypatch):
    monkeypatch.setenv("HOME", str(evaluated.parent))
    assert metarl.load_run("~/r").path == evaluated
    assert metarl.compare(["~/r"]).num_tasks == 4


@pytest.mark.parametrize("command", ["train", "evaluate", "compare", "plot", "record"])
@pytest.mark.parametrize("has_parent", [False, True])
def test_a_name_that_is_too_long_is_one_line(capsys, tmp_path, monkeypatch, command, has_parent):
    monkeypatch.chdir(tmp_path)
    if has_parent:
        Path("runs").mkdir()
    name = f"runs/{'x' * 270}"
    words = ["train", "rl2", BANDIT, "--out", name] if command == "train" else [command, name]
    code, _, err = run(capsys, *words)
    assert code == 1
    assert has_parent == ("File name too long" in err) or command == "train"
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "metrics", ["", "iteration,loss\n", "iteration,loss\n1,0.5\n2,0.5\n", "iteration\n1,2,3\n"]
)
def test_a_training_goes_on_beside_a_table_that_was_edited(tmp_path, capsys, metrics):
    path = metarl.train("rl2", BANDIT, out=tmp_path / "r", **TINY).path
    (path / "metrics.csv").write_text(metrics)
    words = ["train", "rl2", BANDIT, "--num-tasks", "8", "--iterations", "3", "--threads", "1"]
    code, out, _ = run(capsys, *words, "--no-progress", "--resume", "--out", str(path))
    assert code == 0
    told = "3 iterations, " if metrics == "" else "its metrics.csv does not tell the return"
    assert f"Trained rl2 on {BANDIT}, seed 0: {told}" in out


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "RUN", "--csv", "NEW/table.csv"],
        ["plot", "RUN", "--out", "NEW/curves.svg"],
        ["plot", "RUN", "--out", "curves.svg", "--data", "NEW/curves.csv"],
        ["report", "RUN", "--out", "NEW/page.html"],
        ["record", "RUN", "--out", "NEW/trial.gif"],
        ["export", "RUN", "--out", "NEW/step.pt2"],
        ["card", "RUN", "--share", "NEW/shared"],
    ],
)
def test_the_folder_of_a_file_is_made_where_it_is_missing(
    capsys, tmp_path, monkeypatch, evaluated, words
):
    monkeypatch.chdir(tmp_path)
    new = Path("some/where")
    named = [word.replace("RUN", str(evaluated)).replace("NEW", str(new)) for word in words]
    code, _, err = run(capsys, *named)
    assert code == 0, err
    assert [path.name for path in new.iterdir()] == [Path(named[-1]).name]
