"""Exported acting steps: they act like the policy, and what cannot be exported is refused."""

import json
import sys
from dataclasses import fields
from types import ModuleType

import numpy as np
import pytest
import torch

import metarl
from metarl.cli import main as cli
from metarl.deployment.export import METADATA, export_policy
from metarl.errors import ConfigError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.training.loop import train
from metarl.trajectory import Percept

SMALL = {"num_tasks": 8, "iterations": 2, "progress": False}
NAVIGATION = "metarl/PointNavigation-v0"
EACH_ROLLOUT = {"estimator": "supervised", "adapt_each_rollout": True, "rollouts_per_task": 3}


def load_pt2(path):
    """The step, and what the file says of it."""
    files = {METADATA: ""}
    step = torch.export.load(path, extra_files=files).module()
    return step, json.loads(files[METADATA])


def load_onnx(path):
    session = pytest.importorskip("onnxruntime").InferenceSession(path)

    def step(*inputs):
        *percept, memory = inputs
        names = [each.name for each in session.get_inputs()]
        given = dict(zip(names, (each.numpy() for each in (*percept, *memory)), strict=True))
        found = [torch.from_numpy(each) for each in session.run(None, given)]
        return found[0], found[1], tuple(found[2:])

    return step, json.loads(session.get_modelmeta().custom_metadata_map[METADATA])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("ending", "load"), [("pt2", load_pt2), ("onnx", load_onnx)])
@pytest.mark.parametrize(
    ("agent", "task", "options"),
    [
        ("rl2", "metarl/BernoulliBandit-v0", {"hidden_size": 8}),
        ("rl2", "metarl/BernoulliBandit-v0", {"hidden_size": 8, "memory": "lstm"}),
        ("rl2", NAVIGATION, {"hidden_size": 8, "memory": "lstm", "normalise_inputs": True}),
        ("rl2", NAVIGATION, {"hidden_size": 8, "memory": "none"}),
        ("varibad", "metarl/GridNavigation-v0", {"hidden_size": 16}),
        ("maml", NAVIGATION, {"hidden_sizes": (8,), "rollouts_per_task": 4}),
        ("platipus", NAVIGATION, {"hidden_sizes": (8,), "rollouts_per_task": 4}),
        ("meta_lstm", "metarl/Sinusoid-v0", {"hidden_sizes": (8,), **EACH_ROLLOUT}),
    ],
)
def test_an_exported_step_acts_like_the_policy(tmp_path, agent, task, options, ending, load):
    if ending == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason="needs the extra 'onnx'")
    run = train(agent, task, out=tmp_path / "run", **{**SMALL, **options})
    step, described = load(export_policy(run, tmp_path / f"policy.{ending}"))
    assert described["run"]["agent"] == agent
    assert list(described["inputs"]) == [field.name for field in fields(Percept)]

    family = run.config.make_family()
    trained = run.make_agent(family)
    run.load(trained)
    tasks = family.sample_tasks(3, Seeds(0).torch("tasks"))
    policy = trained.start(1, metarl.LaneNoise.of(Seeds(0), "start", 1))
    by_gradient = trained.evaluation_steps > 0
    policy = policy.for_lanes(1) if by_gradient else trained.start(3, None)
    trajectory = collect(family, tasks, policy, episodes=2, seeds=Seeds(1))
    percepts = trajectory.percepts()
    shapes = [text.partition("L")[2].strip(", ]") for text in described["memory"]]
    memory = tuple(
        torch.full((3, *map(int, filter(None, shape.split(", ")))), 7.0) for shape in shapes
    )  # not read at the start of a trial
    mine = policy.initial_memory(3, len(trajectory.obs))
    for time in range(min(12, len(trajectory.obs))):
        parts = {field.name: getattr(percepts, field.name)[time, :, 0] for field in fields(Percept)}
        dist_params, likeliest, memory = step(*parts.values(), memory)
        with torch.no_grad():
            expected, mine = policy.distribution(Percept(**parts), mine)
        torch.testing.assert_close(dist_params, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(likeliest, policy.head.mode(expected), atol=1e-5, rtol=1e-4)
        if described["action"]["kind"] == "discrete":
            probabilities = dist_params.softmax(-1), expected.softmax(-1)
            torch.testing.assert_close(*probabilities, atol=1e-5, rtol=0)
    if agent == "rl2" and options.get("memory") != "none":
        assert len(memory) == 1 + (options.get("memory") == "lstm")


def test_box_actions_are_described(tmp_path):
    run = train("rl2", NAVIGATION, out=tmp_path / "run", hidden_size=8, **SMALL)
    files = {METADATA: ""}
    torch.export.load(export_policy(run, tmp_path / "p.pt2"), extra_files=files)
    action = json.loads(files[METADATA])["action"]
    np.testing.assert_allclose(action["half_range"], [0.1, 0.1], rtol=1e-6)
    assert action["centre"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("agent", "task", "options", "reason"),
    [
        ("rl2", "metarl/BernoulliBandit-v0", {"memory": "attention"}, "grows with the steps"),
        ("rl2", "metarl/BernoulliBandit-v0", {"memory": "transformer"}, "grows with the steps"),
        ("pearl", NAVIGATION, {}, "no method `distribution`"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused(tmp_path, agent, task, options, reason):
    run = train(agent, task, out=tmp_path / "run", hidden_size=8, **{**SMALL, **options})
    with pytest.raises(ConfigError, match=reason):
        export_policy(run, tmp_path / "policy.pt2")
    assert not (tmp_path / "policy.pt2").exists()


def test_the_command_writes_the_file(tmp_path, capsys):
    run = train("rl2", "metarl/TMaze-v0", out=tmp_path / "run", hidden_size=8, **SMALL)
    out = tmp_path / "policy.pt2"
    assert cli.main(["export", str(run.path), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    torch.export.load(out)


def test_without_its_packages_onnx_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", ModuleType("onnx"))
    with pytest.raises(ConfigError, match=r"onnxscript.*pip install 'metarl-suite\[onnx\]'"):
        export_policy(tmp_path / "run", tmp_path / "policy.onnx")


def test_what_onnx_cannot_hold_is_refused(tmp_path, monkeypatch):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="needs the extra 'onnx'")

    def fails(*arguments, **options):
        raise torch.onnx.errors.OnnxExporterError("no such operation")

    monkeypatch.setattr(torch.onnx, "export", fails)
    run = train("rl2", "metarl/TMaze-v0", out=tmp_path / "run", hidden_size=8, **SMALL)
    with pytest.raises(ConfigError, match="ONNX cannot hold this agent: no such operation"):
        export_policy(run, tmp_path / "policy.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "policy"])
def test_another_ending_is_refused_so_that_no_file_of_another_kind_is_lost(tmp_path, name):
    run = train("rl2", "metarl/TMaze-v0", out=tmp_path / "run", hidden_size=8, **SMALL)
    with pytest.raises(ConfigError, match=r"must be a file with the ending \.pt2"):
        export_policy(run, run.path / name)
    run.load(run.make_agent(run.config.make_family()))  # the checkpoint is whole
