import csv
from dataclasses import fields, replace

import numpy as np
import pytest

from metarl.errors import ConfigError, RunFolderError, ShapeError
from metarl.results.step_log import COLUMNS, StepLog, common_tasks, read_step_logs, write_step_logs


def make_log(*, tasks=(0, 1), steps=4, num_actions=None, seed=0, **given):
    """One episode in each task."""
    rng = np.random.default_rng(seed)
    task = np.repeat(tasks, steps)
    size = len(task)
    values = {
        "run": "a",
        "agent": "rl2",
        "role": "agent",
        "label": 'RL^2, "GRU"',
        "family": "lab/Plane-v0",
        "split": "test",
        "seed": 7,
        "num_actions": num_actions,
        "task": task,
        "rollout": np.zeros(size, dtype=int),
        "phase": np.zeros(size, dtype=int),
        "episode": np.ones(size, dtype=int),
        "step": np.tile(np.arange(1, steps + 1), len(tasks)),
        "reward": rng.standard_normal(size),
        "success": np.full(size, np.nan),
        "parameter": rng.standard_normal((size, 2)),
        "expected_reward": np.zeros((size, 0)),
        "observation": rng.standard_normal((size, 2)) / 3,
        "action": rng.standard_normal((size, 2)),
        "next_observation": rng.standard_normal((size, 2)),
    }
    return StepLog(**(values | given))


def assert_equal(one, other):
    for field in fields(StepLog):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_written_logs_are_read_back_bit_for_bit(tmp_path):
    logs = [make_log(), make_log(agent="random", run="", role="floor", seed=1)]
    write_step_logs(tmp_path / "t.csv", logs)
    for one, other in zip(logs, read_step_logs(tmp_path / "t.csv"), strict=True):
        assert_equal(one, other)


def test_discrete_actions_and_many_components_are_read_back(tmp_path):
    wide = np.arange(8 * 12, dtype=float).reshape(8, 12)  # "parameter_10" sorts before "..._2"
    log = make_log(
        num_actions=12,
        action=np.arange(8.0)[:, None],
        parameter=wide,
        expected_reward=wide + 0.5,
        success=np.tile([0.0, 1.0], 4),
    )
    write_step_logs(tmp_path / "t.csv", [log])
    (back,) = read_step_logs(tmp_path / "t.csv")
    assert back.num_actions == 12
    assert_equal(back, log)


def test_logs_of_earlier_versions_are_read_with_the_present_names(tmp_path):
    log = make_log(rollout=np.tile([0, 1], 4))
    write_step_logs(tmp_path / "t.csv", [log])
    text = (tmp_path / "t.csv").read_text()
    (tmp_path / "t.csv").write_text(text.replace(",rollout,", ",copy,", 1))
    (back,) = read_step_logs(tmp_path / "t.csv")
    assert_equal(back, log)


def test_rows_are_tidy(tmp_path):
    write_step_logs(tmp_path / "t.csv", [make_log()])
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[: len(COLUMNS)] == list(COLUMNS)
    assert [(row["task"], row["step"], row["success"]) for row in rows[:5]] == [
        ("0", "1", ""),
        ("0", "2", ""),
        ("0", "3", ""),
        ("0", "4", ""),
        ("1", "1", ""),
    ]
    assert {"observation_0", "observation_1", "action_1", "next_observation_1"} <= rows[0].keys()
    assert rows[0]["num_actions"] == ""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace("reward", "gain"), "names no column reward; .* of trials are"),
        (lambda text: text.replace("test,7,", "test,x,"), "'x' in column 'seed'"),
        (lambda text: text.replace("test,7,,", "test,7,-3,"), "'-3' in column 'num_actions'"),
        (lambda text: text.replace(",1,0,0,1,1,", ",1,0,0,1,1.5,"), "'1.5' in column 'step'"),
        (lambda text: text[:-4], "has no end"),
        (lambda text: text.splitlines()[0] + "\n", r"holds no rows; write .* `metarl evaluate"),
    ],
)
def test_the_error_names_the_damage(tmp_path, change, complaint):
    path = tmp_path / "t.csv"
    write_step_logs(path, [make_log()])
    path.write_text(change(path.read_text()))
    with pytest.raises(RunFolderError, match=complaint):
        read_step_logs(path)


def test_wrong_axes_are_refused():
    with pytest.raises(ShapeError, match=r"StepLog.reward must have 1 axes, .* S = 8 .* \[7\]"):
        make_log(reward=np.zeros(7))
    with pytest.raises(ShapeError, match=r"StepLog.action must have 2 axes"):
        make_log(action=np.zeros(8))


def test_where_gives_a_log_of_the_chosen_steps():
    log = make_log()
    part = log.where(log.task == 1)
    assert part.tasks == [1]
    np.testing.assert_array_equal(part.observation, log.observation[4:])
    assert part.label == log.label


def test_common_tasks_are_those_in_all_logs():
    logs = [make_log(tasks=(0, 1, 2, 5)), make_log(tasks=(1, 2, 3, 5))]
    assert common_tasks(logs, 2) == [1, 2]
    assert common_tasks(logs, 9) == [1, 2, 5]
    with pytest.raises(ConfigError, match="tasks=0 must be at least 1"):
        common_tasks(logs, 0)
    with pytest.raises(ConfigError, match=r"seed 7, and .* seed 8; one figure shows the same"):
        common_tasks([logs[0], replace(logs[0], seed=8)], 2)
