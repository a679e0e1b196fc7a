"""Point navigation as an ordinary NumPy environment that does not use metarl.

It has the dynamics of `metarl/PointNavigation-v0`, so that `metarl benchmark` can compare an
ordinary environment with a batched task family. From this folder:

    metarl check plain_navigation:plain/PointNavigation-v0
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

MAX_MOVE, GOAL_RANGE, GOAL_SIZE = 0.1, 0.5, 0.01


class PlainPointNavigation(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A point moves from (0, 0) to an unobserved goal; rewards are minus the distance."""

    trial_episodes = 3

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-MAX_MOVE, MAX_MOVE, (2,), np.float32)
        self.task_space = spaces.Box(-GOAL_RANGE, GOAL_RANGE, (2,), np.float32)
        self._goal = np.zeros(2, np.float32)
        self._position = np.zeros(2, np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Moves to the start. The goal stays the same unless `options` has a new one."""
        super().reset(seed=seed)
        self._goal = np.array((options or {}).get("task", self._goal), np.float32)
        self._position = np.zeros(2, np.float32)
        return self._position.copy(), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Moves by the clipped action."""
        self._position = self._position + np.clip(action, -MAX_MOVE, MAX_MOVE)
        away = self._position - self._goal
        arrived = bool((np.abs(away) < GOAL_SIZE).all())
        reward = -float(np.sqrt(away @ away))
        return self._position.copy(), reward, arrived, False, {"success": arrived}


gymnasium.register(
    "plain/PointNavigation-v0",
    entry_point="plain_navigation:PlainPointNavigation",
    max_episode_steps=100,
)
