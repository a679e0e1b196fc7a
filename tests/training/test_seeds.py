import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import metarl
from metarl.agents.memory.rl2 import RL2Config
from metarl.errors import ConfigError, RunFolderError, SeedsError
from metarl.training import seeds
from metarl.training.children import Children
from metarl.training.loop import train
from metarl.training.options import RunOptions
from metarl.training.run_folder import load_run
from metarl.training.seeds import train_seeds
from tests.fragile_agents import AGENT
from tests.training.test_loop import SMALL, TASK, assert_equal_runs

ROOT = Path(__file__).parents[2]


def iteration(folder: Path) -> int:
    """Completed iterations in the checkpoint of a run."""
    run = load_run(folder)
    return run.load(run.make_agent(run.config.make_family())).iteration


def test_every_run_equals_that_of_its_seed_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(seeds, "available_cores", lambda: 2)
    several = train_seeds("rl2", TASK, seeds=[3, 0], iterations=3, out=tmp_path / "all", **SMALL)
    assert [run.path.name for run in several] == ["seed3", "seed0"]
    for run in several:
        seed = run.config.seed
        alone = train("rl2", TASK, seed=seed, iterations=3, out=tmp_path / f"{seed}", **SMALL)
        assert run.config == alone.config
        assert_equal_runs(run, alone)
    with pytest.raises(AssertionError):
        assert_equal_runs(several[0], several[1])


def test_folders_have_the_names_of_single_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = metarl.train_seeds("rl2", TASK, seeds=[5], iterations=1, preset="pulls-10", **SMALL)
    assert [run.path for run in runs] == [Path("runs/rl2-BernoulliBandit-v0-seed5")]
    assert runs[0].checkpoint.exists()


@pytest.mark.learning
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("not finite", "Seed 1: the loss is NaN"),
        ("error", r"Seed 1: ZeroDivisionError\('a mistake of the agent'\)\nTraceback"),
        ("exit", "Seed 1: its process ended with exit code 3"),
    ],
)
def test_a_seed_that_fails_is_named_and_the_others_go_on(tmp_path, capfd, failure, message):
    options = {"iterations": 4, "failing_seed": 1, "failure": failure, "out": tmp_path, **SMALL}
    counts = r"^1 of 3 seeds failed; 2 were trained to the end\.\n"
    with pytest.raises(SeedsError, match=counts + message) as found:
        train_seeds(AGENT, TASK, seeds=[0, 1, 2], **options | {"progress": True})
    assert "seed 1 failed: " in capfd.readouterr().err
    assert list(found.value.trained) == [tmp_path / "seed0", tmp_path / "seed2"]
    assert [iteration(folder) for folder in found.value.trained] == [4, 4]
    assert (tmp_path / "seed1" / "config.json").exists()


@pytest.mark.learning
def test_resume_continues_existing_runs_and_starts_others(tmp_path):
    whole = train("rl2", TASK, seed=1, iterations=4, out=tmp_path / "whole", **SMALL)
    options = {"iterations": 4, "failing_seed": 1, "out": tmp_path, **SMALL}
    with pytest.raises(SeedsError, match="loss is NaN"):
        train_seeds(AGENT, TASK, seeds=[1], **options)
    assert iteration(tmp_path / "seed1") == 1
    # In a new process the count of updates starts again: the second is then the third iteration.
    with pytest.raises(SeedsError, match="loss is NaN"):
        train_seeds(AGENT, TASK, seeds=[1, 2], **options, resume=True)
    assert (iteration(tmp_path / "seed1"), iteration(tmp_path / "seed2")) == (2, 4)
    for _ in range(2):
        with suppress(SeedsError):
            runs = train_seeds(AGENT, TASK, seeds=[1, 2], **options, resume=True)
    torch.testing.assert_close(weights(runs[0]), weights(whole), rtol=0, atol=0)


def weights(run: metarl.Run) -> dict[str, torch.Tensor]:
    agent = run.make_agent(run.config.make_family())
    run.load(agent)
    return agent.state()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": []}, ConfigError, r"seeds=\[\] must be different whole numbers"),
        ({"seeds": [1, 2, 1]}, ConfigError, r"seeds=\[1, 2, 1\] must be different"),
        ({"seeds": [0, -1]}, ConfigError, "seed=-1 is negative"),
        ({"seeds": [0, 1], "seed": 3}, ConfigError, "Got `seed` and `seeds`"),
        ({"seeds": [0], "run": RunOptions(seed=3)}, ConfigError, "Got `seed` and `seeds`"),
        ({"seeds": [0, 1], "num_task": 3}, ConfigError, "Did you mean 'num_tasks'"),
        ({"seeds": [0, 1], "device": "abacus"}, ConfigError, "device='abacus' cannot be used"),
        ({"seeds": [0, 1], "memory": "harddisk"}, ConfigError, "memory='harddisk' is not one of"),
    ],
)
def test_options_that_do_not_fit_start_no_process(tmp_path, monkeypatch, options, error, message):
    monkeypatch.setattr(Children, "start", None)
    with pytest.raises(error, match=message):
        train_seeds("rl2", TASK, out=tmp_path / "runs", iterations=1, **options)
    assert not (tmp_path / "runs").exists()


def test_an_agent_that_no_other_process_can_import_is_refused(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class LocalConfig(RL2Config):
        pass

    config = LocalConfig(num_tasks=8, hidden_size=8, iterations=1)
    with pytest.raises(ConfigError, match=r"cannot be sent to another process.*top level"):
        train_seeds("rl2", TASK, seeds=[0], config=config, out=tmp_path / "runs")


def test_no_seed_is_trained_where_the_folder_of_one_exists(tmp_path):
    train("rl2", TASK, seed=1, iterations=1, out=tmp_path / "seed1", **SMALL)
    with pytest.raises(RunFolderError, match="seed1 exists and would be overwritten"):
        train_seeds("rl2", TASK, seeds=[0, 1], iterations=1, out=tmp_path, **SMALL)
    other = {**SMALL, "num_tasks": 16, "resume": True}
    with pytest.raises(RunFolderError, match="num_tasks = 8 instead of 16"):
        train_seeds("rl2", TASK, seeds=[0, 1], iterations=1, out=tmp_path, **other)
    assert not (tmp_path / "seed0").exists()


SCRIPT = """
import sys
from metarl.cli.main import main
import tests.fragile_agents

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
LONG = f"train {AGENT} {TASK} --num-tasks 8 --hidden-size 8 --iterations 100000 --pause 0.05"


class Command:
    """`metarl train` with two seeds, as a process with a process group of its own."""

    def __init__(self, folder: Path, start_process) -> None:
        (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
        self.folders = [folder / "out" / f"seed{seed}" for seed in (0, 1)]
        self.process = start_process(
            [sys.executable, "script.py", *LONG.split(), "--seeds", "0", "1", "--out", "out"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        )
        wait_until(lambda: all(count_rows(folder) > 2 for folder in self.folders))

    def is_running(self) -> bool:
        """Whether a process of the group runs; ended ones that nobody has waited for do not."""
        states = ["--runstates", "R,S,D"]
        found = subprocess.run(["pgrep", *states, "-g", str(self.process.pid)], capture_output=True)
        return found.returncode == 0


def count_rows(folder: Path) -> int:
    path = folder / "metrics.csv"
    return path.read_text().count("\n") if path.exists() else 0


def wait_until(condition, seconds: float = 120) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds
        time.sleep(0.05)


@pytest.fixture
def command(tmp_path, start_process):
    return Command(tmp_path, start_process)


@pytest.mark.learning
@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGINT, False, 130), (signal.SIGTERM, False, 143)],
    ids=["ctrl-c", "sigint", "sigterm"],
)
def test_a_signal_ends_all_runs_after_their_iterations_and_saves_them(
    command, number, whole_group, code
):
    # A terminal sends Ctrl-C to the whole group of processes.
    send = os.killpg if whole_group else os.kill
    send(command.process.pid, number)
    _, printed = command.process.communicate(timeout=120)
    assert command.process.returncode == code
    assert "2 of 2 runs are saved in out/seed0, out/seed1; continue with" in printed
    assert "--seeds 0 1 --out out --resume" in printed
    assert "Traceback" not in printed
    for folder in command.folders:
        assert iteration(folder) == count_rows(folder) - 1  # the header
    wait_until(lambda: not command.is_running())


@pytest.mark.learning
def test_no_process_is_left_when_the_parent_is_killed(command):
    command.process.kill()
    wait_until(lambda: not command.is_running())
    for folder in command.folders:
        assert iteration(folder) == count_rows(folder) - 1
