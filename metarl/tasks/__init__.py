"""What a task is, and the batched environment that it opens: the names that families build on."""

from metarl.tasks.batched_env import State, Transition, World, select_lanes
from metarl.tasks.family import (
    Moment,
    Reference,
    Split,
    TaskDistribution,
    TaskFamily,
    as_tasks,
    draw_tasks,
)

__all__ = [
    "Moment",
    "Reference",
    "Split",
    "State",
    "TaskDistribution",
    "TaskFamily",
    "Transition",
    "World",
    "as_tasks",
    "draw_tasks",
    "select_lanes",
]
