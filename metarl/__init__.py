"""Meta-reinforcement learning: task distributions, RL^2 and gradient agents on one engine."""

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from metarl import cpu as _cpu

_cpu.spin_briefly()  # must come before the first import of torch

from metarl.registry import load_plugins as _load_plugins  # noqa: E402

if TYPE_CHECKING:
    from metarl.agent import Agent, AgentConfig, Decision, Memory, Policy, Setting
    from metarl.comparison import (
        Comparison,
        ComparisonRow,
        compare,
        compare_curves,
        write_comparison,
    )
    from metarl.cpu import keep_freed_memory
    from metarl.evaluation import evaluate
    from metarl.files import read_metrics
    from metarl.plotting import plot
    from metarl.policy_evaluation import evaluate_policy
    from metarl.recording import record
    from metarl.records import Run, load_run
    from metarl.registry import (
        Preset,
        agent_config,
        agent_names,
        make_family,
        presets,
        register_agent,
        register_family,
        register_preset,
        task_ids,
    )
    from metarl.rollout import collect
    from metarl.rows import Curve
    from metarl.sb3 import to_sb3_vec_env
    from metarl.sb3_policies import sb3_policy
    from metarl.seeding import Seeds
    from metarl.statistics import Estimate, bootstrap_mean
    from metarl.tasks import Moment, Reference, Split, TaskDistribution, TaskFamily
    from metarl.training import train
    from metarl.trajectory import Percept, Trajectory
    from metarl.trial_env import Trial
    from metarl.trial_worlds import TrialWorld
    from metarl.varied import register_varied_env
    from metarl.worlds import Transition, World

__version__ = _version("metarl-suite")

_HOMES = {
    "Agent": "agent",
    "AgentConfig": "agent",
    "Curve": "rows",
    "Comparison": "comparison",
    "ComparisonRow": "comparison",
    "Decision": "agent",
    "Estimate": "statistics",
    "Memory": "agent",
    "Moment": "tasks",
    "Percept": "trajectory",
    "Policy": "agent",
    "Preset": "registry",
    "Reference": "tasks",
    "Run": "records",
    "Seeds": "seeding",
    "Setting": "agent",
    "Split": "tasks",
    "TaskDistribution": "tasks",
    "TaskFamily": "tasks",
    "Trajectory": "trajectory",
    "Transition": "worlds",
    "Trial": "trial_env",
    "TrialWorld": "trial_worlds",
    "World": "worlds",
    "agent_config": "registry",
    "agent_names": "registry",
    "bootstrap_mean": "statistics",
    "collect": "rollout",
    "compare": "comparison",
    "compare_curves": "comparison",
    "evaluate": "evaluation",
    "evaluate_policy": "policy_evaluation",
    "keep_freed_memory": "cpu",
    "load_run": "records",
    "make_family": "registry",
    "plot": "plotting",
    "presets": "registry",
    "read_metrics": "files",
    "record": "recording",
    "register_agent": "registry",
    "register_family": "registry",
    "register_preset": "registry",
    "register_varied_env": "varied",
    "sb3_policy": "sb3_policies",
    "task_ids": "registry",
    "to_sb3_vec_env": "sb3",
    "train": "training",
    "write_comparison": "comparison",
}

__all__ = [
    "Agent",
    "AgentConfig",
    "Comparison",
    "ComparisonRow",
    "Curve",
    "Decision",
    "Estimate",
    "Memory",
    "Moment",
    "Percept",
    "Policy",
    "Preset",
    "Reference",
    "Run",
    "Seeds",
    "Setting",
    "Split",
    "TaskDistribution",
    "TaskFamily",
    "Trajectory",
    "Transition",
    "Trial",
    "TrialWorld",
    "World",
    "agent_config",
    "agent_names",
    "bootstrap_mean",
    "collect",
    "compare",
    "compare_curves",
    "evaluate",
    "evaluate_policy",
    "keep_freed_memory",
    "load_run",
    "make_family",
    "plot",
    "presets",
    "read_metrics",
    "record",
    "register_agent",
    "register_family",
    "register_preset",
    "register_varied_env",
    "sb3_policy",
    "task_ids",
    "to_sb3_vec_env",
    "train",
    "write_comparison",
]


def __getattr__(name: str) -> Any:
    """Imports the home of a public name when it is first asked for: `import metarl` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metarl' has no attribute {name!r}")
    return getattr(importlib.import_module(f"metarl.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]


_load_plugins()
