"""Gradient agents in worlds so small that a meta-iteration takes milliseconds."""

import torch
from gymnasium import spaces
from torch import Tensor

import metarl
from metarl.agent import AgentContext, Policy
from metarl.agents.gradient.trainer import GradientAgent
from metarl.registry import agent_config
from metarl.rollout import adaptation_phases, collect
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily
from metarl.trajectory import Trajectory

AGENTS = ["maml", "fomaml", "promp", "emaml", "meta_sgd", "reptile", "pretrained"]
BANDIT = metarl.make_family("metarl/GoalBandit-v0", arms=3)
WALK = metarl.make_family("metarl/PointNavigation-v0", steps=6)
FAMILIES = {"discrete": BANDIT, "box": WALK}


def build(
    name: str, family: TaskFamily = BANDIT, setting: AgentContext | None = None, **options: object
) -> GradientAgent:
    config = agent_config(name)(
        **{"num_tasks": 4, "rollouts_per_task": 8, "hidden_sizes": (8,), "inner_lr": 0.5} | options
    )
    return config.build(setting or setting_of(family))


def setting_of(family: TaskFamily, **spaces_: spaces.Space) -> AgentContext:
    given = {
        "observation_space": family.observation_space,
        "action_space": family.action_space,
        "seeds": Seeds(0),
        "device": torch.device("cpu"),
    }
    return AgentContext(**given | spaces_)


def live(
    agent: GradientAgent,
    family: TaskFamily = BANDIT,
    *,
    seed: int = 0,
    num_tasks: int = 4,
    steps: int | None = None,
) -> list[Trajectory]:
    """The phases of one meta-iteration."""
    seeds = Seeds(seed)
    tasks = family.sample_tasks(num_tasks, seeds.torch("tasks"))

    def live_phase(policy: Policy, step: int) -> Trajectory:
        return collect(
            family, tasks, policy, episodes=1, rollouts_per_task=8, seeds=seeds.child("phase", step)
        )

    steps = agent.adaptation_steps if steps is None else steps
    return adaptation_phases(agent, num_tasks, live_phase, steps)


def train(agent: GradientAgent, family: TaskFamily, iterations: range) -> list[dict[str, float]]:
    return [dict(agent.update(live(agent, family, seed=i))) for i in iterations]


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
