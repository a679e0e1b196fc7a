"""Tests of reading, continuing and comparing run folders of older formats."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import metarl
from metarl.errors import CheckpointError
from metarl.results.learning_curves import read_learning
from metarl.results.run_config import FORMATS, read_config
from metarl.training.options import RunOptions

DATA = Path(__file__).parents[1] / "data"
"""runs of earlier formats and of the current one, interrupted after two of three iterations"""
FORMAT_1 = DATA / "format_1"
RUNS = sorted(path.relative_to(DATA).as_posix() for path in DATA.glob("format_*/*"))
RENAMED = {
    "rl2": {
        "rollouts_per_task": 2,
        "hidden_size": 4,
        "memory": "lstm",
        "gae_lambda": 0.9,
        "clip_range": 0.3,
        "num_epochs": 2,
        "num_minibatches": 2,
        "entropy_coef": 0.01,
        "final_entropy_coef": 0.001,
        "value_coef": 0.4,
        "max_grad_norm": 0.9,
    },
    "promp": {
        "rollouts_per_task": 4,
        "hidden_sizes": (4,),
        "inner_lr": 0.2,
        "later_lr_scale": 0.4,
        "later_lr_decay": 0.9,
        "initial_kl_coef": 1e-3,
    },
    "emaml": {
        "exploration_coef": 0.2,
        "multi_step_loss": True,
        "shared_advantage_scale": True,
        "curvature_rollouts": 2,
    },
    "meta_sgd": {"max_inner_lr": 0.8},
    "reptile": {"outer_lr": 0.7},
}


@pytest.fixture(params=RENAMED)
def old_run(request, tmp_path):
    """A copy of a run folder of format 1."""
    return shutil.copytree(FORMAT_1 / request.param, tmp_path / request.param)


def test_options_of_an_old_run_have_their_current_names(old_run):
    config = metarl.load_run(old_run).config.make_agent_config()
    assert {name: getattr(config, name) for name in RENAMED[old_run.name]} == RENAMED[old_run.name]
    before = json.loads((old_run / "config.json").read_text())["agent_options"]
    after = read_config(old_run)["agent_options"]
    assert list(before.values()) == list(after.values()) or set(map(str, before.values())) == set(
        map(str, after.values())
    )
    assert set(after) <= {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_any_format_can_be_continued_evaluated_and_plotted(name, tmp_path):
    old_run = shutil.copytree(DATA / name, tmp_path / "run")
    run = metarl.load_run(old_run)
    assert run.load(run.make_agent(run.config.make_family())).iteration == 2
    options = dict(run.config.make_agent_config().__dict__)
    metarl.train(
        run.config.agent,
        run.config.make_family(),
        run=RunOptions(seed=3, out=old_run, resume=True, progress=False),
        **options,
    )
    (curve,) = metarl.evaluate(old_run, num_tasks=3, references=False)
    assert curve.returns.shape[1] == 3
    for metric in ("grad_norm", "trial_return"):
        assert len(read_learning(old_run, metric).values) == 3  # two of them are from before


def test_there_is_a_run_of_every_readable_format():
    formats = {json.loads((DATA / name / "config.json").read_text())["format"] for name in RUNS}
    assert formats == set(FORMATS)


def test_an_old_checkpoint_of_other_settings_is_refused_with_current_names(old_run):
    config = json.loads((old_run / "config.json").read_text())
    config["agent_options"]["copies"] = 8
    (old_run / "config.json").write_text(json.dumps(config))
    run = metarl.load_run(old_run)
    with pytest.raises(CheckpointError, match=r"rollouts_per_task = \d instead of 8"):
        run.load(run.make_agent(run.config.make_family()))


def test_options_of_third_party_agents_keep_their_names(tmp_path):
    config = {"agent": "mine", "task": "a/B-v0", "task_options": {}, "seed": 0}
    options = {"copies": 3, "clip": 0.1, "core": "x"}
    text = json.dumps(config | {"agent_options": options, "format": "metarl-run-1"})
    (tmp_path / "config.json").write_text(text)
    found = read_config(tmp_path)["agent_options"]
    assert found == {"rollouts_per_task": 3, "clip": 0.1, "core": "x"}
