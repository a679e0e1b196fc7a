"""Gymnasium environments as the lanes of one process, stepped as one environment.

Nothing here imports torch: workers use NumPy only.

Axes: `l` lanes of one block, `W` blocks, then features (`D` observation, `A` action).
"""

import functools
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import DTypeLike, NDArray

from metarl.errors import ConfigError, MissingPackageError

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]
SUCCESS_KEYS = ("success", "is_success")
"""keys of an info that mark a solved task"""
AFTER_STEP, AFTER_RESET = "step", "reset"
"""the two frames that are kept: after the latest step, and after the latest reset"""


def close_env(env: gymnasium.Env[Any, Any]) -> None:
    """Closes an environment; if that raises, it is a warning: results are there already."""
    try:
        env.close()
    except Exception as error:
        _warn_once(f"close() of {type(env.unwrapped).__name__} raised {error!r}; it is ignored.")


@functools.cache
def _warn_once(message: str) -> None:  # not for every lane
    logging.getLogger("metarl").warning(message)


class Lane(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment with flat spaces, whose next reset sets its task.

    Observations are flattened by Gymnasium's utilities, Box actions clipped to their bounds. The
    info holds success only.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], *, keep_frames: bool = False) -> None:
        super().__init__(env)
        self.frames: dict[str, Any] | None = {} if keep_frames and env.render_mode else None
        self.observation_space = flat_space(env.observation_space)
        self.action_space = plain_action_space(env.action_space)
        self.next_task: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode, in `next_task` if there is one."""
        if self.next_task is not None:
            options = {**(options or {}), "task": self.next_task}
            self.next_task = None
        obs, _ = self.env.reset(seed=seed, options=options)
        self._render(AFTER_RESET)
        return flat_observation(self.env.observation_space, obs), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One step."""
        obs, reward, terminated, truncated, info = self.env.step(
            env_action(self.env.action_space, action)
        )
        self._render(AFTER_STEP)
        success = any(bool(info[key]) for key in SUCCESS_KEYS if key in info)
        ended = bool(terminated), bool(truncated) and not terminated
        flat = flat_observation(self.env.observation_space, obs)
        return flat, float(reward), *ended, {"success": success}

    def _render(self, when: str) -> None:
        # Kept, because autoreset starts the next episode before the caller can render the last.
        if self.frames is None:
            return
        try:
            self.frames[when] = self.env.render()
        except DependencyNotInstalled as error:
            raise MissingPackageError(
                f"The environment cannot be rendered here: {error}."
            ) from error


MAX_NUMBERS = 10_000_000
"""of a flattened space; larger ones are a Discrete that counts combinations"""


def flat_space(space: gymnasium.Space[Any]) -> spaces.Box:
    """The Box [D] float32 that Gymnasium's utilities flatten a space into.

    Raises:
        ConfigError: the space has no fixed size (Graph, Sequence), or too many numbers.
    """
    if not space.is_np_flattenable:
        raise ConfigError(
            f"Observations in {space} have no fixed size, as a network needs; wrap the environment "
            "so that its observation space is a Box, a Discrete, or a Dict or Tuple of them."
        )
    if (size := spaces.flatdim(space)) > MAX_NUMBERS:
        raise ConfigError(
            f"{space} is flattened to {size:,} numbers, where a network can read at most "
            f"{MAX_NUMBERS:,}: a Discrete becomes a one-hot of all its values. Give the parts of "
            "such a number apart, as a MultiDiscrete or a Box."
        )
    flat = spaces.flatten_space(space)
    assert isinstance(flat, spaces.Box)
    with np.errstate(over="ignore"):  # float64's own limits are infinite in float32
        low, high = flat.low.astype(np.float32), flat.high.astype(np.float32)
    return spaces.Box(low.reshape(-1), high.reshape(-1), dtype=np.float32)


def flat_observation(
    space: gymnasium.Space[Any], obs: Any, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """An observation in `space`, flattened by Gymnasium's utilities to a new vector [D]."""
    return np.array(spaces.flatten(space, obs), dtype=dtype).reshape(-1)


def env_action(space: gymnasium.Space[Any], action: Any, lanes: tuple[int, ...] = ()) -> Any:
    """Actions in `plain_action_space(space)` as the environment takes them.

    Args:
        space: of the environment: a Discrete, or a Box, to whose bounds the action is clipped.
        action: one of a lane, or with the leading axes `lanes` those of many.
        lanes: the leading axes.
    """
    if isinstance(space, spaces.Box):
        action = np.asarray(action, dtype=space.dtype).reshape(*lanes, *space.shape)
        # NaN stays NaN: it must not become a valid action.
        return np.clip(action, space.low, space.high)
    assert isinstance(space, spaces.Discrete)
    return space.dtype.type(action + space.start)


def plain_action_space(space: gymnasium.Space[Any]) -> spaces.Box | spaces.Discrete:
    """The action space as a Discrete that starts at 0, or as a Box [A] float32.

    Raises:
        ConfigError: it is another kind of space.
    """
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return flat_space(space)
    raise ConfigError(
        f"Actions must be Discrete or a Box of floats; got {space}. Wrap the environment: "
        "the combinations of a MultiDiscrete can be numbered as one Discrete."
    )


class EnvBlock(gymnasium.Env[Any, Any]):
    """The lanes of one process, as one environment that never ends.

    The observation holds everything that a step returns, including the initial observation of the
    next episode where one ended, because workers transfer observations in shared memory.
    """

    def __init__(self, make: MakeEnv, index: int, lanes: int, template: "LaneSpaces") -> None:
        """Stores the arguments; the environments are made at the first reset.

        Args:
            make: makes one environment.
            index: position of this block among all blocks.
            lanes: l, the number of lanes.
            template: spaces of a lane.
        """
        self._make, self._index, self._count = make, index, lanes
        self._lanes: SyncVectorEnv | None = None
        obs = batch_space(template.observation, lanes)
        flags = spaces.MultiBinary(lanes)
        self.observation_space = spaces.Dict(
            {
                "obs": obs,
                "initial_obs": obs,
                "reward": spaces.Box(-np.inf, np.inf, (lanes,), np.float64),
                "terminated": flags,
                "truncated": flags,
                "success": flags,
            }
        )
        self.action_space = batch_space(template.action, lanes)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Starts an episode in every lane; options hold tasks and seeds of all blocks, [W, l]."""
        lanes, options = self._vector_env(), options or {}
        lanes.set_attr("next_task", options["tasks"][self._index])
        initial_obs, _ = lanes.reset(seed=options["seeds"][self._index])
        zeros = np.zeros(self._count)
        return self._arrays(initial_obs, initial_obs, zeros, zeros, zeros, zeros), {}

    def step(
        self, action: NDArray[Any]
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """One step of every lane; where an episode ends, the next one starts."""
        initial_obs, reward, terminated, truncated, infos = self._vector_env().step(action)
        obs, ended = initial_obs, terminated | truncated
        success = np.zeros(self._count, dtype=bool)
        if "success" in infos:
            success |= infos["success"] & infos["_success"]
        if ended.any():
            obs = initial_obs.copy()
            obs[ended] = np.stack(list(infos["final_obs"][ended]))
            success |= infos["final_info"]["success"] & ended
        arrays = self._arrays(obs, initial_obs, reward, terminated, truncated, success)
        return arrays, 0.0, False, False, {}

    def frame(self, when: str) -> Any:
        """Frame of the first lane, AFTER_STEP or AFTER_RESET; needs a render mode."""
        (first, *_) = self._vector_env().envs
        assert isinstance(first, Lane)
        assert first.frames is not None
        return first.frames[when]

    def close(self) -> None:
        """Closes the environments; one that raises is reported."""
        if self._lanes is not None:
            for env in self._lanes.envs:
                close_env(env)
            self._lanes.envs = []
            self._lanes.close()

    def _lane(self, *, keep_frames: bool) -> Lane:
        return Lane(self._make(), keep_frames=keep_frames)

    def _vector_env(self) -> SyncVectorEnv:
        if self._lanes is None:
            self._lanes = SyncVectorEnv(
                [partial(self._lane, keep_frames=lane == 0) for lane in range(self._count)],
                copy=True,
                autoreset_mode=AutoresetMode.SAME_STEP,
            )
        return self._lanes

    @staticmethod
    def _arrays(obs: Any, initial_obs: Any, reward: Any, *flags: Any) -> dict[str, NDArray[Any]]:
        terminated, truncated, success = (np.asarray(flag, dtype=np.int8) for flag in flags)
        return {
            "obs": obs,
            "initial_obs": initial_obs,
            "reward": reward,
            "terminated": terminated,
            "truncated": truncated,
            "success": success,
        }


class LaneSpaces(NamedTuple):
    """Observation and action space of a lane."""

    observation: spaces.Box
    action: spaces.Box | spaces.Discrete
