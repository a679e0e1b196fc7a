"""Vector environments of ordinary environments by their ids, with the arguments of families.

`gymnasium.make_vec(id, num_envs, autoreset_mode=...)` passes the mode to a `vector_entry_point`
alone. One is `"metarl.bridges.env_vectors:ID"`, for an id that `gymnasium.register` gets with it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv


def sync_vector_env(
    task_id: str,
    *,
    num_envs: int,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    **options: Any,
) -> SyncVectorEnv:
    """`num_envs` environments of an id, stepped one by one in this process.

    Args:
        task_id: id for `gymnasium.make`.
        num_envs: number of environments.
        autoreset_mode: when an environment starts the next episode: Gymnasium's three modes.
        options: arguments of `gymnasium.make`.
    """
    make = partial(gymnasium.make, task_id, **options)
    return SyncVectorEnv([make] * num_envs, autoreset_mode=autoreset_mode)


def __getattr__(task_id: str) -> Callable[..., SyncVectorEnv]:
    """The vector entry point of an id."""
    if task_id not in gymnasium.registry:
        raise AttributeError(f"module {__name__!r} has no attribute {task_id!r}")
    return partial(sync_vector_env, task_id)
