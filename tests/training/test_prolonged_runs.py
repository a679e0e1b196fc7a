"""Runs that get more iterations, and runs that start from the weights of others."""

import json

import pytest
import torch

from metarl.errors import CheckpointError, ConfigError, RunFolderError
from metarl.training.loop import train
from metarl.training.run_folder import load_run
from metarl.training.seeds import train_seeds
from tests.training.test_loop import assert_equal_runs, state_of

BANDIT, NAVIGATION = "metarl/BernoulliBandit-v0", "metarl/PointNavigation-v0"
SMALL = {"num_tasks": 8, "hidden_size": 8, "progress": False}
CONSTANT = {
    "learning_rate": 0.003,
    "final_learning_rate": 0.003,
    "entropy_coef": 0.01,
    "final_entropy_coef": 0.01,
}


@pytest.mark.parametrize("first", [1, 3])
def test_a_prolonged_run_equals_one_that_was_longer_from_the_start(tmp_path, first):
    whole = train("rl2", BANDIT, iterations=5, out=tmp_path / "whole", **SMALL, **CONSTANT)
    train("rl2", BANDIT, iterations=first, out=tmp_path / "run", **SMALL, **CONSTANT)
    run = train("rl2", BANDIT, iterations=5, out=tmp_path / "run", resume=True, **SMALL, **CONSTANT)
    assert_equal_runs(whole, run)
    assert run.config == whole.config == load_run(run.path).config
    content = json.loads((run.path / "config.json").read_text())
    (entry,) = content["prolonged"]
    assert (entry["from"], entry["to"]) == (first, 5)
    assert entry["versions"] == content["versions"]


def test_a_prolonged_gradient_agent_equals_one_that_was_longer(tmp_path):
    small = {"num_tasks": 4, "rollouts_per_task": 4, "hidden_sizes": (8,), "progress": False}
    whole = train("maml", NAVIGATION, iterations=3, out=tmp_path / "whole", **small)
    train("maml", NAVIGATION, iterations=2, out=tmp_path / "run", **small)
    run = train("maml", NAVIGATION, iterations=3, out=tmp_path / "run", resume=True, **small)
    assert_equal_runs(whole, run)


def test_schedules_stretch_over_all_iterations(tmp_path):
    """A rate that falls to zero is half of the first in the third of four iterations."""
    falling = {"learning_rate": 0.1, "final_learning_rate": 0.0, **SMALL}
    train("rl2", BANDIT, iterations=2, out=tmp_path / "run", **falling)
    run = train("rl2", BANDIT, iterations=4, out=tmp_path / "run", resume=True, **falling)
    rows = (run.path / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("learning_rate")
    assert [float(row.split(",")[place]) for row in rows[1:]] == [0.1, 0.05, 0.05, 0.025]


def test_several_prolongations_are_listed(tmp_path):
    for iterations in (1, 2, 4):
        train("rl2", BANDIT, iterations=iterations, out=tmp_path / "run", resume=True, **SMALL)
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [(one["from"], one["to"]) for one in content["prolonged"]] == [(1, 2), (2, 4)]


def test_iterations_cannot_shrink_and_other_settings_cannot_change(tmp_path):
    train("rl2", BANDIT, iterations=2, out=tmp_path / "run", **SMALL)
    before = (tmp_path / "run" / "config.json").read_bytes()
    again = {"out": tmp_path / "run", "resume": True}
    with pytest.raises(RunFolderError, match=r"iterations = 2 instead of 1.*only the iterations"):
        train("rl2", BANDIT, iterations=1, **again, **SMALL)
    with pytest.raises(RunFolderError, match=r"it has hidden_size = 8 instead of 16\. Give"):
        train("rl2", BANDIT, iterations=3, **again, **{**SMALL, "hidden_size": 16})
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_prolonged_run_whose_training_did_not_go_on_can_be_resumed_and_loaded(tmp_path):
    run = train("rl2", BANDIT, iterations=2, out=tmp_path / "run", **SMALL)
    content = json.loads((run.path / "config.json").read_text())
    content["agent_options"]["iterations"] = 3
    (run.path / "config.json").write_text(json.dumps(content))
    assert load_run(run.path).load(run.make_agent(run.config.make_family())).iteration == 2
    longer = train("rl2", BANDIT, iterations=3, out=run.path, resume=True, **SMALL)
    assert longer.load(run.make_agent(run.config.make_family())).iteration == 3


def of_weights(state):
    return {
        name: value
        for name, value in state.items()
        if not name.startswith(("optimiser.", "outer.", "replay.")) and name != "updates"
    }


@pytest.mark.parametrize(
    ("agent", "options"),
    [
        ("rl2", {"hidden_size": 8}),
        ("varibad", {"hidden_size": 16}),
        ("maml", {"hidden_sizes": (8,), "rollouts_per_task": 4}),
        ("pearl", {"hidden_size": 8}),
    ],
)
def test_training_starts_from_the_weights_of_another_run(tmp_path, monkeypatch, agent, options):
    small = {"num_tasks": 8, "iterations": 2, "progress": False, **options}
    source = train(agent, NAVIGATION, out=tmp_path / "source", **small)
    starts = []
    from metarl.training import job

    original = job.take_weights

    def recorded(new, *arguments):
        fresh = new.state()
        original(new, *arguments)
        starts.append((fresh, new.state()))

    monkeypatch.setattr(job, "take_weights", recorded)
    run = train(
        agent,
        "metarl/SparsePointNavigation-v0",
        out=tmp_path / "run",
        seed=4,
        init_from=source,
        **{**small, "iterations": 1},
    )
    ((fresh, started),) = starts
    expected = of_weights(state_of(source))
    for name, value in of_weights(started).items():
        assert torch.equal(value, expected[name]), name
    others = [name for name in started if name not in expected]
    assert started.keys() == fresh.keys()
    for name in others:  # the optimiser, its count and the replay are those of a new agent
        assert torch.equal(started[name], fresh[name]), name
    content = json.loads((run.path / "config.json").read_text())
    assert content["init_from"] == load_run(run.path).config.init_from == str(source.path)
    origin = content["initial_weights"]
    assert (origin["agent"], origin["seed"], origin["iteration"]) == (agent, 0, 2)


def test_a_run_that_started_from_another_is_resumed_without_it(tmp_path):
    source = train("rl2", BANDIT, iterations=1, out=tmp_path / "source", **SMALL)
    warm = {"init_from": source.path, "task_options": {"pulls": 20}, **SMALL, **CONSTANT}
    whole = train("rl2", BANDIT, iterations=3, out=tmp_path / "whole", **warm)
    cold = train("rl2", BANDIT, iterations=3, out=tmp_path / "cold", **{**warm, "init_from": None})
    with pytest.raises(AssertionError):
        assert_equal_runs(whole, cold)
    train("rl2", BANDIT, iterations=1, out=tmp_path / "run", **warm)
    source.checkpoint.unlink()
    run = train("rl2", BANDIT, iterations=3, out=tmp_path / "run", resume=True, **warm)
    assert_equal_runs(whole, run)
    with pytest.raises(RunFolderError, match=r"init_from = .* instead of None"):
        train(
            "rl2",
            BANDIT,
            iterations=3,
            out=tmp_path / "run",
            resume=True,
            **{**warm, "init_from": None},
        )


def test_weights_that_do_not_fit_are_refused_before_a_folder_is_made(tmp_path):
    source = train("rl2", BANDIT, iterations=1, out=tmp_path / "source", **SMALL)
    new = {"init_from": source, "iterations": 1, "out": tmp_path / "run"}
    with pytest.raises(ConfigError, match=r"observation_space is Box.*equal spaces"):
        train("rl2", NAVIGATION, **new, **SMALL)
    with pytest.raises(ConfigError, match=r"action_space is Discrete\(5\); here it is Discrete\(3"):
        train("rl2", BANDIT, task_options={"arms": 3}, **new, **SMALL)
    with pytest.raises(CheckpointError, match=r"differ: hidden_size=8 \(here 16\).*shape \[16"):
        train("rl2", BANDIT, **new, **{**SMALL, "hidden_size": 16})
    with pytest.raises(CheckpointError, match="of the agent rl2, and this is maml"):
        train("maml", BANDIT, num_tasks=2, progress=False, **new)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        train("rl2", BANDIT, **{**new, "init_from": tmp_path / "none"}, **SMALL)
    assert not (tmp_path / "run").exists()


def test_several_seeds_start_from_one_run_and_can_be_prolonged(tmp_path):
    source = train("rl2", BANDIT, iterations=1, out=tmp_path / "source", **SMALL)
    options = {"seeds": [0, 1], "out": tmp_path / "runs", "init_from": str(source.path), **SMALL}
    train_seeds("rl2", BANDIT, iterations=1, **options)
    runs = train_seeds("rl2", BANDIT, iterations=2, resume=True, **options)
    assert [run.config.agent_options["iterations"] for run in runs] == [2, 2]
    alone = train("rl2", BANDIT, iterations=1, out=tmp_path / "a", init_from=source, **SMALL)
    alone = train(
        "rl2", BANDIT, iterations=2, out=alone.path, init_from=source, resume=True, **SMALL
    )
    assert_equal_runs(alone, runs[0])
