"""Trained agents that come with metarl: their names, cards and numbers."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import metarl
from metarl.cli import main as cli
from metarl.deployment.trained_policy import load_policy
from metarl.errors import RunFolderError, UnknownNameError
from metarl.evaluation.agents import evaluate
from metarl.training.loop import train
from metarl.training.run_folder import load_run
from metarl.training.zoo import run_path, zoo_folder, zoo_names

NAMES = zoo_names()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def card(name):
    return (zoo_folder() / name / "README.md").read_text(encoding="utf-8")


def test_the_zoo_has_agents_of_both_kinds():
    assert {"rl2-bandit-5x10", "maml-point-navigation"} <= set(NAMES)
    assert run_path("zoo:rl2-bandit-5x10") == zoo_folder() / "rl2-bandit-5x10"
    with pytest.raises(
        UnknownNameError, match=r"no agent 'rl2-bandit'.*Did you mean 'rl2-bandit-5"
    ):
        load_run("zoo:rl2-bandit")


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_of_the_zoo_acts_and_is_small(name):
    policy = load_policy(f"zoo:{name}")
    family = load_run(f"zoo:{name}").config.make_family()
    policy.begin_trial(seed=1)
    action = policy.act(np.zeros(family.observation_space.shape, dtype=np.float32))
    assert family.action_space.contains(action)
    sizes = [path.stat().st_size for path in (zoo_folder() / name).iterdir()]
    assert sum(sizes) < 200_000


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_card_runs(monkeypatch, name):
    monkeypatch.chdir(zoo_folder())
    code, found = card(name).partition("```python\n")[2].partition("```")[0], {}
    exec(code, found)  # the code that a reader of the card would copy
    assert f'load_policy("{name}")' in code
    assert found["ended"]
    assert found["policy"].adapts_by_gradient == ("policy.adapt()" in code)


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_of_the_zoo_is_evaluated_by_its_name(folder, name):
    few = ["--num-tasks", "2", "--references", "none", "--no-progress"]
    assert cli.main(["evaluate", f"zoo:{name}", *few]) == 0
    assert (folder / "runs" / "zoo" / name / "adaptation.csv").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_a_card_holds_command_seed_versions_and_numbers(name):
    text, config = card(name), load_run(f"zoo:{name}").config
    header = yaml.safe_load(text.split("---")[1])
    assert header["model-index"][0]["results"][0]["dataset"]["name"] == config.family
    for expected in ("metarl train --config", f"| seed | {config.seed} |", "torch", "minutes"):
        assert expected in text
    assert re.search(r"\d test tasks, evaluation seed 1000000", text)


def test_an_evaluation_agrees_with_the_card(folder):
    """An interval of 1,000 other tasks contains about the mean in the card."""
    (row,) = re.findall(r"^\| RL² \|.*$", card("rl2-bandit-5x10"), re.MULTILINE)
    mean = float(row.split("|")[5].split("[")[0])
    (curve,) = evaluate("zoo:rl2-bandit-5x10", num_tasks=1000, references=False)
    total = curve.returns.sum(0)
    assert abs(total.mean() - mean) < 4 * total.std() / len(total) ** 0.5
    assert mean > 6.4  # random pulls give 5
    assert (folder / "runs" / "zoo" / "rl2-bandit-5x10" / "adaptation.csv").is_file()
    assert not (zoo_folder() / "rl2-bandit-5x10" / "adaptation.csv").exists()


def test_the_commands_take_names_of_the_zoo(folder, capsys):
    assert cli.main(["list", "--zoo"]) == 0
    printed = capsys.readouterr().out
    assert all(f"zoo:{name}\n" in printed for name in NAMES)
    few = ["--num-tasks", "5", "--no-progress", "--task.pulls", "20"]
    assert cli.main(["evaluate", "zoo:rl2-bandit-5x10", *few]) == 0
    assert "runs/zoo/rl2-bandit-5x10/adaptation.csv" in capsys.readouterr().out
    assert cli.main(["plot", "zoo:rl2-bandit-5x10", "--formats", "svg"]) == 0
    assert cli.main(["compare", "zoo:rl2-bandit-5x10"]) == 0
    assert cli.main(["report", "zoo:rl2-bandit-5x10", "--out", "report.html"]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "No film" not in page
    assert page.count("data:image/gif;base64,") == 1
    assert metarl.report("zoo:rl2-bandit-5x10", films=False).parent == Path(
        "runs/zoo/rl2-bandit-5x10"
    )
    capsys.readouterr()
    assert cli.main(["compare", "zoo:rl2-two-step"]) == 1
    assert "`metarl evaluate zoo:rl2-two-step` does it" in capsys.readouterr().err
    assert cli.main(["export", "zoo:rl2-bandit-5x10", "--out", "p.pt2"]) == 0
    assert cli.main(["evaluate", "zoo:gone", *few]) == 2


def test_training_starts_from_an_agent_of_the_zoo_and_does_not_go_on_in_it(folder):
    task = "metarl/BernoulliBandit-v0"
    few = {"num_tasks": 8, "iterations": 1, "progress": False, "task_options": {"pulls": 20}}
    run = train("rl2", task, init_from="zoo:rl2-bandit-5x10", out=folder / "run", **few)
    assert run.config.init_from == "zoo:rl2-bandit-5x10"
    shared = metarl.write_card(run, share=folder / "shared").parent
    with pytest.raises(RunFolderError, match=r"without the state of the optimiser.*--init-from"):
        train("rl2", task, init_from="zoo:rl2-bandit-5x10", out=shared, resume=True, **few)
