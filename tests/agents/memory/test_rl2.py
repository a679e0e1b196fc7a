"""RL^2 learns to adapt: tests with training, each next to a negative control."""

import pytest
import torch

import metarl
from metarl.agents.memory.rl2 import RL2Config
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from tests.recurrent_rollouts import build, collect_trials

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("memory", "label"),
    [
        ("gru", "RL²"),
        ("lstm", "RL² (lstm)"),
        ("attention", "RL² with attention"),
        ("none", "RL² without memory"),
    ],
)
def test_the_label_states_the_memory(memory, label):
    assert RL2Config(memory=memory).label == label


def train_on(family: TaskFamily, **options: object) -> torch.Tensor:
    """Mean return of each episode of a trial, in unseen tasks, after a short training [E]."""
    config = {
        "num_tasks": 128,
        "hidden_size": 32,
        "iterations": 60,
        "learning_rate": 4e-3,
    } | options
    agent = build(family, **config)
    for iteration in range(config["iterations"]):
        batch = collect_trials(agent, family, num_tasks=config["num_tasks"], seed=iteration)
        agent.update(batch)
    tasks = family.sample_tasks(2000, Seeds(1).torch("unseen"), "test")
    policy, episodes = agent.start(2000, torch.Generator()), family.trial_episodes
    trajectory = collect(family, tasks, policy, episodes=episodes, seeds=Seeds(1))
    return trajectory.episode_returns(episodes).mean((1, 2))


@pytest.mark.learning
@pytest.mark.parametrize(
    "memory", ["gru", "lstm", "attention", "transformer", "matching", "prototypical", "amortised"]
)
def test_one_paying_arm_is_found_by_memory(memory):
    # Two arms, one always pays: the first pull is a guess (.5), the second can be certain (1).
    family = metarl.make_family("metarl/GoalBandit-v0", arms=2, pulls=4, p_goal=1.0, p_other=0.0)
    returns = train_on(family, memory=memory)
    assert 0.45 <= returns[0] <= 0.55
    assert (returns[1:] >= 0.97).all()


@pytest.mark.learning
def test_without_memory_one_paying_arm_stays_a_guess():
    family = metarl.make_family("metarl/GoalBandit-v0", arms=2, pulls=4, p_goal=1.0, p_other=0.0)
    returns = train_on(family, memory="none")
    assert ((returns >= 0.45) & (returns <= 0.55)).all()


@pytest.mark.learning
def test_without_memory_bandit_returns_do_not_rise_from_first_to_last_pull():
    family = metarl.make_family("metarl/BernoulliBandit-v0")
    with_memory = train_on(family, iterations=150)
    without = train_on(family, iterations=150, memory="none")
    # 2000 tasks: the standard error of a difference of two pulls is .5 * sqrt(2 / 2000) = .016
    assert with_memory[-1] - with_memory[0] > 0.1
    assert abs(without[-1] - without[0]) < 0.05
