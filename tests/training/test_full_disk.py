"""A disk that gets full: one clear error, old files whole, and an exact continuation."""

import errno
import os

import pytest
import torch
from matplotlib.figure import Figure

import metarl
from metarl.errors import RunFolderError
from metarl.plots import style
from metarl.training.loop import train
from metarl.training.run_folder import load_run
from tests.file_limits import file_size_limit
from tests.foreign_runs import copy_of, train_tiny
from tests.training.test_loop import SMALL, TASK, Interrupting, assert_equal_runs, state_of

OPTIONS = {"iterations": 60, "checkpoint_seconds": 1e6, **SMALL}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train("rl2", TASK, out=tmp_path_factory.mktemp("whole") / "run", **OPTIONS)


def test_training_on_a_full_disk_is_one_error_and_is_continued_exactly(tmp_path, whole):
    (events,) = whole.path.glob("events*")
    checkpoint, events = whole.checkpoint.stat().st_size, events.stat().st_size
    assert checkpoint < events
    failed_in = []
    for size in (10, checkpoint - 10, events - 10):
        path = tmp_path / str(size)
        with (
            file_size_limit(size),
            pytest.raises(RunFolderError, match=r"cannot be written .* free some space") as raised,
        ):
            train("rl2", TASK, out=path, **OPTIONS)
        failed_in.append(str(raised.value).split(" cannot be written")[0].rpartition("/")[2][:7])
        assert not [file for file in path.iterdir() if "partial" in file.name]
        assert_equal_runs(train("rl2", TASK, out=path, resume=True, **OPTIONS), whole)
    assert failed_in == ["config.", "checkpo", "events."]


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path, monkeypatch, whole):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        Interrupting(patch, at=4)
        with pytest.raises(KeyboardInterrupt):
            train("rl2", TASK, out=path, **OPTIONS)
    before = state_of(load_run(path))
    with file_size_limit(whole.checkpoint.stat().st_size - 10), pytest.raises(RunFolderError):
        train("rl2", TASK, out=path, resume=True, **OPTIONS)
    after = state_of(load_run(path))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert_equal_runs(train("rl2", TASK, out=path, resume=True, **OPTIONS), whole)


def test_a_picture_that_does_not_fit_leaves_the_one_before(tmp_path):
    figure = Figure()
    stem = str(tmp_path / "picture")
    for ending in style.METADATA:
        path = style.save(figure, stem, ending)
        content = path.read_bytes()
        with file_size_limit(500), pytest.raises(RunFolderError, match="free some space"):
            style.save(figure, stem, ending)
        assert path.read_bytes() == content
    assert len(list(tmp_path.iterdir())) == len(style.METADATA)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("evaluated") / "run")


def all_files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


@pytest.mark.parametrize("file", ["adaptation.csv", "trials.csv", "evaluation.json"])
def test_an_evaluation_that_does_not_fit_leaves_the_one_before(evaluated, tmp_path, file):
    run = copy_of(evaluated, tmp_path / "run")
    before = all_files(run)
    small = {"num_tasks": 12, "references": ("none",)}  # other settings than those of `before`
    sizes = {"adaptation.csv": 100, "trials.csv": 2000, "evaluation.json": 2000}
    with file_size_limit(sizes[file]), pytest.raises(RunFolderError, match="free some space"):
        metarl.evaluate(run, **small)
    assert all_files(run) == before
    metarl.evaluate(run, **small)
    assert len(list((run / "evaluations").iterdir())) == 1


def test_an_exported_network_that_does_not_fit_leaves_the_one_before(evaluated, tmp_path):
    path = metarl.export_policy(evaluated, tmp_path / "policy.pt2")
    before = path.read_bytes()
    with file_size_limit(len(before) // 2), pytest.raises(RunFolderError, match="free some space"):
        metarl.export_policy(evaluated, path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def sweep_of(folder):
    file = folder / "sweep.toml"
    file.write_text(
        f'agent = "rl2"\ntask = "{TASK}"\nseeds = [0]\nagent_options = {{ iterations = 1 }}\n'
        "sweep = { learning_rate = [0.01] }\n"
    )
    metarl.sweep(file, out=folder / "new", processes=1, progress=False)


LOCKED = {
    "training.lock": lambda folder: train("rl2", TASK, out=folder / "new", **OPTIONS),
    "sweep.lock": sweep_of,
}


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES"])
@pytest.mark.parametrize("lock", LOCKED)
def test_a_lock_that_cannot_be_made_is_one_error_and_nothing_else_is_written(
    tmp_path, monkeypatch, lock, code
):
    open_file = os.open

    def full(path, *arguments, **options):
        if os.fspath(path).endswith(lock):
            raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)), path)
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", full)
    remedy = "free some space" if code in ("ENOSPC", "EDQUOT") else "make this one writable"
    with pytest.raises(RunFolderError, match=rf"new cannot be written .*{remedy}"):
        LOCKED[lock](tmp_path)
    assert [*(tmp_path / "new").iterdir()] == []
