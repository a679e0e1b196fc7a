"""What a task is, and the batched environment that it opens: the names that families build on."""

from metarl.tasks.batched_env import BatchedEnv, State, Transition, select_lanes
from metarl.tasks.family import (
    Reference,
    RenderFrame,
    Split,
    TaskDistribution,
    TaskFamily,
    as_tasks,
    draw_tasks,
)
from metarl.tasks.tensor_env import TensorEnv

__all__ = [
    "BatchedEnv",
    "Reference",
    "RenderFrame",
    "Split",
    "State",
    "TaskDistribution",
    "TaskFamily",
    "TensorEnv",
    "Transition",
    "as_tasks",
    "draw_tasks",
    "select_lanes",
]
