"""A folder without a finished iteration blocks nobody, and nothing else is ever overwritten."""

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.errors import ConfigError, RunFolderError
from metarl.results.learning_curves import read_metrics
from metarl.training.loop import train
from metarl.training.run_folder import load_run
from tests.training.test_loop import SMALL, TASK, assert_equal_runs

MAML = {"num_tasks": 4, "progress": False, "iterations": 2, "hidden_sizes": (4,)}
BANDIT = {"arms": 3, "pulls": 5}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("left", [(), ("training.lock", ".config.7.partial.json")])
def test_what_a_kill_before_the_settings_leaves_is_used(tmp_path, left, resume):
    for name in left:
        (tmp_path / name).touch()
    run = train("rl2", TASK, iterations=2, out=tmp_path, resume=resume, **SMALL)
    assert len(read_metrics(run.path / "metrics.csv")) == 2
    assert not list(tmp_path.glob(".*"))


def test_a_training_that_fails_in_its_first_iteration_leaves_a_usable_folder(tmp_path):
    other = {"task_options": BANDIT, "rollouts_per_task": 6, **MAML}
    whole = train("maml", TASK, out=tmp_path / "whole", **other)
    for resume in (False, True):
        with pytest.raises(ConfigError, match="Raise rollouts_per_task or episodes"):
            train("maml", TASK, out=tmp_path / f"{resume}", **{**other, "rollouts_per_task": 1})
        mended = train("maml", TASK, out=tmp_path / f"{resume}", resume=resume, **other)
        assert_equal_runs(mended, whole)
        assert len(list(mended.path.glob("events*"))) == 1


def test_rows_and_events_without_a_checkpoint_are_dropped(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("metarl.training.run_folder.Run.save", _fail)
        with pytest.raises(ZeroDivisionError):
            train("rl2", TASK, iterations=3, out=tmp_path / "run", seed=4, **SMALL)
    assert len(read_metrics(tmp_path / "run" / "metrics.csv")) == 1
    run = train("rl2", TASK, iterations=2, out=tmp_path / "run", **SMALL)
    assert load_run(run.path).config.seed == 0
    assert_equal_runs(run, train("rl2", TASK, iterations=2, out=tmp_path / "new", **SMALL))


def _fail(*_, **__):
    raise ZeroDivisionError


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [("thesis.tex", "x"), ("metrics.csv", "iteration\n1\n"), ("config.json", '{"mine": 1}')],
)
def test_a_folder_with_files_of_others_is_refused_and_unchanged(tmp_path, name, content, resume):
    (tmp_path / name).write_text(content)
    with pytest.raises(RunFolderError, match=rf"exists with {name}, and is no run folder.*--out"):
        train("rl2", TASK, iterations=1, out=tmp_path, resume=resume, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == content


def test_a_finished_iteration_is_never_overwritten(tmp_path):
    run = train("rl2", TASK, iterations=1, out=tmp_path / "run", **SMALL)
    content = run.checkpoint.read_bytes()
    with pytest.raises(RunFolderError, match=r"exists and would be overwritten.*--resume"):
        train("rl2", TASK, iterations=1, out=tmp_path / "run", **SMALL)
    assert run.checkpoint.read_bytes() == content


def test_the_seed_may_be_a_numpy_integer_and_nothing_else_that_is_not_whole(tmp_path):
    run = train("rl2", TASK, iterations=1, seed=np.int64(3), out=tmp_path / "run", **SMALL)
    assert load_run(run.path).config.seed == 3
    with pytest.raises(ConfigError, match=r"seed=1\.5 of RunOptions must be a whole number"):
        train("rl2", TASK, iterations=1, seed=1.5, out=tmp_path / "other", **SMALL)
    assert not (tmp_path / "other").exists()


class SixthCopyFails(gymnasium.Env):
    """Its sixth object cannot be made."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = task_space = gymnasium.spaces.Discrete(2)
    broken, made = True, 0

    def __init__(self):
        type(self).made += 1
        if self.broken and self.made == 6:
            raise OSError("no more licences")

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


def test_an_env_that_cannot_be_made_leaves_a_usable_folder(tmp_path, monkeypatch):
    gymnasium.register("glass/Sixth-v0", SixthCopyFails, max_episode_steps=2)
    try:
        with pytest.raises(OSError, match="no more licences"):
            train("rl2", "glass/Sixth-v0", iterations=1, out=tmp_path / "run", **SMALL)
        monkeypatch.setattr(SixthCopyFails, "broken", False)
        assert metarl.train("rl2", "glass/Sixth-v0", iterations=1, out=tmp_path / "run", **SMALL)
    finally:
        del gymnasium.registry["glass/Sixth-v0"]
