"""The one engine: a family, tasks and a policy go in, whole lived trials come out.

Axes: `T` steps, `N` tasks, `B` copies of each task, then features. Nothing here asks which agent
it serves, or whether the world is pure tensors or processes.
"""

import dataclasses

import torch
from torch import Tensor

from metarl.agent import Decision, Policy, require_positive
from metarl.errors import NonFiniteError
from metarl.seeding import Seeds
from metarl.tasks import TaskFamily, as_tasks
from metarl.trajectory import Percept, Trajectory
from metarl.worlds import BatchedWorld, Transition, World


def collect(
    family: TaskFamily,
    tasks: Tensor,
    policy: Policy,
    *,
    episodes: int,
    copies: int = 1,
    seeds: Seeds,
) -> Trajectory:
    """Lives `episodes` episodes in a row in each of `copies` lanes of every task.

    After an episode ends the next one opens in the same task with the memory intact, and the
    last reward reaches the policy. A lane that has lived its episodes is idle until all have.

    Args:
        family: the world's rules.
        tasks: [N, ...] task parameters, on the device where everything shall happen.
        policy: acts in all N x B lanes at once.
        episodes: E, episodes per lane.
        copies: B, lanes per task.
        seeds: the world draws from `"world"`, the policy from `"policy"`: two policies given
            equal seeds meet the same world noise.

    Returns:
        A trajectory [T, N, B, ...] with T <= E * family.episode_steps.

    Raises:
        ConfigError: `episodes` or `copies` is not positive.
        TaskError: a task lies outside the family's task space.
        NonFiniteError: an observation or reward is NaN or infinite; task and step are named.
    """
    require_positive("episodes", episodes)
    require_positive("copies", copies)
    tasks = as_tasks(family, tasks, tasks.device)
    lanes = tasks.repeat_interleave(copies, 0)
    world = BatchedWorld(family, lanes, seeds.torch("world", device=tasks.device))
    with torch.no_grad():
        trajectory = _live(
            world, policy, len(tasks), copies, episodes, episodes * family.episode_steps, seeds
        )
    _require_finite(trajectory, family, tasks)
    return trajectory
