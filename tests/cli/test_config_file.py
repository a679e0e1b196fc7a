"""Trainings whose settings come from a file."""

import json
import sys

import pytest

from metarl.cli import main as cli
from metarl.training.run_folder import load_run
from tests.training.test_loop import assert_equal_runs

SMALL = ["--num-tasks", "8", "--hidden-size", "8", "--iterations", "2", "--no-progress"]
BANDIT = "metarl/BernoulliBandit-v0"
TOML = f"""
agent = "rl2"
task = "{BANDIT}"
[agent_options]
num_tasks = 8
hidden_size = 8
iterations = 2
[task_options]
arms = 3
[run]
seed = 4
progress = false
out = "from-toml"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_a_run_is_repeated_from_its_config_json(folder):
    given = ["--seed", "3", "--out", "a", "--task.arms", "3", "--memory", "lstm", *SMALL]
    assert cli.main(["train", "rl2", BANDIT, *given]) == 0
    again = ["train", "--config", "a/config.json", "--out", "b", "--no-progress"]
    assert cli.main(again) == 0
    assert load_run("a").config == load_run("b").config
    assert_equal_runs(load_run("a"), load_run("b"))


def test_a_run_goes_on_that_is_named_after_resume(folder):
    given = ["train", "rl2", BANDIT, "--seed", "3", "--task.arms", "3", *SMALL]
    for name in ("a", "b"):
        assert cli.main([*given, "--out", name]) == 0
    assert cli.main([*given, "--iterations", "4", "--out", "a", "--resume"]) == 0
    assert cli.main(["train", "--resume", "b", "--iterations", "4", "--no-progress"]) == 0
    assert load_run("b").config.agent_options["iterations"] == 4
    assert_equal_runs(load_run("a"), load_run("b"))
    again = ["train", "rl2", BANDIT, "--iterations", "5", "--resume=b", "--no-progress"]
    assert cli.main(again) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--resume", "gone"], 1, "gone/config.json is not a run's config.json"),
        (["--resume", "a", "--out", "b"], 2, "Got --out and --resume a"),
        (["--resume", "a", "--seeds", "0", "1"], 2, "Got --seeds and --resume a"),
        (
            ["dpt", BANDIT, "--resume", "a"],
            2,
            "is dpt on the command line and rl2 in a/conf",
        ),
        (["--resume", "a", "--hidden-size", "4"], 1, "it has hidden_size = 8 instead of 4"),
        (["--resume"], 2, "AGENT is missing"),
    ],
)
def test_what_does_not_go_with_a_run_to_resume_is_one_clear_error(
    folder, capsys, words, code, message
):
    assert cli.main(["train", "rl2", BANDIT, "--out", "a", *SMALL]) == 0
    assert cli.main(["train", *words, "--no-progress"]) == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_options_on_the_command_line_override_the_file(folder):
    (folder / "x.toml").write_text(TOML)
    assert cli.main(["train", "--config", "x.toml"]) == 0
    config = load_run("from-toml").config
    assert (config.seed, config.task_options["arms"]) == (4, 3)
    assert (config.agent_options["hidden_size"], config.agent_options["num_tasks"]) == (8, 8)
    changed = ["--seed", "5", "--task.arms", "2", "--num-tasks", "16", "--out", "b"]
    assert cli.main(["train", "rl2", BANDIT, "--config", "x.toml", *changed]) == 0
    config = load_run("b").config
    assert (config.seed, config.task_options["arms"]) == (5, 2)
    assert (config.agent_options["hidden_size"], config.agent_options["num_tasks"]) == (8, 16)


def test_a_preset_in_the_file_is_below_its_options_and_one_given_above(folder):
    text = TOML.replace("iterations = 2\n", "").replace("num_tasks = 8\n", "iterations = 1\n")
    (folder / "x.toml").write_text('preset = "pulls-100"\n' + text)
    file, _ = cli.take_config(["--config", "x.toml"])
    agent, task, _ = cli._defaults("rl2", BANDIT, None, file)
    assert (agent["num_tasks"], agent["iterations"], task) == (512, 1, {"pulls": 100, "arms": 3})
    preset = cli.registry.find_preset("rl2", BANDIT, "pulls-10")
    agent, task, _ = cli._defaults("rl2", BANDIT, preset, file)
    assert (agent["iterations"], agent["hidden_size"], task["pulls"]) == (600, 8, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent = ", "is not a TOML file"),
        ("agent = " + "[" * 5000, "is not a TOML file"),
        ("#" * 10_000_001, "has more than 10,000,000 bytes"),
        ('agent = "rl2"\n', 'lacks task = "..."'),
        (TOML + "sed = 3\n", "no option 'sed'"),
        (TOML.replace("hidden_size", "hiden_size"), "no option 'hiden_size'"),
        (TOML.replace("arms", "amrs"), "no option 'amrs'"),
        ("presett = 1\n" + TOML, "no option 'presett'"),
        (
            'task_options = 3\nagent = "rl2"\ntask = "x"\n',
            "task_options = 3, which must be a table",
        ),
        (TOML.replace('"rl2"', '"rl3"'), "rl3"),
        (TOML.replace("arms = 3", "arms = -3"), "arms=-3"),
    ],
)
def test_a_wrong_file_is_one_clear_error(folder, capsys, text, message):
    (folder / "x.toml").write_text(text)
    assert cli.main(["train", "--config", "x.toml"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in folder.iterdir()] == ["x.toml"]


def test_names_must_agree_and_a_missing_file_is_reported(folder, capsys):
    (folder / "x.toml").write_text(TOML)
    assert cli.main(["train", "dpt", BANDIT, "--config", "x.toml"]) == 2
    assert "is dpt on the command line and rl2 in x.toml" in capsys.readouterr().err
    assert cli.main(["train", "--config", "gone.toml"]) == 2
    assert "gone.toml is not a TOML file: No such file" in capsys.readouterr().err
    assert cli.main(["train", "--config"]) == 2
    assert "--config needs the path" in capsys.readouterr().err


def test_a_module_in_a_file_is_imported_only_if_the_user_names_it(folder, capsys):
    (folder / "sneaky.py").write_text("raise SystemExit('executed')\n")
    content = {
        "format": "metarl-run-3",
        "agent": "rl2",
        "agent_options": {},
        "task": "sneaky:lab/X-v0",
        "task_options": {},
        "seed": 0,
    }
    (folder / "runs").mkdir()
    (folder / "runs" / "config.json").write_text(json.dumps(content))
    assert cli.main(["train", "--config", "runs/config.json"]) == 1
    assert "--module sneaky" in " ".join(capsys.readouterr().err.split())
    assert "sneaky" not in sys.modules
