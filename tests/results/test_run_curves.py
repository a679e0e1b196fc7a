import json
from dataclasses import replace

import pytest

from metarl.errors import ConfigError
from metarl.results.adaptation_curves import write_curves
from metarl.results.bootstrap import join_curves
from metarl.results.run_config import FORMAT
from metarl.results.run_curves import read_run_curves
from tests.results.test_adaptation_curves import make_curve


def evaluated(folder, *, label="RL²", seed=0, **options):
    """The folder of an evaluated run: settings and adaptation curves."""
    folder.mkdir()
    config = {"agent": "rl2", "agent_options": options, "seed": seed, "task": "a/B-v0"}
    (folder / "config.json").write_text(json.dumps(config | {"task_options": {}, "format": FORMAT}))
    floor = make_curve(agent="random", label="random", role="floor", run="")
    agent = replace(make_curve(label=label), run=folder.name)
    write_curves(folder / "adaptation.csv", [agent, floor])
    return folder


def labels(*folders):
    joined = join_curves(read_run_curves(folders))
    return [curve.label for curve in joined if curve.role == "agent"]


def test_runs_that_differ_only_in_their_seed_are_one_agent(tmp_path):
    folders = [evaluated(tmp_path / str(seed), seed=seed, hidden_size=8) for seed in range(3)]
    assert labels(*folders) == ["RL²"]


def test_options_that_differ_are_added_to_the_labels(tmp_path):
    one = evaluated(tmp_path / "one", hidden_size=8, gamma=0.9)
    two = evaluated(tmp_path / "two", hidden_size=64, gamma=0.9, seed=1)
    three = evaluated(tmp_path / "three", hidden_size=64, gamma=0.9, seed=2)
    assert labels(one, two, three) == ["RL² (hidden_size=8)", "RL² (hidden_size=64)"]
    assert labels(two, three) == ["RL²"]


def test_runs_with_different_labels_are_different_agents(tmp_path):
    one = evaluated(tmp_path / "one", hidden_size=8, label="small")
    two = evaluated(tmp_path / "two", hidden_size=64, label="large")
    assert labels(one, two) == ["small", "large"]


def test_the_same_training_twice_is_refused(tmp_path):
    folders = [evaluated(tmp_path / name, hidden_size=8, seed=3) for name in ("one", "two")]
    with pytest.raises(ConfigError, match=r"one and .*two are the same training"):
        read_run_curves(folders)
