"""Model cards, and folders to share."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from gymnasium.envs.registration import EnvSpec

from metarl import registry
from metarl.cli import main as cli
from metarl.errors import ConfigError, RunFolderError
from metarl.evaluation.agents import evaluate
from metarl.evaluation.card import write_card
from metarl.training.loop import train
from metarl.training.run_folder import load_run
from metarl.training.zoo import run_path
from tests.training.test_loop import state_of

BANDIT = "metarl/BernoulliBandit-v0"
SMALL = {"num_tasks": 8, "hidden_size": 8, "iterations": 2, "progress": False}


@pytest.fixture
def run(tmp_path):
    return train("rl2", BANDIT, seed=3, task_options={"arms": 3}, out=tmp_path / "run", **SMALL)


def test_a_card_without_an_evaluation_says_so(run):
    path = write_card(run)
    text = path.read_text()
    assert path == run.path / "README.md"
    assert "This run was not evaluated." in text
    assert "model-index" not in text
    for expected in ("| seed | 3 |", "| iterations | 2 |", "`task.arms=3`", "`hidden_size=8`"):
        assert expected in text
    assert "gae_lambda" not in text  # a default
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "metarl-suite"


def test_numbers_of_a_card_are_those_of_the_last_evaluation(run):
    curves = evaluate(run, num_tasks=50, seed=4, references=["random"])
    text = write_card(run).read_text()
    assert "50 test tasks, evaluation seed 4" in text
    for curve in curves:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {curve.label} |")]
        assert f"| {curve.returns.sum(0).mean():.2f} [" in row
    header = yaml.safe_load(text.split("---")[1])
    (metric,) = header["model-index"][0]["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(curves[0].returns[-1].mean(), rel=1e-3)


def test_a_shared_folder_has_the_weights_and_acts_alike(run, tmp_path):
    folder = write_card(run, share=tmp_path / "shared").parent
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "checkpoint.safetensors",
        "config.json",
    ]
    ours, theirs = state_of(run), state_of(load_run(folder))
    kept = {name for name in ours if not name.startswith("optimiser.")}
    assert set(theirs) == kept
    for name in kept - {"updates"}:
        assert torch.equal(ours[name], theirs[name]), name
    curves = [
        evaluate(path, num_tasks=5, references=False, out=tmp_path / out)[0]
        for path, out in ((run, "a"), (folder, "b"))
    ]
    np.testing.assert_array_equal(curves[0].returns, curves[1].returns)
    with pytest.raises(RunFolderError, match="exists; a folder to share is made new"):
        write_card(run, share=folder)


def test_the_command_prints_the_path(run, tmp_path, capsys):
    assert cli.main(["card", str(run.path), "--share", str(tmp_path / "shared")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "shared" / "README.md")


def test_an_agent_whose_weights_cannot_be_told_apart_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._agents, "steering", "tests.simple_agents:SteeringConfig")
    run = train("steering", "metarl/PointNavigation-v0", out=tmp_path / "run", progress=False)
    with pytest.raises(ConfigError, match="no method `take_weights`"):
        write_card(run, share=tmp_path / "shared")
    assert not (tmp_path / "shared").exists()
    assert write_card(run).is_file()


def test_an_evaluation_of_an_earlier_state_is_not_passed_off_as_one_of_these_weights(run):
    evaluate(run, num_tasks=10)
    options = {"seed": 3, "task_options": {"arms": 3}, "out": run.path, "resume": True}
    longer = train("rl2", BANDIT, **options, **SMALL | {"iterations": 5})
    text = write_card(longer).read_text()
    assert "The last evaluation was after 2 iterations" in text
    assert "model-index" not in text


def test_a_card_names_the_options_of_the_evaluation(run):
    evaluate(run, num_tasks=10, task_options={"pulls": 7})
    text = write_card(run).read_text()
    assert "`task.pulls=7`" in text
    assert 'pulls=7)"' in text.partition("---\n\n")[0]


SUPERVISED = {"estimator": "supervised", "rollouts_per_task": 3, "hidden_sizes": (8,)}
LEVER = EnvSpec(
    "tests/Lever-v0", entry_point="tests.bridges.test_gym_family:Lever", max_episode_steps=4
)


@pytest.mark.parametrize(
    ("agent", "task", "options"),
    [
        ("rl2", BANDIT, {"hidden_size": 8, "task_options": {"pulls": 3, "arms": 4}}),
        ("rl2", "metarl/TabularMDP-v0", {"hidden_size": 8, "memory": "attention"}),
        ("varibad", "metarl/GridNavigation-v0", {"hidden_size": 16}),
        ("dpt", BANDIT, {"hidden_size": 8}),
        ("prototypical_networks", "metarl/FewShotClassification-v0", {"hidden_size": 8}),
        ("pearl", "metarl/PointNavigation-v0", {"hidden_size": 8}),
        ("maml", "metarl/PointNavigation-v0", {"rollouts_per_task": 4, "hidden_sizes": (8,)}),
        ("platipus", "metarl/PointNavigation-v0", {"rollouts_per_task": 4, "hidden_sizes": (8,)}),
        ("maml", "metarl/Sinusoid-v0", {**SUPERVISED, "adapt_each_rollout": True}),
        ("meta_lstm", "metarl/Sinusoid-v0", {**SUPERVISED, "adapt_each_rollout": True}),
        ("steering", "metarl/PointNavigation-v0", {}),
        ("rl2", "tests/Lever-v0", {"hidden_size": 8}),
    ],
)
def test_the_code_of_a_card_runs(tmp_path, monkeypatch, agent, task, options):
    monkeypatch.setitem(registry._agents, "steering", "tests.simple_agents:SteeringConfig")
    monkeypatch.setitem(gymnasium.registry, "tests/Lever-v0", LEVER)
    small = {"num_tasks": 8, "iterations": 1, "progress": False}
    if agent == "steering":
        small = {"progress": False}
    run = train(agent, task, out=tmp_path / "my run", **small, **options)
    monkeypatch.chdir(tmp_path)
    code = write_card(run).read_text().partition("```python\n")[2].partition("```")[0]
    found = {}
    exec(code, found)  # the code that a reader of the card would copy
    config, policy = run.config.make_agent_config(), found["policy"]
    assert found["env"].unwrapped.spec.id == task
    assert code.count("adapt()") == policy.adapts_by_gradient
    if policy.adapts_by_gradient:
        assert policy._trial.phase == 1
        joined = config.rollouts_per_task if config.joins_rollouts else 1
        assert found["episode"] == 2 * joined * config.episodes
    else:
        trial = run.config.make_family().trial_episodes
        assert found["episode"] == (config.episodes or trial)


def test_the_card_of_an_agent_of_the_zoo_is_written_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = run_path("zoo:rl2-two-step") / "README.md"
    before = shipped.read_text()
    path = write_card("zoo:rl2-two-step")
    assert path == Path("runs/zoo/rl2-two-step/README.md")
    assert shipped.read_text() == before
