"""Checkpoints: the last few are kept, checked when read, and skipped if they are broken."""

import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from metarl.errors import CheckpointError, ConfigError
from metarl.training import checkpoint
from metarl.training.checkpoint import checkpoint_paths, read_checkpoint
from metarl.training.loop import train
from metarl.training.options import RunOptions
from metarl.training.run_folder import Progress, load_run
from tests.training.test_loop import SMALL, TASK, assert_equal_runs, state_of

OPTIONS = {"iterations": 6, "checkpoint_seconds": 1e-9, **SMALL}


def iterations(folder):
    return {p.name: read_checkpoint(p).progress["iteration"] for p in checkpoint_paths(folder)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train("rl2", TASK, out=tmp_path_factory.mktemp("whole") / "run", **OPTIONS)


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """A run with checkpoints of the iterations 4, 3 and 2."""
    with monkeypatch.context() as patch:
        patch.setattr("metarl.training.loop._Training._iteration", _failing_after(4))
        with pytest.raises(ZeroDivisionError):
            train("rl2", TASK, out=tmp_path / "run", **OPTIONS)
    return load_run(tmp_path / "run")


def _failing_after(last):
    from metarl.training.loop import _Training

    original = _Training._iteration

    def iteration(self, progress):
        if progress.iteration == last:
            raise ZeroDivisionError
        return original(self, progress)

    return iteration


@pytest.mark.parametrize("keep", [1, 2, 3, 5])
def test_the_last_few_are_kept_newest_first(tmp_path, keep):
    run = train("rl2", TASK, out=tmp_path / "run", checkpoints=keep, **OPTIONS)
    assert list(iterations(run.path).values()) == [6, 5, 4, 3, 2, 1][:keep]
    assert next(iter(iterations(run.path))) == "checkpoint.safetensors"


def test_keeping_fewer_than_before_removes_the_oldest(cut):
    train("rl2", TASK, out=cut.path, resume=True, checkpoints=2, **OPTIONS)
    assert iterations(cut.path) == {"checkpoint.safetensors": 6, "checkpoint.1.safetensors": 5}


def test_the_number_of_checkpoints_must_be_positive():
    with pytest.raises(ConfigError, match="checkpoints=0 must be greater than zero"):
        RunOptions(checkpoints=0)


def test_the_first_is_written_after_the_first_iteration(tmp_path, monkeypatch):
    monkeypatch.setattr("metarl.training.loop._Training._save_after", lambda *_: None)
    monkeypatch.setattr("metarl.training.loop._Training._iteration", _failing_after(3))
    with pytest.raises(ZeroDivisionError):
        train("rl2", TASK, out=tmp_path / "run", **{**OPTIONS, "checkpoint_seconds": 1e6})
    assert iterations(tmp_path / "run") == {"checkpoint.safetensors": 1}


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-50] ^= 4  # in a tensor
    path.write_bytes(content)


def without_checksum(path):
    metadata = dict(checkpoint.safetensors.safe_open(path, "pt").metadata())
    del metadata["checksum"]
    save_file(load_file(path), path, metadata)


def of_another_iteration(path):
    metadata = dict(checkpoint.safetensors.safe_open(path, "pt").metadata())
    metadata["progress"] = json.dumps({**json.loads(metadata["progress"]), "iteration": 5})
    save_file(load_file(path), path, metadata)


def of_another_program(path):
    save_file({"weight": torch.zeros(2)}, path)


DAMAGES = [truncated, emptied, flipped, without_checksum, of_another_iteration, of_another_program]


@pytest.mark.parametrize("damage", DAMAGES)
def test_resuming_skips_a_broken_checkpoint_says_so_and_is_exact(cut, whole, caplog, damage):
    damage(cut.checkpoint)
    with pytest.raises(CheckpointError):
        cut.load(cut.make_agent(cut.config.make_family()))
    resumed = train("rl2", TASK, out=cut.path, resume=True, **OPTIONS)
    assert_equal_runs(resumed, whole)
    assert "checkpoint.safetensors" in caplog.messages[0]
    assert caplog.messages[0].endswith("It is skipped.")
    assert caplog.messages[1].endswith("checkpoint.1.safetensors, iteration 3.")
    assert len(caplog.messages) == 2


def test_a_kill_while_checkpoints_are_moved_loses_none(cut, whole):
    cut.checkpoint.rename(cut.path / "moved.safetensors")
    (cut.path / "moved.safetensors").unlink()
    assert state_of(cut)  # an evaluation reads the next one
    resumed = train("rl2", TASK, out=cut.path, resume=True, **OPTIONS)
    assert_equal_runs(resumed, whole)


def test_moving_never_leaves_a_folder_without_a_checkpoint(cut, monkeypatch):
    counts = []
    original = checkpoint.Path.replace

    def replace(path, target):
        counts.append(len(checkpoint_paths(cut.path)))
        return original(path, target)

    monkeypatch.setattr(checkpoint.Path, "replace", replace)
    agent = cut.make_agent(cut.config.make_family())
    cut.save(agent, Progress(iteration=5))
    assert counts == [3, 2] or min(counts) >= 2
    assert list(iterations(cut.path).values()) == [5, 4, 3]


def test_only_broken_checkpoints_are_one_error(cut):
    for path in checkpoint_paths(cut.path):
        truncated(path)
    with pytest.raises(CheckpointError, match=r"None of the checkpoints .* can be read: ch"):
        train("rl2", TASK, out=cut.path, resume=True, **OPTIONS)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "config.json"])
def test_a_newer_format_is_refused_and_never_skipped(cut, name):
    path = cut.path / name
    if name == "config.json":
        path.write_text(path.read_text().replace("metarl-run-3", "metarl-run-12"))
    else:
        metadata = dict(checkpoint.safetensors.safe_open(path, "pt").metadata())
        save_file(load_file(path), path, {**metadata, "format": "metarl-run-12"})
    with pytest.raises((CheckpointError, OSError), match=r"'metarl-run-12', of a newer version"):
        train("rl2", TASK, out=cut.path, resume=True, **OPTIONS)


def test_the_mode_follows_the_umask(whole):
    before = os.umask(0o022)
    os.umask(before)
    assert stat.S_IMODE(whole.checkpoint.stat().st_mode) == 0o666 & ~before


def test_resuming_a_complete_run_changes_no_checkpoint(whole):
    before = iterations(whole.path)
    train("rl2", TASK, out=whole.path, resume=True, **OPTIONS)
    assert iterations(whole.path) == before
