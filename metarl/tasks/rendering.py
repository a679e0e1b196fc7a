"""A world and what one of its lanes has lived go in, pictures come out.

Axes: `L` lanes, then features; a picture is [H, W, 3] uint8.
"""

from collections import deque
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metarl.errors import ConfigError, TaskContractError
from metarl.tasks.batched_env import BatchedEnv, State, Transition
from metarl.tasks.family import RenderFrame, TaskDistribution, TaskFamily, TensorEnv

MOST_REMEMBERED = 5000
"""moments that are kept of a life, so that one without end does not fill the memory"""


class RenderableEnv(BatchedEnv, Protocol):
    """A world whose first lane can be seen.

    This is all that a recording asks for, so that a world which is no task family can be recorded,
    too, if it has pictures of its own.
    """

    def frame(self) -> NDArray[np.uint8]:
        """Picture [H, W, 3] of lane 0 as it is now."""


class RenderedEnv:
    """A batched world that remembers what lane 0 lives, and draws it. Nothing else is changed."""

    def __init__(self, world: TensorEnv) -> None:
        """Films a world whose first episodes are not open yet.

        Raises:
            ConfigError: its family draws no pictures.
        """
        require_rendering(world.family)
        self._world = world
        self._life: deque[RenderFrame] = deque(maxlen=MOST_REMEMBERED)

    @property
    def tasks(self) -> Tensor:
        """Those of the world, [L, ...]."""
        return self._world.tasks

    @tasks.setter
    def tasks(self, tasks: Tensor) -> None:
        self._world.tasks = tasks

    def forget(self) -> None:
        """Begins a new life: what was lived so far is shown no more."""
        self._life.clear()

    def reset(self, lanes: Tensor | None = None) -> Tensor:
        """As that of the world."""
        obs = self._world.reset(lanes)
        if lanes is None or bool(lanes[0]):
            self._life.append(RenderFrame(_first_lane(self._world.state), None, 0.0))
        return obs

    def step(self, action: Tensor) -> Transition:
        """As that of the world."""
        last = self._world.step(action)
        state = _first_lane(self._world.state)
        self._life.append(RenderFrame(state, _first_lane(action), float(last.reward[0])))
        return last

    def frame(self) -> NDArray[np.uint8]:
        """Picture [H, W, 3] of lane 0 as it is now.

        Raises:
            TaskContractError: the family drew something else.
        """
        family = self._world.family
        picture: Any = family.render(self._world.tasks[:1].cpu(), tuple(self._life))
        shape, dtype = np.shape(picture), getattr(picture, "dtype", type(picture).__name__)
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
            raise TaskContractError(
                f"{type(family).__name__}.render gave {dtype} of shape {list(shape)}; a picture is "
                "uint8 of shape [height, width, 3]."
            )
        drawn: NDArray[np.uint8] = picture
        return drawn


def filmed(world: BatchedEnv) -> RenderableEnv:
    """The world, if it has pictures of its own, or around it one that draws it."""
    return RenderedEnv(world) if isinstance(world, TensorEnv) else cast(RenderableEnv, world)


def require_rendering(family: TaskDistribution) -> None:
    """Raises `ConfigError` unless the family draws."""
    if not family.can_render:
        raise ConfigError(
            f"{type(family).__name__} draws no pictures, so there is nothing to look at. A family "
            "that can be seen sets `can_render = True` and has a method `render`; an environment "
            "has 'rgb_array' among the `render_modes` of its metadata."
        )


RENDERING: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
"""how Gymnasium is told what an environment of ours can draw"""


def rendering(family: TaskFamily, render_mode: str | None) -> dict[str, Any]:
    """`RENDERING`, without modes where the family draws nothing.

    Raises:
        ConfigError: `render_mode` is none of them.
    """
    modes = RENDERING["render_modes"] if family.can_render else []
    if render_mode is not None:
        require_rendering(family)
        if render_mode not in modes:
            raise ConfigError(
                f"render_mode={render_mode!r} must be 'rgb_array': {type(family).__name__} makes "
                "pictures, and opens no windows."
            )
    return {**RENDERING, "render_modes": modes}


def refuse_rendering(render_mode: str | None) -> None:
    """Raises `ConfigError` if a vector environment is asked for pictures."""
    if render_mode is not None:
        raise ConfigError(
            f"Vector environments draw no pictures; got render_mode={render_mode!r}. Make a single "
            "one: gymnasium.make(id, render_mode='rgb_array')."
        )


def _first_lane(state: State) -> State:
    """That of lane 0, its axis kept, on the CPU; of a tensor or named tuples of them."""
    if isinstance(state, Tensor):
        # A copy, because a view would keep the other lanes in memory.
        return state[:1].detach().to("cpu", copy=True)
    return type(state)(*map(_first_lane, state))
