"""Tests of evaluating any policy: same tasks and noise as a run, amounts of experience, rows."""

import numpy as np
import pytest
import torch

import metarl
from metarl.envs.bandits.multi_armed import BernoulliBandit
from metarl.envs.navigation.point_navigation import PointNavigation
from metarl.errors import ConfigError, RunFolderError, UnknownNameError
from metarl.evaluation.agents import evaluate
from metarl.evaluation.options import EvaluationOptions
from metarl.evaluation.policies import evaluate_policy
from metarl.results.adaptation_curves import read_curves
from metarl.results.step_log import read_step_logs

BANDIT = "metarl/BernoulliBandit-v0"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "bandit"
    small = {"num_tasks": 8, "hidden_size": 8, "progress": False, "iterations": 1}
    return metarl.train("rl2", BANDIT, out=out, **small)


def always(arm):
    """Builds a policy that always pulls one arm."""

    class Always:
        def initial_memory(self, lanes, horizon):
            return None

        def act(self, percept, memory, noise):
            zeros = torch.zeros_like(percept.previous_reward)
            return metarl.PolicyOutput(zeros.long() + arm, zeros, None)

    return lambda tasks: Always()


def test_an_agent_evaluated_as_a_policy_has_the_same_curve(run):
    agent, random = evaluate(run, num_tasks=40, references=["random"])
    learner = run.make_agent(BernoulliBandit())
    run.load(learner)
    found, floor = evaluate_policy(
        lambda tasks: learner.start(len(tasks), torch.Generator()),
        BANDIT,
        agent="mine",
        num_tasks=40,
        references=["random"],
    )
    for one, two in ((agent, found), (random, floor)):
        for name in ("episode", "env_steps", "returns", "success"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert (found.agent, found.label, found.role, found.run) == ("mine", "mine", "agent", "mine")
    assert (found.family, found.split, found.seed) == (agent.family, "test", 0)
    assert (floor.agent, floor.role, floor.run) == ("random", "floor", "")


def test_its_folder_can_be_compared_and_plotted_with_a_run(run, tmp_path):
    evaluate(run, num_tasks=20)
    out = tmp_path / "new" / "arm-0"
    written = evaluate_policy(
        always(0), BANDIT, agent="arm", label="first arm", num_tasks=20, out=out
    )
    (read,) = read_curves(out / "adaptation.csv")
    np.testing.assert_array_equal(read.returns, written[0].returns)
    assert (read.run, read.label) == ("arm-0", "first arm")
    (log,) = read_step_logs(out / "trials.csv")
    assert set(log.action[:, 0]) == {0}
    comparison = metarl.compare([run, out])
    labels = [row.label for row in comparison.rows if row.role == "agent"]
    assert sorted(labels) == ["RL²", "first arm"]
    (figure,) = metarl.plot([run, out], out=tmp_path / "both.png")
    assert figure.stat().st_size > 10_000


def test_a_policy_is_measured_at_every_amount_of_experience():
    built = []

    def after(arm):
        def build(tasks):
            built.append((arm, len(tasks)))
            return always(arm)(tasks)

        return build

    stages = {0: after(0), 10: after(1), 200: after(2)}
    curve, oracle = evaluate_policy(
        stages, BANDIT, agent="ppo", episodes=2, num_tasks=300, references=["best_arm"], seed=4
    )
    assert built == [(0, 300), (1, 300), (2, 300)]
    assert curve.episode.tolist() == oracle.episode.tolist() == [1, 2, 11, 12, 201, 202]
    assert (curve.env_steps == curve.episode[:, None]).all()  # an episode is one pull
    assert oracle.returns.shape == (6, 300)
    assert abs(oracle.returns.mean() - 5 / 6) < 0.03  # the best of five uniform arms
    assert abs(curve.returns.mean() - 1 / 2) < 0.05
    # Arm 1 in the same tasks with the same noise, evaluated alone.
    one, _ = evaluate_policy(
        {10: always(1)},
        BANDIT,
        agent="ppo",
        episodes=2,
        num_tasks=300,
        references=["random"],
        seed=4,
    )
    np.testing.assert_array_equal(one.returns, curve.returns[2:4])
    assert one.episode.tolist() == [11, 12]


def test_steps_of_every_amount_of_experience_are_logged(tmp_path):
    stages = {0: always(0), 5: always(3)}
    evaluate_policy(
        stages,
        BernoulliBandit(arms=4),
        agent="ppo",
        episodes=2,
        num_tasks=3,
        references=["random"],
        out=tmp_path,
    )
    own, random = read_step_logs(tmp_path / "trials.csv")
    assert {tuple(row) for row in zip(own.phase, own.episode, own.action[:, 0], strict=True)} == {
        (0, 1, 0),
        (0, 2, 0),
        (1, 6, 3),
        (1, 7, 3),
    }
    assert set(random.episode) == {1, 2, 6, 7}


def test_experience_counts_as_episodes_of_full_length():
    family = PointNavigation(steps=7)
    policy = family.references(1)["oracle"].build
    (curve,) = evaluate_policy({0: policy, 3: policy}, family, agent="x", episodes=1, num_tasks=50)
    assert (curve.env_steps[1] == curve.env_steps[0] + 3 * 7).all()
    assert (curve.env_steps[0] < 7).any()
    assert curve.success.mean() == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"policy": {}}, ConfigError, r"got \[\]"),
        ({"policy": {-1: always(0)}}, ConfigError, r"negative.*got \[-1\]"),
        ({"policy": {0: always(0), 1: always(0)}}, ConfigError, r"the 2 episode\(s\).*\[0, 1\]"),
        ({"num_tasks": 0}, ConfigError, "num_tasks=0"),
        ({"episodes": 0}, ConfigError, "episodes=0"),
        ({"split": "dev"}, ConfigError, "split='dev'"),
        ({"device": "abacus"}, ConfigError, "device='abacus'"),
        ({"task": BernoulliBandit(), "arms": 3}, ConfigError, "BernoulliBandit that is"),
        ({"amrs": 3}, ConfigError, "Did you mean 'arms'"),
        ({"references": ["rndom"]}, UnknownNameError, "Did you mean 'random'"),
    ],
)
def test_options_out_of_range_are_refused(arguments, error, message):
    usual = {"policy": always(0), "task": BANDIT, "agent": "x", "episodes": 2, "num_tasks": 2}
    with pytest.raises(error, match=message):
        evaluate_policy(**{**usual, **arguments})


def test_the_rows_of_a_run_are_not_overwritten(run):
    with pytest.raises(RunFolderError, match="is the folder of a run"):
        evaluate_policy(always(0), BANDIT, agent="x", num_tasks=2, out=run.path)


def test_options_are_given_as_an_object_and_as_keywords_next_to_those_of_the_family():
    options = EvaluationOptions(num_tasks=3, references=["best_arm"], label="first arm", seed=2)
    arguments = {"agent": "x", "episodes": 4, "arms": 2}
    own, best = evaluate_policy(always(0), BANDIT, options=options, **arguments)
    assert (own.label, own.seed, best.agent) == ("first arm", 2, "best_arm")
    assert own.returns.shape == best.returns.shape == (4, 3)
    assert own.family == "metarl/BernoulliBandit-v0 (arms=2, pulls=10)"
    (again,) = evaluate_policy(always(0), BANDIT, num_tasks=3, seed=2, **arguments)
    np.testing.assert_array_equal(own.returns, again.returns)
