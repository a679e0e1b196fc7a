"""NaN is answered by a rollback: an earlier state, half the learning rate, equal when repeated."""

from dataclasses import replace

import pytest
import torch

from metarl.agents.memory.trainer import RecurrentAgent
from metarl.errors import ConfigError, NonFiniteError
from metarl.results.learning_curves import read_metrics
from metarl.training.checkpoint import checkpoint_paths
from metarl.training.loop import train
from metarl.training.options import RunOptions
from metarl.training.rollback import Rollback
from metarl.training.run_folder import load_run
from tests.training.test_loop import SMALL, TASK, Interrupting, assert_equal_runs

OPTIONS = {"on_nan": "rollback", "final_learning_rate": 0.003, **SMALL}


@pytest.fixture
def breaks_at(monkeypatch):
    """Makes the update after so many fail wherever the learning rate is above a limit."""

    def prepare(updates, limit):
        original = RecurrentAgent.update

        def update(agent, batch):
            if int(agent.state()["updates"]) == updates and rate(agent) > limit:
                (phase,) = batch.phases
                log_prob = phase.trajectory.log_prob * torch.nan
                broken = replace(phase, trajectory=replace(phase.trajectory, log_prob=log_prob))
                batch = replace(batch, phases=(broken,))
            return original(agent, batch)

        monkeypatch.setattr(RecurrentAgent, "update", update)

    return prepare


def rate(agent):
    return agent._ppo._optimiser.learning_rate


def rows(run, name):
    return [float(row[name]) for row in read_metrics(run.path / "metrics.csv")]


def test_training_goes_back_and_halves_the_learning_rate(tmp_path, breaks_at, caplog):
    breaks_at(13, limit=0.001)
    run = train("rl2", TASK, iterations=16, out=tmp_path / "run", **OPTIONS)
    assert rows(run, "iteration") == list(range(1, 17))
    assert rows(run, "learning_rate") == [0.003] * 10 + [0.00075] * 6
    assert rows(run, "rollbacks") == [0] * 10 + [2] * 6
    assert rows(run, "env_steps")[10] == (13 + 3 + 1) * 80  # what was thrown away counts
    assert [message.partition("Rollback ")[2] for message in caplog.messages] == [
        f"{n} of 3: training goes back to iteration 10, with the learning rate halved."
        for n in (1, 2)
    ]


def test_before_the_first_kept_state_training_starts_again(tmp_path, breaks_at):
    breaks_at(4, limit=0.002)
    run = train("rl2", TASK, iterations=5, out=tmp_path / "run", **OPTIONS)
    assert rows(run, "learning_rate") == [0.0015] * 5
    slow = {**OPTIONS, "learning_rate": 0.0015, "final_learning_rate": 0.0015}
    one, two = run, train("rl2", TASK, iterations=5, out=tmp_path / "slow", **slow)
    assert rows(one, "trial_return") == rows(two, "trial_return")


@pytest.mark.parametrize("at", [3, 12, 13, 14, 16])
def test_a_run_with_rollbacks_is_continued_exactly(tmp_path, breaks_at, monkeypatch, at):
    breaks_at(13, limit=0.001)
    whole = train("rl2", TASK, iterations=16, out=tmp_path / "whole", **OPTIONS)
    with monkeypatch.context() as patch:
        Interrupting(patch, at=at)
        with pytest.raises(KeyboardInterrupt):
            train("rl2", TASK, iterations=16, out=tmp_path / "cut", **OPTIONS)
    resumed = train("rl2", TASK, iterations=16, out=tmp_path / "cut", resume=True, **OPTIONS)
    assert_equal_runs(resumed, whole)


def test_after_the_last_rollback_training_stops(tmp_path, breaks_at, caplog):
    breaks_at(4, limit=0.0)
    with pytest.raises(NonFiniteError, match="gradient"):
        train("rl2", TASK, iterations=5, out=tmp_path / "run", max_rollbacks=2, **OPTIONS)
    assert len(caplog.messages) == 2
    run = load_run(tmp_path / "run")
    progress = run.load(run.make_agent(run.config.make_family()))
    assert (progress.iteration, progress.rollbacks) == (4, 2)


@pytest.mark.parametrize("checkpoints", [1, 2])
def test_a_rollback_keeps_as_many_checkpoints_as_the_options_say(tmp_path, checkpoints):
    options = {**OPTIONS, "checkpoints": checkpoints, "checkpoint_seconds": 1e-9}
    run = train("rl2", TASK, iterations=4, out=tmp_path / "run", **options)
    family = run.config.make_family()
    progress = run.load(run.make_agent(family))
    rollback = Rollback(run, RunOptions(checkpoints=checkpoints), lambda _: run.make_agent(family))
    rollback.go_back(NonFiniteError("nan"), progress)
    assert len(checkpoint_paths(run.path)) == checkpoints


def test_by_default_training_stops(tmp_path, breaks_at, caplog):
    breaks_at(4, limit=0.0)
    with pytest.raises(NonFiniteError, match="gradient"):
        train("rl2", TASK, iterations=5, out=tmp_path / "run", **SMALL)
    assert caplog.messages == []


def test_an_agent_without_a_learning_rate_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"halves the option learning_rate, and .* has none"):
        train("maml", TASK, out=tmp_path / "run", on_nan="rollback", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("agent", ["promp", "pearl", "varibad", "dpt"])
def test_the_learning_rate_of_every_agent_that_has_one_is_halved(tmp_path, agent, monkeypatch):
    from metarl.training import loop

    rates, original = [], torch.optim.Adam.step

    def step(adam, *arguments):
        rates.append(adam.param_groups[0]["lr"])
        return original(adam, *arguments)

    def iteration(self, progress, original=loop._Training._iteration):
        if progress.iteration == 1 and not progress.rollbacks:
            raise NonFiniteError("NaN.")
        return original(self, progress)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    monkeypatch.setattr(loop._Training, "_iteration", iteration)
    train(
        agent,
        "metarl/PointNavigation-v0" if agent in ("promp", "pearl") else TASK,
        task_options={"steps": 5} if agent in ("promp", "pearl") else {"arms": 3, "pulls": 5},
        num_tasks=4,
        rollouts_per_task=4,
        iterations=2,
        out=tmp_path / "run",
        on_nan="rollback",
        progress=False,
    )
    assert min(rates) <= max(rates) / 2


def test_options_are_checked():
    with pytest.raises(ConfigError, match=r"on_nan='ignore' of .* one of 'stop', 'rollback'"):
        RunOptions(on_nan="ignore")
    with pytest.raises(ConfigError, match="max_rollbacks=0 must be greater than zero"):
        RunOptions(max_rollbacks=0)
