"""Rendering of one lane of a batched env, for families and envs that render frames.

Axes: `L` lanes, then features; a frame is [H, W, 3] uint8.
"""

from collections import deque
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.errors import ConfigError, TaskContractError
from metarl.tasks.batched_env import BatchedEnv, State, Transition
from metarl.tasks.family import RenderFrame, TaskDistribution, TaskFamily
from metarl.tasks.tensor_env import TensorEnv

MAX_HISTORY = 5000
"""steps kept for rendering; bounds the memory of endless trials"""


class RenderableEnv(BatchedEnv, Protocol):
    """A batched env that renders its first lane.

    Recording needs no more than this, so an env without a task family can be recorded if it
    renders itself.
    """

    def frame(self) -> NDArray[np.uint8]:
        """Frame [H, W, 3] of the current state of lane 0."""


class RenderedEnv:
    """Wraps a batched env, keeps the history of lane 0 and renders it; changes nothing else."""

    def __init__(self, env: TensorEnv) -> None:
        """Wraps an env before its first reset.

        Raises:
            ConfigError: the env's family does not render.
        """
        require_rendering(env.family)
        self._env = env
        self._history: deque[RenderFrame] = deque(maxlen=MAX_HISTORY)

    @property
    def tasks(self) -> Tensor:
        """Tasks of the wrapped env, [L, ...]."""
        return self._env.tasks

    def forget(self) -> None:
        """Clears the history; to be called before a new trial."""
        self._history.clear()

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """Resets the wrapped env."""
        obs = self._env.reset(lanes)
        if lanes is None or bool(lanes[0]):
            self._history.append(RenderFrame(_first_lane(self._env.state), None, 0.0))
        return obs

    def step(self, action: Tensor) -> Transition:
        """Steps the wrapped env."""
        last = self._env.step(action)
        state = _first_lane(self._env.state)
        self._history.append(RenderFrame(state, _first_lane(action), float(last.reward[0])))
        return last

    def frame(self) -> NDArray[np.uint8]:
        """Frame [H, W, 3] of the current state of lane 0.

        Raises:
            TaskContractError: the family's `render` returned something else.
        """
        family = self._env.family
        frame = family.render(self._env.tasks[:1].cpu(), tuple(self._history))
        return checked_frame(frame, f"{type(family).__name__}.render")


def checked_frame(frame: Any, source: str) -> NDArray[np.uint8]:
    """`frame`, checked to be [H, W, 3] uint8; `source` is what rendered it, for the message.

    Raises:
        TaskContractError: it has another type or shape.
    """
    shape, dtype = np.shape(frame), getattr(frame, "dtype", type(frame).__name__)
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
        raise TaskContractError(
            f"{source} returned {dtype} of shape {list(shape)}; a frame must be uint8 of shape "
            "[height, width, 3]."
        )
    image: NDArray[np.uint8] = frame
    return image


def as_renderable(env: BatchedEnv) -> RenderableEnv:
    """Wraps a task family's env in `RenderedEnv`; other envs must render themselves."""
    return RenderedEnv(env) if isinstance(env, TensorEnv) else cast(RenderableEnv, env)


def require_rendering(family: TaskDistribution) -> None:
    """Raises `ConfigError` unless the family renders frames."""
    if not family.can_render:
        raise ConfigError(
            f"{type(family).__name__} does not render. A family that renders sets `can_render = "
            "True` and defines a method `render`; an environment lists 'rgb_array' in the "
            "`render_modes` of its metadata."
        )


RENDERING: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
"""Gymnasium metadata of an environment that renders"""


def rendering(family: TaskFamily, render_mode: str | None) -> dict[str, Any]:
    """`RENDERING`, without modes where the family does not render.

    Raises:
        ConfigError: `render_mode` is not one of the modes.
    """
    modes = RENDERING["render_modes"] if family.can_render else []
    if render_mode is not None:
        require_rendering(family)
        if render_mode not in modes:
            raise ConfigError(
                f"render_mode={render_mode!r} must be 'rgb_array': {type(family).__name__} renders "
                "arrays, not windows."
            )
    return {**RENDERING, "render_modes": modes}


def refuse_rendering(render_mode: str | None) -> None:
    """Raises `ConfigError` if a vector environment gets a render mode."""
    if render_mode is not None:
        raise ConfigError(
            f"Vector environments do not render; got render_mode={render_mode!r}. Make a single "
            "environment: gymnasium.make(id, render_mode='rgb_array')."
        )


def _first_lane(state: State) -> State:
    """[1, ...] state of lane 0 on the CPU; of a tensor or nested named tuples of tensors."""
    if isinstance(state, Tensor):
        # A copy, because a view would keep the other lanes in memory.
        return state[:1].detach().to("cpu", copy=True)
    return type(state)(*map(_first_lane, state))
