import numpy as np
import pytest

import metarl
from metarl import registry
from metarl.envs.bandits.multi_armed import BernoulliBandit
from metarl.errors import CheckpointError, ConfigError, UnknownNameError
from metarl.evaluation.agents import evaluate, select_references
from metarl.evaluation.options import EvaluationOptions
from metarl.evaluation.protocol import LOGGED_TASKS, Schedule
from metarl.results.adaptation_curves import read_curves
from metarl.results.step_log import read_step_logs
from metarl.training.loop import train
from metarl.training.run_folder import Run, RunConfig, create_run
from tests.simple_agents import Steering

SMALL = {"num_tasks": 8, "hidden_size": 8, "progress": False, "iterations": 1}


@pytest.fixture(scope="module")
def bandit(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "bandit"
    return train("rl2", "metarl/BernoulliBandit-v0", out=out, **SMALL)


@pytest.fixture(scope="module")
def navigation(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "navigation"
    return train("rl2", "metarl/PointNavigation-v0", out=out, **SMALL)


@pytest.fixture(scope="module")
def steering(tmp_path_factory):
    """A run whose agent takes one adaptation step in training and two in evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._agents, "steering", "tests.simple_agents:SteeringConfig")
        out = tmp_path_factory.mktemp("runs") / "steering"
        yield train("steering", "metarl/PointNavigation-v0", out=out, progress=False)


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


def test_equal_seeds_give_equal_curves(bandit):
    one, two = evaluate(bandit, num_tasks=30), evaluate(bandit, num_tasks=30)
    other = evaluate(bandit, num_tasks=30, seed=1)
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(a.returns, b.returns)
        assert (a.returns != c.returns).any()


def test_the_best_arm_is_best_in_each_task_of_the_agent(bandit):
    # Paired: with common tasks and common noise, knowing the best arm never loses a pull.
    agent, *references = evaluate(bandit, num_tasks=200)
    best = next(curve for curve in references if curve.agent == "best_arm")
    assert (best.returns >= agent.returns).all()


def test_batches_of_an_evaluation_are_joined(bandit, monkeypatch):
    monkeypatch.setattr("metarl.evaluation.protocol.TASKS_PER_BATCH", 7)
    curves = evaluate(bandit, num_tasks=20, references=["best_arm"])
    assert curves[0].returns.shape == (10, 20)
    assert (curves[1].returns >= curves[0].returns).all()


def test_success_and_steps_of_navigation(navigation):
    curves = {curve.agent: curve for curve in evaluate(navigation, num_tasks=40)}
    assert (curves["oracle"].success == 1.0).all()
    assert (curves["oracle"].env_steps[-1] <= 3 * 6).all()
    assert curves["random"].success.mean() < 0.5
    assert (np.diff(curves["random"].env_steps, axis=0) > 0).all()


def test_more_episodes_than_in_training_can_be_evaluated(bandit):
    assert evaluate(bandit, num_tasks=3, episodes=15)[0].returns.shape == (15, 3)


def test_options_are_given_as_an_object_as_keywords_or_both(bandit):
    options = EvaluationOptions(num_tasks=3, seed=4, references=["random"], label="mine")
    one = evaluate(bandit, options=options)
    two = evaluate(bandit, num_tasks=3, seed=4, references=["random"], label="mine")
    assert [(c.agent, c.label) for c in one] == [("rl2", "mine"), ("random", "random")]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.returns, b.returns)
    (changed,) = evaluate(bandit, options=options, references=False, num_tasks=5)
    assert (changed.returns.shape, changed.seed, changed.label) == ((10, 5), 4, "mine")
    with pytest.raises(ConfigError, match=r"no option 'num_task'\. Did you mean 'num_tasks'"):
        evaluate(bandit, num_task=3)


def test_references_are_chosen_by_name(bandit):
    assert len(evaluate(bandit, num_tasks=3, references=False)) == 1
    assert len(evaluate(bandit, num_tasks=3, references=["none"])) == 1
    names = [curve.agent for curve in evaluate(bandit, num_tasks=3, references=["thompson"])]
    assert names == ["rl2", "thompson"]
    with pytest.raises(UnknownNameError, match=r"has no reference 'tompson'. Did you mean 'thomp"):
        evaluate(bandit, num_tasks=3, references=["tompson"])


def test_options_out_of_range_are_refused(bandit, tmp_path):
    with pytest.raises(ConfigError, match="num_tasks=0 must be greater than zero"):
        evaluate(bandit, num_tasks=0)
    with pytest.raises(ConfigError, match=r"split='dev' of .* must be one of 'train'"):
        evaluate(bandit, split="dev")
    empty = create_run(
        tmp_path / "empty",
        RunConfig(**{**vars(bandit.config), "task_options": {"arms": 5, "pulls": 10}}),
    )
    with pytest.raises(CheckpointError, match="is not trained yet"):
        metarl.evaluate(empty)


def test_every_step_of_the_first_tasks_is_logged(navigation):
    curves = evaluate(navigation, num_tasks=40, seed=3)
    logs = read_step_logs(navigation.path / "trials.csv")
    assert [log.agent for log in logs] == [curve.agent for curve in curves]
    for log, curve in zip(logs, curves, strict=True):
        assert log.tasks == list(range(LOGGED_TASKS))
        assert (log.label, log.role, log.seed) == (curve.label, curve.role, 3)
        for task in log.tasks:
            for point, episode in enumerate(curve.episode):
                steps = log.where((log.task == task) & (log.episode == episode))
                expected = curve.returns[point, task]
                np.testing.assert_allclose(steps.reward.sum(), expected, rtol=1e-5)
                assert steps.step.tolist() == list(range(1, len(steps.step) + 1))
                assert steps.success.max() == curve.success[point, task]
                # Each step starts where the one before ended; an episode starts at the origin.
                np.testing.assert_array_equal(steps.next_observation[:-1], steps.observation[1:])
                assert (steps.observation[0] == 0).all()
            last = log.where((log.task == task) & (log.episode == curve.episode[-1])).task
            steps = (log.task == task).sum()
            assert steps == curve.env_steps[-1, task]
            assert len(last) == steps - curve.env_steps[-2, task]
    distance = np.linalg.norm(logs[0].next_observation - logs[0].parameter, axis=1)
    np.testing.assert_allclose(-distance, logs[0].reward, atol=1e-5)


def test_pulls_are_logged_with_the_parameters_of_the_task(bandit):
    evaluate(bandit, num_tasks=3)
    agent, *_, best = read_step_logs(bandit.path / "trials.csv")
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


def test_by_default_a_few_of_the_references_are_evaluated(bandit):
    default = {curve.agent for curve in evaluate(bandit, num_tasks=3)}
    every = {curve.agent for curve in evaluate(bandit, num_tasks=3, references=["all"])}
    assert default == {"rl2", "random", "thompson", "bayes_optimal", "best_arm"}
    assert every - default == {
        "greedy",
        "epsilon_greedy",
        "ucb1",
        "optimistic_thompson",
        "gittins",
    }


def test_references_are_measured_at_every_episode_up_to_the_last_of_the_agent(steering):
    curves = evaluate(steering, num_tasks=50)
    assert [curve.agent for curve in curves] == ["steering", "random", "standing_still", "oracle"]
    assert curves[0].episode.tolist() == [1, 5, 9]  # four copies; two steps, one in training
    for curve in curves[1:]:
        assert curve.episode.tolist() == list(range(1, 10))
        assert curve.returns.shape == (9, 50)
    first, *_, last = curves[0].returns.mean(1)
    assert last > first + 15
    assert abs(curves[1].returns[0].mean() - curves[1].returns[-1].mean()) < 5
    for log in read_step_logs(steering.path / "trials.csv"):
        assert set(log.episode) == {1, 5, 9}


def test_options_of_the_agent_may_differ_from_its_training(steering, bandit):
    before = (steering.path / "config.json").read_bytes()
    options = {"rollouts_per_task": 10, "evaluation_steps": 3, "rate": 1e-9}
    agent, *_, oracle = evaluate(steering, num_tasks=50, agent_options=options)
    assert agent.episode.tolist() == [1, 11, 21, 31]
    assert oracle.episode.tolist() == list(range(1, 32))
    assert agent.returns[-1].mean() < agent.returns[0].mean() + 8  # with a rate of almost zero
    assert agent.label == "steering at 1.0 (rate=1e-09)"  # not the agent that was trained
    assert (steering.path / "config.json").read_bytes() == before
    (agent,) = evaluate(
        bandit, num_tasks=9, agent_options={"rollouts_per_task": 5}, references=False
    )
    assert agent.episode.tolist() == list(range(1, 11))
    assert set((agent.returns % 1 * 5).round(9).flat) > {1.0, 2.0}  # the mean of five copies


def test_options_of_the_family_may_differ_from_the_training(bandit):
    before = (bandit.path / "config.json").read_bytes()
    curves = evaluate(bandit, num_tasks=9, task_options={"pulls": 13})
    assert all(curve.returns.shape == (13, 9) for curve in curves)
    assert "pulls=13" in curves[0].family
    assert (bandit.path / "config.json").read_bytes() == before
    (trained,) = evaluate(bandit, num_tasks=9, references=False)
    assert "pulls=10" in trained.family


def test_the_module_of_the_family_may_register_the_agent(steering, monkeypatch):
    config, make_family = registry._agents["steering"], RunConfig.make_family

    def import_module_and_make(run_config):
        registry._agents["steering"] = config
        return make_family(run_config)

    monkeypatch.delitem(registry._agents, "steering")
    monkeypatch.setattr(RunConfig, "make_family", import_module_and_make)
    agent, *_ = evaluate(steering.path, num_tasks=4, references=False)
    assert agent.agent == "steering"


def test_options_that_do_not_fit_the_family_are_refused(bandit):
    with pytest.raises(
        ConfigError,
        match=r"With arms=4 the action_space is Discrete\(4\).*trained with Discrete\(5\)",
    ):
        evaluate(bandit, task_options={"arms": 4})
    with pytest.raises(ConfigError, match=r"no option 'pull'. Did you mean 'pulls'"):
        evaluate(bandit, task_options={"pull": 4})


def test_the_checkpoint_is_loaded_into_the_agent_with_other_options(steering, monkeypatch):
    loaded = []
    original = Steering.load_state

    def load_state(agent, state):
        original(agent, state)
        loaded.append((agent.config.rollouts_per_task, agent.network.tolist()))

    monkeypatch.setattr(Steering, "load_state", load_state)
    evaluate(steering, num_tasks=2, agent_options={"rollouts_per_task": 2})
    assert loaded == [(2, [1.0, 1.0, 1.0])]


def test_options_that_do_not_fit_the_agent_are_refused(steering, bandit):
    with pytest.raises(
        ConfigError, match=r"rl2 has no option 'rollouts'. Did you mean 'rollouts_per_task'.* gam"
    ):
        evaluate(bandit, agent_options={"rollouts": 3})
    with pytest.raises(ConfigError, match="rate=0 must be greater than zero"):
        evaluate(steering, agent_options={"rate": 0})
    with pytest.raises(CheckpointError, match="another width"):
        evaluate(steering, agent_options={"width": 4})
    with pytest.raises(CheckpointError):
        evaluate(bandit, agent_options={"hidden_size": 16})


def test_a_reference_that_is_not_defined_for_as_many_episodes_is_refused_by_name():
    family = BernoulliBandit(arms=5, pulls=10)
    memory = Schedule(steps=0, rollouts_per_task=20, episodes=10)
    assert "bayes_optimal" in select_references(family, memory, ["default"])
    gradient = Schedule(steps=3, rollouts_per_task=20, episodes=10)
    found = select_references(family, gradient, ["default"])
    assert set(found) == {"random", "thompson", "best_arm"}
    message = (
        r"'gittins' is not defined for 610 consecutive episodes, the experience of the agent at "
        r"its last one: 3 x 20 x 10 before .* Known: random, .*best_arm\."
    )
    with pytest.raises(UnknownNameError, match=message):
        select_references(family, gradient, ["random", "gittins"])
    with pytest.raises(UnknownNameError, match="has no reference 'gitins'"):
        select_references(family, gradient, ["gitins"])


def test_options_of_a_memory_that_are_not_changed_stay_those_of_training(tmp_path):
    run = metarl.train(
        "rl2",
        "metarl/BernoulliBandit-v0",
        memory="transformer",
        memory_options={"heads": 1, "layers": 1},
        num_tasks=8,
        hidden_size=8,
        iterations=1,
        progress=False,
        out=tmp_path / "run",
    )
    changed = {"memory_options": {"context": 2000}}
    plain, more = (
        evaluate(run, num_tasks=200, references=False, agent_options=options)[0]
        for options in ({}, changed)
    )
    np.testing.assert_array_equal(plain.returns, more.returns)
    assert "'context': 2000" in more.label
