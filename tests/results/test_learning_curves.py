import json
import re

import pytest

from metarl.errors import RunFolderError, UnknownNameError
from metarl.results.adaptation_curves import write_curves
from metarl.results.learning_curves import read_learning
from metarl.results.run_config import FORMAT
from tests.results.test_adaptation_curves import make_curve


def make_training(folder, *, values=(1.0, 2.0, 4.0), seed=0, seconds=10.0, **options):
    """The folder of a trained run: one iteration every 100 steps and `seconds` seconds."""
    folder.mkdir(parents=True)
    rows = [f"{i},{100 * i},{seconds * i},{value}" for i, value in enumerate(values, 1)]
    (folder / "metrics.csv").write_text(
        "\n".join(["iteration,env_steps,seconds,last_episode_return", *rows]) + "\n"
    )
    config = {
        "agent": "rl2",
        "format": FORMAT,
        "agent_options": {"hidden_size": 8, "memory": "gru"} | options,
        "task": "lab/Task-v0",
        "task_options": {"arms": 5, "pulls": 10},
        "seed": seed,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_metric_is_read_with_the_settings_of_its_run(tmp_path):
    curve = read_learning(make_training(tmp_path / "a", seed=3), "last_episode_return")
    assert curve.values.tolist() == [1.0, 2.0, 4.0]
    assert curve.env_steps.tolist() == [100.0, 200.0, 300.0]
    assert curve.seconds.tolist() == [10.0, 20.0, 30.0]
    assert (curve.run, curve.agent, curve.seed) == ("a", "rl2", 3)
    assert curve.family == "lab/Task-v0 (arms=5, pulls=10)"
    assert curve.label is None


def test_the_label_comes_from_the_evaluation(tmp_path):
    folder = make_training(tmp_path / "a")
    write_curves(folder / "adaptation.csv", [make_curve()])
    assert read_learning(folder, "last_episode_return").label == 'RL^2, "GRU"'
    write_curves(folder / "adaptation.csv", [make_curve(role="floor", label="random")])
    assert read_learning(folder, "last_episode_return").label is None


def test_the_error_for_an_unknown_metric_lists_the_existing_ones(tmp_path):
    folder = make_training(tmp_path / "a")
    with pytest.raises(UnknownNameError, match=r"no metric 'loss'; it has iteration, env_steps"):
        read_learning(folder, "loss")


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        ("metrics.csv", lambda text: None, "`metarl train AGENT TASK --out .*a` writes it"),
        ("metrics.csv", lambda text: text.replace("seconds", "time"), "names no column seconds"),
        ("metrics.csv", lambda text: text.replace("200", "x"), "Line 3 .* 'x' in column 'env_st"),
        ("metrics.csv", lambda text: text.splitlines()[0] + "\n", "has not finished an iteration"),
        ("metrics.csv", lambda text: text[:-2], "has no end"),
        ("config.json", lambda text: None, "is not a run's config.json"),
        ("config.json", lambda text: text[:-2], "is not a run's config.json"),
        ("config.json", lambda text: text.replace("seed", "sed"), "lacks seed"),
    ],
)
def test_the_error_names_the_damaged_file(tmp_path, file, change, complaint):
    folder = make_training(tmp_path / "a")
    changed = change((folder / file).read_text())
    (folder / file).unlink() if changed is None else (folder / file).write_text(changed)
    with pytest.raises(RunFolderError) as error:
        read_learning(folder, "last_episode_return")
    assert re.search(complaint, str(error.value))
