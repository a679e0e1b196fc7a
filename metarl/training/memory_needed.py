"""The memory that the experience of a training needs, counted before anything is allocated."""

from collections.abc import Iterator
from contextlib import contextmanager
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


def require_available(needed: int, device: str, what: str, remedy: str) -> None:
    """Raises `ConfigError`, in these words, if a device does not have so many bytes of memory."""
    available = available_bytes(device)
    if available is not None and needed > available:
        raise ConfigError(
            f"{what} about {_gigabytes(needed)}, and {_gigabytes(available)} are available{remedy}"
        )


@contextmanager
def naming_allocation(what: str) -> Iterator[None]:
    """Within it a failed allocation is a `ConfigError` that names what needs the memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).strip().partition("\n")[0]
        if isinstance(error, RuntimeError) and "allocate" not in text:
            raise
        raise ConfigError(
            f"{what} needs more memory than there is: {text or 'out of memory'}. Use smaller "
            "options, such as the hidden size or those of the task."
        ) from error


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
    require_available(
        needed,
        device,
        "The experience of one iteration needs",
        f": {phases} phase{'s' * (phases > 1)} of {steps:,} steps in {num_tasks:,} tasks with "
        f"{rollouts_per_task:,} rollouts, {each:,} bytes a step. Use fewer --num-tasks or "
        "--rollouts-per-task, or fewer --episodes.",
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
