"""Recurrent agents on small tasks."""

import torch

from metarl.agent import AgentContext, MetaBatch
from metarl.agents.memory.rl2 import RL2Config
from metarl.agents.memory.trainer import RecurrentAgent
from metarl.agents.memory.varibad import VariBADConfig
from metarl.rollout import RolloutSpec, rollout_phases
from metarl.seeding import Seeds
from metarl.tasks.family import TaskFamily


def context_of(family: TaskFamily) -> AgentContext:
    return AgentContext(
        observation_space=family.observation_space,
        action_space=family.action_space,
        seeds=Seeds(0),
        device=torch.device("cpu"),
    )


def build(family: TaskFamily, **options: object) -> RecurrentAgent:
    """RL^2, or the agent that trains this memory."""
    kind = VariBADConfig if options.get("memory") == "belief" else RL2Config
    config = kind(**{"num_tasks": 8, "hidden_size": 16, "iterations": 5} | options)
    return config.build(context_of(family))


def collect_trials(
    agent: RecurrentAgent, family: TaskFamily, *, num_tasks: int = 8, seed: int = 0
) -> MetaBatch:
    """The experience of one meta-iteration: a trial in each task."""
    tasks = family.sample_tasks(num_tasks, Seeds(seed).torch("tasks"))
    spec = RolloutSpec(episodes=family.trial_episodes, keep_next_obs=True)
    return rollout_phases(agent, family, tasks, adaptation_steps=0, spec=spec, seeds=Seeds(seed))
