import os
import signal
import threading
from dataclasses import dataclass, replace
from typing import ClassVar

import gymnasium
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import metarl
from metarl.agent import MetaBatch
from metarl.agents.memory.trainer import RecurrentAgent
from metarl.errors import ConfigError, NonFiniteError, RunFolderError, UnknownNameError
from metarl.results.learning_curves import read_metrics
from metarl.training.loop import train
from metarl.training.options import RunOptions
from metarl.training.process import torch_threads
from metarl.training.run_folder import Progress, Run, load_run
from tests.simple_families import Countdown

TASK = "metarl/BernoulliBandit-v0"
SMALL = {"num_tasks": 8, "hidden_size": 8, "progress": False}


def state_of(run: Run) -> dict[str, torch.Tensor]:
    agent = run.make_agent(run.config.make_family())
    run.load(agent)
    return agent.state()


def assert_equal_runs(one: Run, two: Run) -> None:
    states = state_of(one), state_of(two)
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name
    timed = {"seconds", "steps_per_second", "rollout_steps_per_second"}
    rows = [read_metrics(run.path / "metrics.csv") for run in (one, two)]
    assert len(rows[0]) == len(rows[1])
    for first, second in zip(*rows, strict=True):
        assert {k: v for k, v in first.items() if k not in timed} == {
            k: v for k, v in second.items() if k not in timed
        }


def test_a_run_leaves_settings_metrics_events_and_a_checkpoint(tmp_path):
    run = train("rl2", TASK, iterations=3, out=tmp_path / "run", seed=5, **SMALL)
    rows = read_metrics(run.path / "metrics.csv")
    assert [row["iteration"] for row in rows] == ["1", "2", "3"]
    assert [row["env_steps"] for row in rows] == ["80", "160", "240"]
    assert load_run(run.path).config.seed == 5
    assert run.config.agent_options["num_tasks"] == 8
    events = EventAccumulator(str(run.path))
    events.Reload()
    returns = events.Scalars("rollout/last_episode_return")
    assert [event.step for event in returns] == [80, 160, 240]  # environment steps
    tags = set(events.Tags()["scalars"])
    assert {"loss/value_loss", "time/seconds", "time/iteration", "train/entropy"} <= tags
    assert "env_steps" not in {tag.partition("/")[2] for tag in tags}
    (table,) = events.Tensors("settings/text_summary")
    assert b"| num_tasks | 8 |" in table.tensor_proto.string_val[0]
    data = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
    assert hparams["num_tasks"].number_value == 8
    assert hparams["task.pulls"].number_value == 10
    assert hparams["agent"].string_value == "rl2"


def test_a_resumed_run_has_each_step_once_in_tensorboard(tmp_path, monkeypatch):
    options = {"iterations": 4, "out": tmp_path / "run", **SMALL}
    with monkeypatch.context() as patch:
        Interrupting(patch, at=2)
        with pytest.raises(KeyboardInterrupt):
            train("rl2", TASK, **options)
    run = train("rl2", TASK, resume=True, **options)
    events = EventAccumulator(str(run.path))
    events.Reload()
    steps = [event.step for event in events.Scalars("rollout/trial_return")]
    assert steps == [80, 160, 240, 320]


def test_a_family_object_is_recorded_by_its_id_and_options(tmp_path):
    family = metarl.make_family(TASK, arms=3, pulls=4)
    run = train("rl2", family, iterations=1, out=tmp_path / "run", **SMALL)
    assert run.config.task == TASK
    assert run.config.make_family() == family


def test_an_unregistered_family_cannot_be_recorded(tmp_path):
    with pytest.raises(UnknownNameError, match=r"is not registered.*register_family"):
        train("rl2", Countdown(), out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path):
    runs = [
        train("rl2", TASK, iterations=3, seed=seed, out=tmp_path / name, **SMALL)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert_equal_runs(runs[0], runs[1])
    with pytest.raises(AssertionError):
        assert_equal_runs(runs[0], runs[2])


class Interrupting:
    """Sends a signal in the middle of the n-th update of a recurrent agent."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, at: int, number: int = signal.SIGINT
    ) -> None:
        original, count = RecurrentAgent.update, [0]

        def update(agent: RecurrentAgent, batch: MetaBatch) -> object:
            count[0] += 1
            if count[0] == at:
                os.kill(os.getpid(), number)
            return original(agent, batch)

        monkeypatch.setattr(RecurrentAgent, "update", update)


def test_a_run_resumed_after_ctrl_c_is_bit_equal_to_an_uninterrupted_run(tmp_path, monkeypatch):
    whole = train("rl2", TASK, iterations=6, out=tmp_path / "whole", **SMALL)
    with monkeypatch.context() as patch:
        Interrupting(patch, at=3)
        with pytest.raises(KeyboardInterrupt):
            train("rl2", TASK, iterations=6, out=tmp_path / "cut", **SMALL)
    cut = load_run(tmp_path / "cut")
    # The third update was completed.
    assert cut.load(cut.make_agent(cut.config.make_family())).iteration == 3
    assert len(read_metrics(cut.path / "metrics.csv")) == 3
    resumed = train("rl2", TASK, iterations=6, out=tmp_path / "cut", resume=True, **SMALL)
    assert_equal_runs(whole, resumed)


def test_two_processes_cannot_train_in_one_folder_at_a_time(tmp_path):
    run = train("rl2", TASK, iterations=1, out=tmp_path / "run", **SMALL)
    again = {"iterations": 1, "out": run.path, "resume": True, **SMALL}
    with run.locked(), pytest.raises(RunFolderError, match=r"^Another process is training"):
        train("rl2", TASK, **again)
    assert_equal_runs(train("rl2", TASK, **again), run)  # unlocked again


def test_a_run_interrupted_within_an_update_resumes_from_the_last_checkpoint(tmp_path, monkeypatch):
    whole = train("rl2", TASK, iterations=5, out=tmp_path / "whole", **SMALL)
    original, count = RecurrentAgent.update, [0]

    def update(agent, batch):
        count[0] += 1
        result = original(agent, batch)
        if count[0] == 4:  # the agent has learned, but the loop has not recorded it
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(RecurrentAgent, "update", update)
        with pytest.raises(KeyboardInterrupt):
            train("rl2", TASK, iterations=5, out=tmp_path / "cut", checkpoint_seconds=1e-9, **SMALL)
    cut = load_run(tmp_path / "cut")
    assert cut.load(cut.make_agent(cut.config.make_family())).iteration == 3
    resumed = train("rl2", TASK, iterations=5, out=tmp_path / "cut", resume=True, **SMALL)
    assert_equal_runs(whole, resumed)


@dataclass(frozen=True, kw_only=True)
class TurningNaN(Countdown):
    """Countdown whose rewards turn NaN in the tasks of the third iteration."""

    drawn: ClassVar[list[int]] = []

    def sample_tasks(self, num_tasks, generator, split="train"):
        self.drawn.append(num_tasks)
        return super().sample_tasks(num_tasks, generator, split)

    def step(self, task, state, action, generator):
        state, reward, terminated = super().step(task, state, action, generator)
        return state, reward * (torch.nan if len(self.drawn) == 3 else 1.0), terminated


def test_an_env_that_returns_nan_loses_no_completed_iteration(tmp_path):
    metarl.register_family("glass/TurningNaN-v0", TurningNaN)
    try:
        with pytest.raises(NonFiniteError, match="TurningNaN gave a non-finite reward"):
            train("rl2", "glass/TurningNaN-v0", iterations=9, out=tmp_path / "run", **SMALL)
        run = load_run(tmp_path / "run")
        assert run.load(run.make_agent(run.config.make_family())).iteration == 2
    finally:
        del gymnasium.registry["glass/TurningNaN-v0"]


def test_a_failed_update_loses_no_completed_iteration(tmp_path, monkeypatch):
    original, count = RecurrentAgent.update, [0]

    def update(agent, batch):
        count[0] += 1
        if count[0] == 3:
            (phase,) = batch.phases
            log_prob = phase.trajectory.log_prob * torch.nan
            broken = replace(phase, trajectory=replace(phase.trajectory, log_prob=log_prob))
            batch = replace(batch, phases=(broken,))
        return original(agent, batch)

    whole = train("rl2", TASK, iterations=5, out=tmp_path / "whole", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(RecurrentAgent, "update", update)
        with pytest.raises(NonFiniteError, match="gradient"):
            train("rl2", TASK, iterations=5, out=tmp_path / "cut", **SMALL)
    cut = load_run(tmp_path / "cut")
    assert cut.load(cut.make_agent(cut.config.make_family())).iteration == 2
    assert_equal_runs(
        whole, train("rl2", TASK, iterations=5, out=tmp_path / "cut", resume=True, **SMALL)
    )


def test_the_handler_of_ctrl_c_is_restored_after_training(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    train("rl2", TASK, iterations=1, out=tmp_path / "run", **SMALL)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("options", "threads"), [({}, 1), ({"threads": 2}, 2)])
def test_training_uses_one_thread_unless_told_otherwise(tmp_path, monkeypatch, options, threads):
    original, found = RecurrentAgent.update, []

    def update(agent, batch):
        found.append(torch.get_num_threads())
        return original(agent, batch)

    monkeypatch.setattr(RecurrentAgent, "update", update)
    with torch_threads(3):
        train("rl2", TASK, iterations=1, out=tmp_path / "run", **SMALL, **options)
        assert torch.get_num_threads() == 3
    assert found == [threads]


def test_training_works_in_a_thread(tmp_path):
    runs = []
    thread = threading.Thread(
        target=lambda: runs.append(train("rl2", TASK, iterations=1, out=tmp_path / "run", **SMALL))
    )
    thread.start()
    thread.join()
    assert runs[0].checkpoint.exists()


def test_a_run_cannot_be_resumed_with_other_settings(tmp_path):
    train("rl2", TASK, iterations=1, out=tmp_path / "run", **SMALL)
    with pytest.raises(
        RunFolderError,
        match=r"cannot be resumed with other settings: it has seed = 0 instead of 9\.",
    ):
        train("rl2", TASK, iterations=1, out=tmp_path / "run", seed=9, resume=True, **SMALL)


def test_options_that_do_not_fit_leave_no_folder(tmp_path):
    with pytest.raises(
        ConfigError, match=r"rl2 has no option 'num_task'. Did you mean 'num_tasks'"
    ):
        train("rl2", TASK, num_task=3, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="does not divide"):
        train("rl2", TASK, num_tasks=3, out=tmp_path / "run")
    with pytest.raises(UnknownNameError, match=r"No agent is called 'rl3'. Did you mean 'rl2'"):
        train("rl3", TASK, out=tmp_path / "run")
    with pytest.raises(UnknownNameError, match="Did you mean 'metarl/BernoulliBandit-v0'"):
        train("rl2", "metarl/BernouliBandit-v0", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="device='abacus' cannot be used here"):
        train("rl2", TASK, device="abacus", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="options arms and a BernoulliBandit that is already"):
        train("rl2", metarl.make_family(TASK), task_options={"arms": 2}, out=tmp_path / "run")
    short = {"memory": "transformer", "memory_options": {"context": 9}}
    with pytest.raises(ConfigError, match="holds 9 steps, but a trial has 10"):
        train("rl2", TASK, **short, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="holds 9 steps, but a trial has 12"):
        train("rl2", TASK, **short, episodes=12, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="threads=0 must be greater than zero"):
        RunOptions(threads=0)
    assert not (tmp_path / "run").exists()


def test_progress_counts_environment_steps(tmp_path):
    run = train("rl2", "metarl/PointNavigation-v0", iterations=1, out=f"{tmp_path}/run", **SMALL)
    progress = run.load(run.make_agent(run.config.make_family()))
    assert isinstance(progress, Progress)
    assert 0 < progress.env_steps <= 8 * 300
