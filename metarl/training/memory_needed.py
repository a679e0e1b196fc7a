"""The memory that the experience of a training needs, counted before anything is allocated."""

from math import prod
from pathlib import Path

import torch
from gymnasium import spaces

from metarl.errors import ConfigError
from metarl.tasks.family import TaskDistribution

_MEMINFO = Path("/proc/meminfo")


def step_bytes(family: TaskDistribution, *, keep_next_obs: bool) -> int:
    """Bytes of one step of one lane in a trajectory, whose layout is that of `Trajectory`."""
    observation = 4 * prod(family.observation_space.shape)
    action = family.action_space
    of_action = 8 if isinstance(action, spaces.Discrete) else 4 * prod(action.shape)
    numbers, flags = 2 * 4, 5  # log_prob, reward; terminated, truncated, first, success, valid
    return observation * (1 + keep_next_obs) + of_action + numbers + flags


def available_bytes(device: str) -> int | None:
    """Memory that can be allocated on a device; None where the system does not say."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if torch.device(device).type != "cpu" or not _MEMINFO.exists():
        return None
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def require_memory(
    family: TaskDistribution,
    *,
    phases: int,
    steps: int,
    num_tasks: int,
    rollouts_per_task: int,
    keep_next_obs: bool,
    device: str,
) -> None:
    """Checks that the experience of one meta-iteration fits into memory.

    What a learner computes from it comes on top and is not counted.

    Args:
        family: its spaces decide the size of a step.
        phases: K + 1, all kept at once.
        steps: T of a phase at most.
        num_tasks: N.
        rollouts_per_task: B.
        keep_next_obs: whether the observation after each step is kept as well.
        device: where the experience is.

    Raises:
        ConfigError: it does not fit.
    """
    each = step_bytes(family, keep_next_obs=keep_next_obs)
    needed = phases * steps * num_tasks * rollouts_per_task * each
    available = available_bytes(device)
    if available is not None and needed > available:
        raise ConfigError(
            f"The experience of one iteration needs about {_gigabytes(needed)}, and "
            f"{_gigabytes(available)} are available: {phases} phase{'s' * (phases > 1)} of "
            f"{steps:,} steps in {num_tasks:,} tasks with {rollouts_per_task:,} rollouts, {each:,} "
            "bytes a step. Use fewer --num-tasks or --rollouts-per-task, or fewer --episodes."
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
