"""Callbacks of a training, and evaluation in its course."""

import csv

import numpy as np
import pytest

import metarl
from metarl.cli import main as cli
from metarl.errors import ConfigError
from metarl.evaluation.periodic import PeriodicEvaluation
from metarl.training.callbacks import Callback
from metarl.training.loop import train
from metarl.training.run_folder import load_run
from metarl.training.seeds import train_seeds
from tests.training.test_loop import assert_equal_runs

BANDIT, NAVIGATION = "metarl/BernoulliBandit-v0", "metarl/PointNavigation-v0"
SMALL = {"num_tasks": 8, "hidden_size": 8, "progress": False}
WRONG = [{"split": "tset"}, {"every": 1.5}, {"every": None}, {"seed": "a"}]


class Recorder(Callback):
    """Records its calls; stops after an iteration or an evaluation."""

    def __init__(self, stop_after=None, stop_at_evaluation=None):
        self.calls, self.stop_after, self.stop_at = [], stop_after, stop_at_evaluation

    def on_start(self, training):
        self.calls.append(("start", training.progress.iteration))

    def on_iteration(self, training, row):
        assert row["iteration"] == training.progress.iteration
        self.calls.append(("iteration", training.progress.iteration))
        return training.progress.iteration == self.stop_after

    def on_evaluation(self, training, rows):
        self.calls.append(("evaluation", training.progress.iteration, len(rows)))
        return training.progress.iteration == self.stop_at

    def on_end(self, training):
        self.calls.append(("end", training.progress.iteration))


def curve(folder):
    with (folder / "evaluation_curve.csv").open() as file:
        return list(csv.DictReader(file))


def test_callbacks_are_called_in_order(tmp_path):
    one, two = Recorder(), Recorder()
    train("rl2", BANDIT, iterations=2, out=tmp_path / "run", callbacks=[one, two], **SMALL)
    assert one.calls == [("start", 0), ("iteration", 1), ("iteration", 2), ("end", 2)]
    assert two.calls == one.calls


def test_a_callback_stops_a_training_that_can_go_on(tmp_path):
    whole = train("rl2", BANDIT, iterations=4, out=tmp_path / "whole", **SMALL)
    late, stopping = Recorder(), Recorder(stop_after=2)
    options = {"iterations": 4, "out": tmp_path / "run", **SMALL}
    run = train("rl2", BANDIT, callbacks=[stopping, late], **options)
    assert late.calls[-2:] == [("iteration", 2), ("end", 2)]
    assert run.load(run.make_agent(run.config.make_family())).iteration == 2
    after = Recorder()
    run = train("rl2", BANDIT, callbacks=[after], resume=True, **options)
    assert after.calls == [("start", 2), ("iteration", 3), ("iteration", 4), ("end", 4)]
    assert_equal_runs(whole, run)


def test_an_error_of_a_callback_keeps_the_iteration(tmp_path):
    class Failing(Callback):
        def on_iteration(self, training, row):
            if training.progress.iteration == 2:
                raise ArithmeticError("mine")

    recorder = Recorder()
    with pytest.raises(ArithmeticError, match="mine"):
        train(
            "rl2",
            BANDIT,
            iterations=4,
            out=tmp_path / "run",
            callbacks=[recorder, Failing()],
            **SMALL,
        )
    assert recorder.calls[-1] == ("end", 2)
    run = load_run(tmp_path / "run")
    assert run.load(run.make_agent(run.config.make_family())).iteration == 2


@pytest.mark.parametrize(
    ("agent", "task", "options"),
    [
        ("rl2", BANDIT, {"hidden_size": 8}),
        ("maml", NAVIGATION, {"hidden_sizes": (8,), "rollouts_per_task": 4}),
        ("pearl", NAVIGATION, {"hidden_size": 8}),
    ],
)
def test_evaluations_do_not_change_the_training(tmp_path, agent, task, options):
    options = {"num_tasks": 8, "progress": False, "iterations": 3, **options}
    plain = train(agent, task, out=tmp_path / "plain", **options)
    recorder = Recorder()
    run = train(
        agent,
        task,
        out=tmp_path / "run",
        callbacks=[PeriodicEvaluation(2, num_tasks=5), recorder],
        **options,
    )
    assert_equal_runs(plain, run)
    rows = curve(run.path)
    assert list(dict.fromkeys(row["iteration"] for row in rows)) == ["0", "2", "3"]
    assert [call[:2] for call in recorder.calls if call[0] == "evaluation"] == [
        ("evaluation", number) for number in (0, 2, 3)
    ]


def test_the_last_evaluation_equals_that_of_the_finished_run(tmp_path):
    evaluation = PeriodicEvaluation(1, num_tasks=20, seed=3)
    run = train(
        "rl2", NAVIGATION, iterations=2, out=tmp_path / "run", callbacks=[evaluation], **SMALL
    )
    (expected,) = metarl.evaluate(run, num_tasks=20, seed=3, references=False)
    last = [row for row in curve(run.path) if row["iteration"] == "2"]
    assert [int(row["episode"]) for row in last] == expected.episode.tolist()
    returns, success = ([float(row[name]) for row in last] for name in ("return", "success"))
    np.testing.assert_allclose(returns, expected.returns.mean(1), rtol=1e-5)
    np.testing.assert_allclose(success, expected.success.mean(1), rtol=1e-5)
    error = expected.returns.std(1, ddof=1) / 20**0.5
    np.testing.assert_allclose([float(row["standard_error"]) for row in last], error, rtol=1e-5)


def test_rows_after_the_checkpoint_are_replaced_when_a_run_goes_on(tmp_path):
    options = {"out": tmp_path / "run", **SMALL}
    evaluation = PeriodicEvaluation(1, num_tasks=3)
    whole = train(
        "rl2",
        BANDIT,
        iterations=4,
        callbacks=[evaluation],
        **{**options, "out": tmp_path / "whole"},
    )
    train("rl2", BANDIT, iterations=4, callbacks=[evaluation, Recorder(2)], **options)
    file = tmp_path / "run" / "evaluation_curve.csv"
    file.write_text(file.read_text() + "3,1,1.0,1,9.9,0.1,nan\n")
    run = train("rl2", BANDIT, iterations=4, callbacks=[evaluation], resume=True, **options)
    rows = [curve(one.path) for one in (whole, run)]
    for row in rows[0] + rows[1]:
        del row["seconds"]
    assert rows[0] == rows[1]


def test_an_evaluation_can_stop_the_training(tmp_path):
    run = train(
        "rl2",
        BANDIT,
        iterations=9,
        out=tmp_path / "run",
        callbacks=[PeriodicEvaluation(2, num_tasks=3), Recorder(stop_at_evaluation=4)],
        **SMALL,
    )
    assert curve(run.path)[-1]["iteration"] == "4"
    assert run.load(run.make_agent(run.config.make_family())).iteration == 4


def test_several_seeds_have_a_copy_each(tmp_path):
    runs = train_seeds(
        "rl2",
        BANDIT,
        seeds=[0, 1],
        iterations=1,
        out=tmp_path / "runs",
        callbacks=[PeriodicEvaluation(1, num_tasks=3)],
        **SMALL,
    )
    assert [len(curve(run.path)) for run in runs] == [20, 20]  # ten pulls, before and after


def test_the_command_evaluates_in_the_course_of_training(tmp_path):
    small = ["--num-tasks", "8", "--hidden-size", "8", "--iterations", "2", "--no-progress"]
    out = str(tmp_path / "run")
    assert cli.main(["train", "rl2", BANDIT, "--evaluate-every", "1", "--out", out, *small]) == 0
    assert {row["iteration"] for row in curve(tmp_path / "run")} == {"0", "1", "2"}


def test_the_command_names_its_option(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert cli.main(["train", "rl2", BANDIT, "--evaluate-every", "0", "--out", out]) == 2
    assert "metarl: evaluate_every=0 must be greater than zero" in capsys.readouterr().err


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="every=0 must be greater than zero"):
        PeriodicEvaluation(0)
    with pytest.raises(ConfigError, match="num_tasks=-1 must be greater than zero"):
        PeriodicEvaluation(1, num_tasks=-1)


@pytest.mark.parametrize("callbacks", [[print], [Callback], None, 3])
def test_what_is_no_callback_is_refused_before_a_folder_is_made(tmp_path, callbacks):
    with pytest.raises(ConfigError, match=r"instances of classes derived from metarl\.Callback"):
        train("rl2", BANDIT, out=tmp_path / "run", callbacks=callbacks, **SMALL)
    assert not (tmp_path / "run").exists()


def test_a_callback_that_fails_to_start_is_not_ended(tmp_path):
    class Failing(Callback):
        def on_start(self, training):
            raise RuntimeError("no")

        def on_end(self, training):
            raise AssertionError("it was not started")

    with pytest.raises(RuntimeError, match="no"):
        train("rl2", BANDIT, out=tmp_path / "run", callbacks=[Failing()], **SMALL)


def test_two_periodic_evaluations_are_refused(tmp_path):
    twice = [PeriodicEvaluation(every=1, num_tasks=4) for _ in range(2)]
    with pytest.raises(ConfigError, match="one PeriodicEvaluation"):
        train("rl2", BANDIT, out=tmp_path / "run", callbacks=twice, **SMALL)


@pytest.mark.parametrize(
    "wrong", [{"split": "tset"}, {"every": 1.5}, {"every": None}, {"seed": "a"}]
)
def test_options_of_a_periodic_evaluation_have_types(wrong):
    with pytest.raises(ConfigError):
        PeriodicEvaluation(**{"every": 2} | wrong)
