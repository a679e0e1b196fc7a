import numpy as np
import pytest

import metarl
from metarl.errors import CheckpointError, ConfigError, UnknownNameError
from metarl.evaluation import evaluate
from metarl.records import Run, RunConfig, create_run
from metarl.rows import read_curves
from metarl.training import train

SMALL = {"num_tasks": 8, "hidden": 8, "progress": False, "iterations": 1}


@pytest.fixture(scope="module")
def bandit(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "bandit"
    return train("rl2", "metarl/BernoulliBandit-v0", out=out, **SMALL)


@pytest.fixture(scope="module")
def navigation(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "navigation"
    return train("rl2", "metarl/PointNavigation-v0", out=out, **SMALL)


def test_curves_of_agent_floor_and_ceiling_are_measured_and_written(bandit):
    curves = evaluate(bandit, num_tasks=20)
    assert [(curve.agent, curve.role) for curve in curves][:2] == [
        ("rl2", "agent"),
        ("random", "floor"),
    ]
    assert curves[0].run == "bandit"
    assert curves[-1].role == "ceiling"
    for curve, row in zip(curves, read_curves(bandit.path / "adaptation.csv"), strict=True):
        assert curve.returns.shape == (10, 20)
        assert curve.episode.tolist() == list(range(1, 11))
        np.testing.assert_allclose(row.returns, curve.returns)
        assert np.isnan(curve.success).all()  # a bandit is never "solved"
        assert (curve.env_steps == np.arange(1, 11)[:, None]).all()


def test_equal_seeds_repeat_and_all_agents_meet_the_same_tasks(bandit):
    one, two = evaluate(bandit, num_tasks=30), evaluate(bandit, num_tasks=30)
    other = evaluate(bandit, num_tasks=30, seed=1)
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(a.returns, b.returns)
        assert (a.returns != c.returns).any()


def test_the_best_arm_is_best_in_the_very_tasks_of_the_agent(bandit):
    # Paired: with common tasks and common noise, knowing the best arm never loses a pull.
    agent, *references = evaluate(bandit, num_tasks=200)
    best = next(curve for curve in references if curve.agent == "best_arm")
    assert (best.returns >= agent.returns).all()


def test_parts_of_an_evaluation_are_joined(bandit, monkeypatch):
    monkeypatch.setattr("metarl.evaluation.TASKS_PER_BATCH", 7)
    curves = evaluate(bandit, num_tasks=20, references=["best_arm"])
    assert curves[0].returns.shape == (10, 20)
    assert (curves[1].returns >= curves[0].returns).all()


def test_success_and_steps_of_navigation(navigation):
    curves = {curve.agent: curve for curve in evaluate(navigation, num_tasks=40)}
    assert (curves["oracle"].success == 1.0).all()
    assert (curves["oracle"].env_steps[-1] <= 3 * 6).all()
    assert curves["random"].success.mean() < 0.5
    assert (np.diff(curves["random"].env_steps, axis=0) > 0).all()


def test_more_episodes_than_in_training_can_be_lived(bandit):
    assert evaluate(bandit, num_tasks=3, episodes=15)[0].returns.shape == (15, 3)


def test_references_are_chosen_by_name(bandit):
    assert len(evaluate(bandit, num_tasks=3, references=False)) == 1
    names = [curve.agent for curve in evaluate(bandit, num_tasks=3, references=["thompson"])]
    assert names == ["rl2", "thompson"]
    with pytest.raises(UnknownNameError, match=r"has no reference 'tompson'. Did you mean 'thomp"):
        evaluate(bandit, num_tasks=3, references=["tompson"])


def test_bad_requests_are_refused(bandit, tmp_path):
    with pytest.raises(ConfigError, match="num_tasks=0 must be greater than zero"):
        evaluate(bandit, num_tasks=0)
    with pytest.raises(ConfigError, match="split='dev' must be 'train' or 'test'"):
        evaluate(bandit, split="dev")
    empty = create_run(
        tmp_path / "empty",
        RunConfig(**{**vars(bandit.config), "task_options": {"arms": 5, "pulls": 10}}),
    )
    with pytest.raises(CheckpointError, match="has not learnt yet"):
        metarl.evaluate(empty)
