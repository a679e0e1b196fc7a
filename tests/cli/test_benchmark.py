"""The command that measures speed."""

import pytest

from metarl.cli.main import main


def test_a_row_for_each_workload(capsys, tmp_path):
    words = ["--num-tasks", "4", "8", "--rounds", "2", "--no-progress", "--task.pulls", "3"]
    words += ["--agent.hidden-size", "8", "--out", str(tmp_path / "speed")]
    assert main(["benchmark", "rl2", "metarl/BernoulliBandit-v0", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:7]] == [
        [number, work] for number in "48" for work in ("env", "rollout", "train")
    ]
    assert (tmp_path / "speed.md").exists()


@pytest.mark.parametrize("words", [[], ["rl2"], ["--rounds", "3"]])
def test_agent_and_task_must_be_named(capsys, words):
    assert main(["benchmark", *words]) == 2
    assert "AGENT or TASK is missing" in capsys.readouterr().err


def test_help_lists_the_options(capsys):
    assert main(["benchmark", "rl2", "metarl/BernoulliBandit-v0", "--help"]) == 0
    out = capsys.readouterr().out
    for option in ("--num-tasks", "--rounds", "--agent.hidden-size", "--task.pulls"):
        assert option in out
