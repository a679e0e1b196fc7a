"""DPT: options, run folders, and learning by imitation next to a negative control."""

import pytest
import torch

import metarl
from metarl.agents.memory.dpt import DPTConfig
from metarl.errors import ConfigError
from metarl.rollout import RolloutSpec, collect, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from metarl.training.run_folder import RunConfig
from tests.networks.builders import BUILT_IN
from tests.recurrent_rollouts import context_of

pytestmark = pytest.mark.usefixtures("one_thread")

BANDIT = "metarl/BernoulliBandit-v0"
SMALL = {"num_tasks": 8, "hidden_size": 16, "iterations": 2, "progress": False}


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "DPT"),
        ({"reference": "gittins", "memory": "gru"}, "DPT of gittins (gru)"),
        ({"memory": "none"}, "DPT without memory"),
        ({"memory_options": {"layers": 3}}, "DPT (layers=3)"),
    ],
)
def test_the_label_states_reference_and_memory(options, label):
    assert DPTConfig(**options).label == label


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size=0 must be greater than zero"),
        ({"initial_std": 0.0}, "initial_std=0.0 must be greater than zero"),
        ({"guided_fraction": 1.1}, "guided_fraction=1.1 must lie between 0.0 and 1.0"),
        ({"memory": "transform"}, "Did you mean 'transformer'"),
        ({"num_tasks": 9}, "num_tasks=9 .* does not divide into num_minibatches=8"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DPTConfig(**options)


@pytest.mark.parametrize("memory", [name for name in BUILT_IN if name != "belief"])
@pytest.mark.parametrize("task", [BANDIT, "metarl/PointNavigation-v0"])
def test_every_memory_imitates(memory, task, tmp_path):
    run = metarl.train("dpt", task, memory=memory, out=tmp_path / "run", **SMALL)
    rows = metarl.read_metrics(run.path / "metrics.csv")
    assert len(rows) == 2
    assert ("agreement" if task == BANDIT else "squared_difference") in rows[0]


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (BANDIT, {"memory": "belief"}, "is trained by an auxiliary loss, and this agent has none"),
        (BANDIT, {"reference": "gitins"}, "no reference='gitins' .* Did you mean 'gittins'"),
        ("metarl/KrazyWorld-v0", {}, "no reference that is worth imitating"),
        ("metarl/HalfCheetahVel-v0", {}, "no reference that is worth imitating"),
        (
            "metarl/GridNavigation-v0",
            {"reference": "bayes_optimal"},
            "reference='bayes_optimal' cannot be imitated",
        ),
    ],
)
def test_without_a_reference_or_a_memory_of_use_no_folder_is_made(task, options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        metarl.train("dpt", task, out=tmp_path / "run", **SMALL, **options)
    assert not (tmp_path / "run").exists()


def test_a_reference_is_that_of_trials_of_the_length_of_training(tmp_path):
    too_long = {"reference": "gittins", "episodes": 501}
    with pytest.raises(ConfigError, match="no reference='gittins' for trials of this length"):
        metarl.train("dpt", BANDIT, out=tmp_path / "run", **SMALL, **too_long)


def test_a_run_is_measured_in_trials_for_which_its_reference_is_not_defined(tmp_path):
    options = SMALL | {"reference": "bayes_optimal"}
    run = metarl.train("dpt", BANDIT, out=tmp_path / "run", **options)
    longer = {"pulls": 60}
    family = metarl.make_family(BANDIT, **longer)
    assert "bayes_optimal" not in family.references(60)
    (curve,) = metarl.evaluate(run, num_tasks=3, references=False, task_options=longer)
    assert curve.returns.shape == (60, 3)


def test_training_is_guided_and_an_evaluation_is_not(tmp_path):
    # Of two arms one always pays: the oracle that guides 7 of 8 trials never fails.
    task = {"arms": 2, "pulls": 40, "p_goal": 1.0, "p_other": 0.0}
    options = SMALL | {"guided_fraction": 1.0, "learning_rate": 1e-12, "iterations": 1}
    run = metarl.train(
        "dpt", "metarl/GoalBandit-v0", task_options=task, out=tmp_path / "run", **options
    )
    (row,) = metarl.read_metrics(run.path / "metrics.csv")
    assert 35.5 <= float(row["trial_return"]) <= 39.5
    (curve,) = metarl.evaluate(run, num_tasks=50, references=False)
    assert 17 <= curve.returns.sum(0).mean() <= 23


def test_an_agent_that_was_built_to_be_measured_does_not_learn():
    family = metarl.make_family(BANDIT, pulls=3)
    agent = DPTConfig(num_tasks=8).build(context_of(family))
    with pytest.raises(ConfigError, match="there is nothing to imitate"):
        agent.update(trials_of(agent, family, 8, Seeds(0)))


def trials_of(agent, family: TaskFamily, num_tasks: int, seeds: Seeds):
    """The experience of one meta-iteration."""
    tasks = family.sample_tasks(num_tasks, seeds.torch("tasks"))
    spec = RolloutSpec(episodes=family.trial_episodes)
    return rollout_phases(agent, family, tasks, adaptation_steps=0, spec=spec, seeds=seeds)


def train_on(task: str, iterations: int, task_options: dict, **options: object) -> torch.Tensor:
    """Mean return of each episode of a trial, in unseen tasks, after a short training [E]."""
    family = metarl.make_family(task, **task_options)
    config = DPTConfig(num_tasks=64, hidden_size=32, iterations=iterations, **options)
    run = RunConfig(agent="dpt", agent_options={}, task=task, task_options=task_options, seed=0)
    agent = config.build(run.context(family, "cpu", training=True))
    for iteration in range(iterations):
        agent.update(trials_of(agent, family, 64, Seeds(iteration)))
    tasks = family.sample_tasks(2000, Seeds(1).torch("unseen"), "test")
    policy, episodes = agent.start(2000, None), family.trial_episodes
    trajectory = collect(family, tasks, policy, episodes=episodes, seeds=Seeds(1))
    return trajectory.episode_returns(episodes).mean((1, 2))


ONE_PAYS = ("metarl/GoalBandit-v0", 60, {"arms": 2, "pulls": 4, "p_goal": 1.0, "p_other": 0.0})


@pytest.mark.learning
def test_of_an_oracle_the_posterior_is_learned():
    # Two arms, one always pays. The oracle knows which: .5 before the first pull, then certain.
    returns = train_on(*ONE_PAYS, learning_rate=3e-3)
    assert 0.45 <= returns[0] <= 0.55
    assert (returns[1:] >= 0.97).all()


@pytest.mark.learning
def test_without_memory_an_oracle_stays_a_guess():
    returns = train_on(*ONE_PAYS, learning_rate=3e-3, memory="none")
    assert ((returns >= 0.45) & (returns <= 0.55)).all()


@pytest.mark.learning
def test_a_costly_first_pull_that_informs_is_imitated():
    # Optimum: .55 for the informative arm, then 5 for the target. Thompson sampling never pulls it.
    task = "metarl/InformativeArmBandit-v0"
    options = {"memory": "gru", "learning_rate": 1e-2}
    optimum = train_on(task, 150, {"pulls": 3}, **options)
    sampling = train_on(task, 150, {"pulls": 3}, reference="thompson", **options)
    assert 0.45 <= optimum[0] <= 0.65
    assert (optimum[1:] >= 4.5).all()
    assert 1.2 <= sampling[0] <= 1.6
    assert sampling[2] <= 3.0
