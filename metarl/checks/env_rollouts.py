"""Repeatable rollouts of an environment through the Gymnasium interface, and their comparison.

Equal seeds give equal rollouts. The global generators of Python, NumPy and torch are restored.

Axes: `D` observation.
"""

import copy
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from metarl.bridges.env_block import flat_observation


class EnvOutput(NamedTuple):
    """What `reset` or `step` returned, without the info."""

    obs: Any
    reward: Any = 0.0
    terminated: Any = False
    truncated: Any = False

    @property
    def ended(self) -> bool:
        """Whether the episode ended with this step."""
        return bool(self.terminated or self.truncated)


class StepRecord(NamedTuple):
    """A flattened copy of an `EnvOutput`."""

    obs: NDArray[np.float64]  # [D]
    reward: NDArray[np.float64]  # [1] if it is a number
    ended: tuple[bool, bool]  # terminated, truncated

    def __str__(self) -> str:
        return f"observation {_short(self.obs)}, reward {_short(self.reward)}, ended {self.ended}"


Rollout: TypeAlias = list[StepRecord]
"""one record per reset and per step"""


def step_through(
    env: gymnasium.Env[Any, Any],
    actions: Iterable[Any],
    *,
    task: Any = None,
    seed: int | None = None,
) -> Iterator[EnvOutput]:
    """Resets the environment, in `task` if given, and yields the output of every reset and step.

    After each episode end the environment is reset without a seed or a task.
    """
    options = {} if task is None else {"task": copy.deepcopy(task)}
    obs, _ = env.reset(seed=seed, options=options)
    yield EnvOutput(obs)
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(copy.deepcopy(action))
        yield EnvOutput(obs, reward, terminated, truncated)
        if terminated or truncated:
            obs, _ = env.reset()
            yield EnvOutput(obs)


def roll_out(
    env: gymnasium.Env[Any, Any],
    actions: Iterable[Any],
    *,
    task: Any = None,
    seed: int | None = None,
) -> Rollout:
    """The records of `step_through`."""
    return [record(env, output) for output in step_through(env, actions, task=task, seed=seed)]


def record(env: gymnasium.Env[Any, Any], output: EnvOutput) -> StepRecord:
    """A copy of the output with all numbers flattened."""
    reward = np.array(output.reward, dtype=np.float64).reshape(-1)
    ended = bool(output.terminated), bool(output.truncated)
    return StepRecord(flat_obs(env, output.obs), reward, ended)


def flat_obs(env: gymnasium.Env[Any, Any], obs: Any) -> NDArray[np.float64]:
    """A flattened copy [D] of an observation."""
    return flat_observation(env.observation_space, obs, np.float64)


def first_difference(one: Rollout, two: Rollout) -> str | None:
    """Describes the first difference; None if all numbers of both rollouts are equal."""
    for index, (a, b) in enumerate(zip(one, two, strict=False)):
        same = a.ended == b.ended and _equal(a.obs, b.obs) and _equal(a.reward, b.reward)
        if not same:
            return f"record {index} (0 is the first reset) was {a} in one and {b} in the other"
    return None if len(one) == len(two) else f"{len(one)} and {len(two)} records"


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Seeds the global generators, and restores their states afterwards."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def _equal(one: NDArray[Any], two: NDArray[Any]) -> bool:
    return np.array_equal(one, two, equal_nan=True)


def _short(values: NDArray[np.float64]) -> str:
    numbers = [f"{value:.6g}" for value in values[:6]]
    return f"[{', '.join(numbers)}{', ...' if len(values) > 6 else ''}]"
