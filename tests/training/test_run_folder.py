import json

import pytest
import torch
from safetensors.torch import save_file

from metarl.errors import CheckpointError, RunFolderError
from metarl.results.learning_curves import MetricsFile, read_metrics
from metarl.training.run_folder import Progress, Run, RunConfig, create_run, load_run, require_same


def config(**changes: object) -> RunConfig:
    options = {
        "agent": "rl2",
        "agent_options": {"hidden_size": 8, "num_tasks": 4},
        "task": "metarl/BernoulliBandit-v0",
        "task_options": {"arms": 3, "pulls": 2},
        "seed": 1,
    }
    return RunConfig(**options | changes)


@pytest.fixture
def run(tmp_path) -> Run:
    return create_run(tmp_path / "run", config())


def saved(run: Run) -> Run:
    run.save(run.make_agent(run.config.make_family()), Progress(iteration=3, env_steps=9))
    return run


def test_a_run_is_read_back_unchanged(run):
    assert load_run(run.path).config == run.config
    content = json.loads((run.path / "config.json").read_text())
    assert set(content["versions"]) >= {"python", "torch", "gymnasium", "metarl-suite"}
    assert "git" in content


def test_an_existing_folder_is_never_overwritten(run):
    with pytest.raises(RunFolderError, match=r"exists and would be overwritten.*--resume"):
        create_run(saved(run).path, config())


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"is not a run folder: it has no config.json"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"is not a run's config.json"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "metarl-run-99"}')
    with pytest.raises(RunFolderError, match="has format 'metarl-run-99'"):
        load_run(tmp_path)


def test_a_checkpoint_restores_the_agent(run):
    saved(run)
    family = run.config.make_family()
    first, second = run.make_agent(family), run.make_agent(family)
    for parameter in second.start(1, torch.Generator()).network.parameters():
        parameter.data.add_(1.0)
    assert run.load(second) == Progress(iteration=3, env_steps=9)
    for name, value in first.state().items():
        assert torch.equal(second.state()[name], value)


def test_a_missing_checkpoint_is_reported(run):
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        run.load(run.make_agent(run.config.make_family()))


def test_a_truncated_checkpoint_is_reported(run):
    content = saved(run).checkpoint.read_bytes()
    run.checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        run.load(run.make_agent(run.config.make_family()))


def test_a_safetensors_file_of_another_program_is_refused(run):
    save_file({"weight": torch.zeros(2)}, run.checkpoint)
    with pytest.raises(CheckpointError, match="not a checkpoint of a metarl run"):
        run.load(run.make_agent(run.config.make_family()))


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"task": "metarl/GoalBandit-v0"}, r"task = 'metarl/GoalBandit-v0' instead of"),
        ({"task_options": {"arms": 4, "pulls": 2}}, r"arms = 4 instead of 3\."),
        ({"agent_options": {"hidden_size": 8, "num_tasks": 8}}, r"num_tasks = 8 instead of 4\."),
        ({"seed": 2}, r"seed = 2 instead of 1\."),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(run, tmp_path, changes, difference):
    other = saved(create_run(tmp_path / "other", config(**changes)))
    run.checkpoint.write_bytes(other.checkpoint.read_bytes())
    with pytest.raises(CheckpointError, match=f"was written by a run with {difference}"):
        run.load(run.make_agent(run.config.make_family()))


def test_settings_that_json_cannot_hold_are_refused(tmp_path):
    with pytest.raises(RunFolderError, match="must be numbers, text, or lists"):
        create_run(tmp_path / "run", config(task_options={"arms": object()}))


def test_a_missing_option_has_its_default(run):
    # As in a run from before the option was introduced.
    saved(run)
    agent = run.make_agent(run.config.make_family())
    default = run.config.make_agent_config().clip_range
    explicit = config(agent_options={"hidden_size": 8, "num_tasks": 4, "clip_range": default})
    require_same(run, explicit)
    assert Run(path=run.path, config=explicit).load(agent).iteration == 3
    other = config(agent_options={"hidden_size": 8, "num_tasks": 4, "clip_range": 0.9})
    with pytest.raises(RunFolderError, match=f"it has clip_range = {default} instead of 0.9"):
        require_same(run, other)
    with pytest.raises(CheckpointError, match=f"clip_range = {default} instead of 0.9"):
        Run(path=run.path, config=other).load(agent)


def test_metrics_of_iterations_after_the_checkpoint_are_replaced(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path, keep=0)
    for iteration in range(1, 6):
        file.write({"iteration": iteration, "loss": 0.5})
    file.close()
    file = MetricsFile(path, keep=3)
    file.write({"iteration": 4, "loss": 0.25})
    file.close()
    rows = read_metrics(path)
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[-1]["loss"] == "0.25"


def test_options_that_the_agent_no_longer_has_are_reported(tmp_path):
    old = create_run(tmp_path / "old", config(agent_options={"mamory": "gru"}))
    with pytest.raises(RunFolderError, match=r"do not fit the agent 'rl2'.*mamory"):
        load_run(old.path).config.make_agent_config()


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"file/run cannot be written .*another path"):
        create_run(tmp_path / "file" / "run", config())
