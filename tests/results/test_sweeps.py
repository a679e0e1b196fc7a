import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from metarl.errors import RunFolderError
from metarl.results.adaptation_curves import write_curves
from metarl.results.evaluation_settings import EvaluationSettings, write_settings
from metarl.results.run_config import FORMAT
from metarl.results.sweeps import (
    SELECTION,
    SWEEP_FILE,
    SweepRecord,
    SweptSetting,
    read_record,
    read_score,
    run_folder,
    sweep_table,
    write_sweep,
    write_sweep_table,
)
from tests.results.test_adaptation_curves import make_curve


def swept(rate):
    training = {
        "agent": "rl2",
        "agent_options": {"iterations": 3, "rate": rate},
        "task": "x/Y-v0",
        "task_options": {},
        "init_from": None,
        "format": FORMAT,
    }
    return SweptSetting(name=f"rate={rate}", options={"rate": rate}, training=training)


RECORD = SweepRecord(
    agent="rl2",
    family="x/Y-v0",
    seeds=[0, 1, 2],
    search="grid",
    space={"rate": [0.1, 0.2, 0.3]},
    search_seed=0,
    metric="last",
    split="train",
    evaluation_seed=1,
    num_tasks=4,
    settings=[swept(0.1), swept(0.2), swept(0.3)],
)


def add_run(folder, setting, training_seed, returns, **changed):
    """Writes the evaluation of a run; `returns` are those of two episodes in each task."""
    selection = run_folder(folder, setting, training_seed) / SELECTION
    selection.mkdir(parents=True)
    returns = np.repeat(np.array(returns)[:, None], 4, axis=1)
    curve = replace(make_curve(points=2), returns=returns)
    write_curves(selection / "adaptation.csv", [curve])
    settings = EvaluationSettings(
        training={**setting.training, "seed": training_seed},
        iteration=3,
        split="train",
        seed=1,
        num_tasks=4,
        episodes=2,
        references=[],
        label=None,
        agent_options={},
        task_options={},
    )
    write_settings(selection, replace(settings, **changed))


@pytest.fixture
def folder(tmp_path):
    write_sweep(tmp_path, RECORD)
    for seed, last in ((0, 1.0), (1, 2.0), (2, 6.0)):
        add_run(tmp_path, RECORD.settings[0], seed, [10.0, last])
    add_run(tmp_path, RECORD.settings[1], 0, [0.0, 5.0])
    return tmp_path


def test_a_record_comes_back_as_it_was_written(folder):
    assert read_record(folder) == RECORD


def test_the_best_setting_is_first_and_one_without_runs_last(folder):
    rows = sweep_table(folder).rows
    assert [row.name for row in rows] == ["rate=0.2", "rate=0.1", "rate=0.3"]
    assert rows[1].scores == {0: 1.0, 1: 2.0, 2: 6.0}
    assert rows[1].mean == 3.0
    assert float(rows[1].score.mean) == 3.0
    assert (rows[2].score, rows[2].mean) == (None, None)


def test_the_metric_may_be_the_whole_trial(folder):
    record = replace(RECORD, metric="total")
    assert sweep_table(folder, record).rows[0].scores == {0: 11.0, 1: 12.0, 2: 16.0}


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 0},
        {"split": "test"},
        {"num_tasks": 5},
        {"iteration": 2},
        {"training": {**swept(0.25).training, "seed": 0}},
        {"training": {**swept(0.3).training, "seed": 1}},
    ],
)
def test_an_evaluation_of_other_tasks_or_other_settings_does_not_count(folder, changed):
    setting = RECORD.settings[2]
    add_run(folder, setting, 0, [0.0, 9.0], **changed)
    assert read_score(folder, RECORD, setting, 0) is None
    assert read_score(folder, RECORD, RECORD.settings[1], 0) == 5.0


def test_the_csv_file_has_a_column_for_each_option_and_each_seed(folder):
    write_sweep_table(folder / "sweep.csv", sweep_table(folder))
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == ["rate=0.2", "rate=0.1", "rate=0.3"]
    assert [row["num_seeds"] for row in rows] == ["1", "3", "0"]
    assert (rows[1]["rate"], rows[1]["seed2"], rows[1]["iqm"]) == ("0.1", "6.0", "3.0")
    assert float(rows[1]["iqm_low"]) < 3 < float(rows[1]["iqm_high"])
    assert (rows[0]["seed1"], rows[2]["iqm"], rows[2]["mean"]) == ("", "", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("seeds"),
        lambda content: content.update(format="metarl-sweep-9"),
        lambda content: content.update(more=3),
        lambda content: content.update(seeds=["0"]),
        lambda content: content.update(metric="first"),
        lambda content: content.update(agent="a\x1b[2J"),
        lambda content: content["settings"][0].update(name="../elsewhere"),
        lambda content: content["settings"][0].update(name=".."),
        lambda content: content["settings"][0].update(options=3),
    ],
)
def test_a_broken_record_is_refused(folder, change):
    content = json.loads((folder / SWEEP_FILE).read_text())
    change(content)
    (folder / SWEEP_FILE).write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match="does not hold the record of a sweep"):
        read_record(folder)


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"not the folder of a sweep: it has no sweep\.json"):
        sweep_table(tmp_path)
