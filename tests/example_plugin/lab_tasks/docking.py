"""A boat that steers to an unknown port in an unknown current."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

THRUST = 0.1
"""maximal displacement by the engine in one step, in each coordinate"""
REACH = 0.1
"""distance to the port below which the boat has arrived"""


class Docking(gymnasium.Env[Any, Any]):
    """A boat steers from (0, 0) to a port; neither the port nor the current is observed.

    position[t + 1] = position[t] + 0.1 * action[t] + current;  reward = -distance to the port.
    The episode terminates at the port.
    """

    trial_episodes = 3

    def __init__(self, strength: float = 0.03) -> None:
        """`strength` is the maximal current in each coordinate."""
        self.observation_space = spaces.Dict(
            {"position": spaces.Box(-6, 6, (2,), np.float64), "moored": spaces.Discrete(2)}
        )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.task_space = spaces.Dict(
            {
                "port": spaces.Box(-1, 1, (2,), np.float64),
                "current": spaces.Box(-strength, strength, (2,), np.float64),
            }
        )
        self._task = {"port": np.ones(2), "current": np.zeros(2)}
        self._position = np.zeros(2)

    def sample_task(self, np_random: np.random.Generator, split: str) -> dict[str, Any]:
        """Draws a port at a distance between 0.5 and 1, and a current."""
        angle, distance = np_random.uniform(0, 2 * np.pi), np_random.uniform(0.5, 1)
        current = self.task_space["current"]
        return {
            "port": distance * np.array([np.cos(angle), np.sin(angle)]),
            "current": np_random.uniform(current.low, current.high),
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode; the task persists until another is given."""
        super().reset(seed=seed)
        self._task = (options or {}).get("task", self._task)
        self._position = np.zeros(2)
        return self._obs(), {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One step."""
        self._position = self._position + THRUST * action + self._task["current"]
        distance = float(np.linalg.norm(self._position - self._task["port"]))
        return self._obs(), -distance, distance < REACH, False, {"success": distance < REACH}

    def _obs(self) -> dict[str, Any]:
        return {"position": self._position.copy(), "moored": 0}
