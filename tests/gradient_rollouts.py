"""Gradient agents on tasks so small that a meta-iteration takes milliseconds."""

import dataclasses

import torch
from gymnasium import spaces
from torch import Tensor

import metarl
from metarl.agent import AgentContext, MetaBatch
from metarl.agents.gradient.agent import GradientAgent
from metarl.networks.policies import StackedPolicy
from metarl.noise import LaneNoise
from metarl.registry import agent_config
from metarl.rollout import RolloutSpec, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from metarl.trajectory import Trajectory

AGENTS = [
    *(
        "maml",
        "fomaml",
        "promp",
        "emaml",
        "meta_sgd",
        "meta_lstm",
        "reptile",
        "pretrained",
        "platipus",
    ),
]
BANDIT = metarl.make_family("metarl/GoalBandit-v0", arms=3)
WALK = metarl.make_family("metarl/PointNavigation-v0", steps=6)
FAMILIES = {"discrete": BANDIT, "box": WALK}


def build(
    name: str, family: TaskFamily = BANDIT, context: AgentContext | None = None, **options: object
) -> GradientAgent:
    config = agent_config(name)(
        **{"num_tasks": 4, "rollouts_per_task": 8, "hidden_sizes": (8,), "inner_lr": 0.5} | options
    )
    return config.build(context or context_of(family))


def context_of(family: TaskFamily, **spaces_: spaces.Space) -> AgentContext:
    given = {
        "observation_space": family.observation_space,
        "action_space": family.action_space,
        "seeds": Seeds(0),
        "device": torch.device("cpu"),
    }
    return AgentContext(**given | spaces_)


def start(agent: GradientAgent, num_tasks: int = 4) -> StackedPolicy:
    """The policy before the first inner step."""
    return agent.start(num_tasks, LaneNoise.of(Seeds(0), "start", num_tasks))


def adapt(agent: GradientAgent, policy: StackedPolicy, experience: Trajectory) -> StackedPolicy:
    """The policy after one inner step."""
    return agent.adapt(policy, experience, torch.Generator()).policy


def collect_phases(
    agent: GradientAgent,
    family: TaskFamily = BANDIT,
    *,
    seed: int = 0,
    num_tasks: int = 4,
    steps: int | None = None,
) -> MetaBatch:
    """The experience of one meta-iteration."""
    seeds = Seeds(seed)
    return rollout_phases(
        agent,
        family,
        family.sample_tasks(num_tasks, seeds.torch("tasks")),
        adaptation_steps=agent.adaptation_steps if steps is None else steps,
        spec=RolloutSpec(episodes=1, rollouts_per_task=8),
        seeds=seeds,
    )


def first_trajectory(agent: GradientAgent, family: TaskFamily = BANDIT) -> Trajectory:
    """Experience before any adaptation."""
    return collect_phases(agent, family, steps=0).trajectories[0]


def with_last_trajectory(batch: MetaBatch, trajectory: Trajectory) -> MetaBatch:
    """The same meta-batch with other experience after adaptation."""
    *before, last = batch.phases
    last = dataclasses.replace(last, trajectory=trajectory)
    return dataclasses.replace(batch, phases=(*before, last))


def train(agent: GradientAgent, family: TaskFamily, iterations: range) -> list[dict[str, float]]:
    return [dict(agent.update(collect_phases(agent, family, seed=i))) for i in iterations]


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
