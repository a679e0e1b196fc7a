import json
import re

import numpy as np
import pytest

from metarl.errors import RunFolderError, UnknownNameError
from metarl.results.adaptation_curves import write_curves
from metarl.results.learning_curves import read_learning
from metarl.results.run_config import FORMAT
from tests.results.test_adaptation_curves import make_curve

EVALUATIONS = """iteration,env_steps,seconds,episode,return,standard_error,success
0,0,0,1,1,0.1,nan
0,0,0,2,3,0.1,nan
2,200,20.5,1,2,0.1,nan
2,200,20.5,2,6,0.1,nan
"""


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


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("first_episode_return", [1, 2]),
        ("last_episode_return", [3, 6]),
        ("trial_return", [4, 8]),
    ],
)
def test_evaluations_in_the_course_of_training_are_read(tmp_path, metric, values):
    folder = tmp_path / "run"
    make_training(folder)
    metrics = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(metrics.replace("last_episode_return", metric))
    assert read_learning(folder, metric).held_out is None
    (folder / "evaluation_curve.csv").write_text(EVALUATIONS)
    held_out = read_learning(folder, metric).held_out
    np.testing.assert_array_equal(held_out, [[0, 200], [0, 20.5], values])


def test_a_metric_of_the_learner_has_no_evaluations_and_no_trial_without_every_episode(tmp_path):
    folder = tmp_path / "run"
    make_training(folder)
    (folder / "evaluation_curve.csv").write_text(EVALUATIONS.replace(",2,3,", ",21,3,"))
    assert read_learning(folder, "env_steps").held_out is None
    np.testing.assert_array_equal(read_learning(folder, "last_episode_return").held_out[2], [3, 6])
    metrics = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(metrics.replace("last_episode_return", "trial_return"))
    assert read_learning(folder, "trial_return").held_out is None


def test_broken_evaluations_are_one_error_that_names_the_line(tmp_path):
    folder = tmp_path / "run"
    make_training(folder)
    (folder / "evaluation_curve.csv").write_text(EVALUATIONS.replace("200,20.5,2", "200,x,2"))
    with pytest.raises(RunFolderError, match=r"Line 5 of .*evaluation_curve.csv has 'x'"):
        read_learning(folder, "last_episode_return")
