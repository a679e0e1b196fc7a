import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import pytest

from metarl.cli import main as cli
from metarl.results.sweeps import write_sweep
from tests.results.test_sweeps import RECORD, add_run
from tests.sweeps.test_sweep import FAILING, TOML
from tests.training.test_seeds import ROOT, SCRIPT, count_rows, iteration, wait_until


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_show_prints_the_table_again(folder, capsys):
    (folder / "out").mkdir()
    write_sweep(folder / "out", RECORD)
    for seed, last in ((0, 1.0), (1, 2.0), (2, 6.0)):
        add_run(folder / "out", RECORD.settings[0], seed, [10.0, last])
    add_run(folder / "out", RECORD.settings[1], 0, [0.0, 5.0])
    assert cli.main(["sweep", "--show", "out"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith("rate=")]
    assert rows[0] == ["rate=0.2", "1", "of", "3", "5.000", "[5.000,5.000]", "5.000"]
    assert rows[1] == ["rate=0.1", "3", "3.000", "[1.000,6.000]", "3.000"]
    assert rows[2] == ["rate=0.3", "0", "of", "3", "-", "-"]
    assert "Return of the last episode in 4 train tasks of seed 1" in printed


@pytest.mark.parametrize("arguments", [[], ["x.toml", "--show", "out"]])
def test_a_file_or_a_folder_to_show_is_given(capsys, arguments):
    assert cli.main(["sweep", *arguments]) == 2
    assert "Give the TOML file of a sweep, or --show OUT" in capsys.readouterr().err


def test_errors_in_the_file_are_wrong_usage(folder, capsys):
    (folder / "x.toml").write_text(TOML.replace("learning_rate", "learning_rat"))
    assert cli.main(["sweep", "x.toml"]) == 2
    assert "Did you mean 'learning_rate'" in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_a_folder_that_is_no_sweep_is_named(capsys):
    assert cli.main(["sweep", "--show", "gone"]) == 1
    assert "gone is not the folder of a sweep" in capsys.readouterr().err


@pytest.mark.learning
def test_failed_runs_are_named_with_the_command_that_goes_on(folder, capsys):
    (folder / "x.toml").write_text(FAILING.replace("[1e-3, 1e-2]", "[1e-3]"))
    assert cli.main(["sweep", "x.toml", "--no-progress", "--retries", "0"]) == 1
    out, err = capsys.readouterr()
    assert "runs/x/learning_rate=0.001/seed1 has failed: the loss is NaN" in err
    assert "metarl sweep x.toml --no-progress --retries 0" in err
    assert "1 of 2" in out
    assert cli.main(["sweep", "x.toml", "--no-progress"]) == 0
    out, _ = capsys.readouterr()
    assert "metarl evaluate runs/x/learning_rate=0.001/seed1" in out


class Command:
    """`metarl sweep` of two runs, as a process with a process group of its own."""

    def __init__(self, folder):
        (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
        long = TOML.replace("iterations = 3", "iterations = 100000\npause = 0.05")
        (folder / "x.toml").write_text(long.replace("[1e-3, 1e-2]", "[1e-3]"))
        self.folders = [
            folder / "runs" / "x" / "learning_rate=0.001" / f"seed{seed}" for seed in (0, 1)
        ]
        self.process = subprocess.Popen(
            [sys.executable, "script.py", "sweep", "x.toml", "--processes", "2"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        wait_until(lambda: all(count_rows(folder) > 2 for folder in self.folders))


@pytest.fixture
def command(folder):
    made = Command(folder)
    yield made
    with suppress(ProcessLookupError):
        os.killpg(made.process.pid, signal.SIGKILL)
    made.process.wait()
    made.process.stderr.close()


@pytest.mark.learning
@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143)],
    ids=["ctrl-c", "sigterm"],
)
def test_a_signal_saves_all_runs_and_says_how_to_go_on(command, number, whole_group, code):
    (os.killpg if whole_group else os.kill)(command.process.pid, number)
    _, printed = command.process.communicate(timeout=120)
    assert command.process.returncode == code
    assert "0 runs are trained, those that were active are saved in runs/x" in printed
    assert "metarl sweep x.toml --processes 2" in printed
    assert "Traceback" not in printed
    for folder in command.folders:
        assert iteration(folder) == count_rows(folder) - 1  # the header
