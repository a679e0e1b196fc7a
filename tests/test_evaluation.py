from dataclasses import dataclass

import numpy as np
import pytest
import torch

import metarl
from metarl.errors import CheckpointError, ConfigError, UnknownNameError
from metarl.evaluation import LOGGED_COPIES, LOGGED_TASKS, _Trials, evaluate
from metarl.records import Run, RunConfig, create_run
from metarl.rows import read_curves
from metarl.training import train
from metarl.trials import read_trials

from .worlds_of_glass import Countdown

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


def test_every_step_of_the_first_tasks_is_written_down(navigation):
    curves = evaluate(navigation, num_tasks=40, seed=3)
    logs = read_trials(navigation.path / "trials.csv")
    assert [log.agent for log in logs] == [curve.agent for curve in curves]
    for log, curve in zip(logs, curves, strict=True):
        assert log.tasks == list(range(LOGGED_TASKS))
        assert (log.label, log.role, log.seed) == (curve.label, curve.role, 3)
        for task in log.tasks:
            for point, episode in enumerate(curve.episode):
                life = log.where((log.task == task) & (log.episode == episode))
                np.testing.assert_allclose(life.reward.sum(), curve.returns[point, task], rtol=1e-5)
                assert life.step.tolist() == list(range(1, len(life.step) + 1))
                assert life.success.max() == curve.success[point, task]
                # Where a step led is where the next one began; an episode opens at the start.
                np.testing.assert_array_equal(life.next_observation[:-1], life.observation[1:])
                assert (life.observation[0] == 0).all()
            ends = log.where((log.task == task) & (log.episode == curve.episode[-1])).task
            lived = (log.task == task).sum()
            assert lived == curve.env_steps[-1, task]
            assert len(ends) == lived - curve.env_steps[-2, task]
    goals = logs[0].parameter
    moved = logs[0].next_observation - goals
    np.testing.assert_allclose(-np.linalg.norm(moved, axis=1), logs[0].reward, atol=1e-5)


def test_pulls_are_written_down_with_what_the_task_is(bandit):
    evaluate(bandit, num_tasks=3)
    agent, *_, best = read_trials(bandit.path / "trials.csv")
    assert agent.tasks == [0, 1, 2]
    assert agent.num_actions == 5
    assert len(agent.reward) == 3 * 10
    assert np.isnan(agent.success).all()
    assert (best.action[:, 0] == best.parameter.argmax(1)).all()
    np.testing.assert_array_equal(agent.parameter, best.parameter)


def test_the_same_seed_writes_the_same_trials(bandit):
    files = []
    for seed in (0, 0, 1):
        evaluate(bandit, num_tasks=3, seed=seed)
        files.append((bandit.path / "trials.csv").read_bytes())
    assert files[0] == files[1] != files[2]


class Adapting:
    """Two adaptation steps, each after three copies of two episodes; pulls arm k in phase k."""

    adaptation_steps = 2

    def start(self, num_tasks):
        return Always(0)

    def adapt(self, policy, experience):
        return Always(policy.arm + 1)


class Always:
    def __init__(self, arm):
        self.arm = arm

    def initial_memory(self, num_tasks, copies):
        return None

    def act(self, percept, memory, generator):
        zeros = torch.zeros_like(percept.previous_reward)
        return metarl.Decision(zeros.long() + self.arm, zeros, None)


def test_phases_and_copies_are_told_apart():
    trials = _Trials(Countdown(), num_tasks=8, episodes=2, seed=0, split="test", device="cpu")
    log = trials.measured(trials.of_agent(Adapting(), copies=4)).log
    assert set(log["copy"]) == set(range(LOGGED_COPIES))
    # Two episodes of four copies lie between the phases.
    points = {(p, e) for p, e in zip(log["phase"], log["episode"], strict=True)}
    assert points == {(0, 1), (0, 2), (1, 9), (1, 10), (2, 17), (2, 18)}
    np.testing.assert_array_equal(log["action"][:, 0], log["phase"])
    # The reward of this world names the task, the step and the action.
    parameter = log["parameter"][:, 0]
    np.testing.assert_array_equal(
        log["reward"], 100 * parameter + 10 * log["step"] + log["action"][:, 0]
    )
    np.testing.assert_array_equal(log["observation"][:, 1], log["step"] - 1)
    assert log["num_actions"] == 3
    assert log["expected_reward"].shape == (len(parameter), 0)


@dataclass(frozen=True, kw_only=True)
class Paying(Countdown):
    """Says what its actions are worth."""

    def expected_rewards(self, task):
        return torch.stack([task, 2 * task, 3 * task], 1).float()


def test_what_actions_are_worth_is_written_where_the_family_says_it():
    trials = _Trials(Paying(), num_tasks=8, episodes=2, seed=0, split="test", device="cpu")
    log = trials.measured(trials.of_agent(Adapting(), copies=1)).log
    expected = log["parameter"] * np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(log["expected_reward"], expected)


def test_vectors_too_wide_for_a_picture_are_left_out(monkeypatch):
    monkeypatch.setattr("metarl.evaluation.MOST_COMPONENTS", 1)
    trials = _Trials(Countdown(), num_tasks=8, episodes=2, seed=0, split="test", device="cpu")
    log = trials.measured(trials.of_agent(Adapting(), copies=1)).log
    assert log["observation"].shape == (len(log["task"]), 0)
    assert log["action"].shape == (len(log["task"]), 1)


def test_few_references_are_lived_unless_all_are_asked_for(bandit):
    few = {curve.agent for curve in evaluate(bandit, num_tasks=3)}
    every = {curve.agent for curve in evaluate(bandit, num_tasks=3, references=["all"])}
    assert few == {"rl2", "random", "thompson", "bayes_optimal", "best_arm"}
    assert every - few == {
        "greedy",
        "epsilon_greedy",
        "ucb1",
        "optimistic_thompson",
        "gittins",
    }
