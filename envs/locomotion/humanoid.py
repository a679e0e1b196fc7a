"""A humanoid with a hidden walking direction.

See `metarl.envs.locomotion.base` for the sources and the differences from them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from metarl.envs.locomotion.base import Locomotion, Vector, random_direction
from metarl.new_tasks import NewTask
from metarl.split import Split


class HumanoidDir(Locomotion):
    """A humanoid walks in a hidden direction.

    reward = 0.25 * velocity along the direction - 0.1 |a|^2 - min(5e-7 |contact|^2, 10) + 5. The
    direction is any angle in both splits; test tasks are new draws. Terminates when the torso is
    lower than 1 or higher than 2.

    Source: Rakelly et al. 2019 (`pearl`, katerakelly/oyster), whose task Zintgraf et al. 2020
    adopted. The version of Rothfuss et al. 2019, forward or backward, is not included. Unlike the
    source: current MuJoCo and Gymnasium's v5 model, contact forces not observed.
    """

    MODEL = "Humanoid-v5"
    MODEL_OPTIONS: ClassVar[Mapping[str, Any]] = {"include_cfrc_ext_in_observation": False}
    SOURCES = ("pearl",)

    def __init__(
        self,
        source: str = "pearl",
        render_mode: str | None = None,
        new_task: NewTask | None = None,
    ) -> None:
        """Creates the body.

        Args:
            source: publication whose rewards and tasks are used, see above.
            render_mode: `rgb_array` or None.
            new_task: when a task is drawn where none is given; None means "episode".
        """
        super().__init__(source, render_mode, new_task)
        self.task_space = spaces.Box(-1.0, 1.0, (2,), np.float64)

    def sample_task(self, np_random: np.random.Generator, split: Split = "train") -> Vector:
        """The direction [2], of length 1."""
        return random_direction(np_random)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Higher at larger velocity along the direction."""
        assert self.task is not None
        along = self.task @ (info["x_velocity"], info["y_velocity"])
        contact = min(5e-7 * np.square(self.mujoco_env.data.cfrc_ext).sum(), 10)
        effort = 0.1 * np.square(self.mujoco_env.data.ctrl).sum()
        return float(0.25 * along - effort - contact + 5)

    def terminated(self) -> bool:
        """Whether the humanoid has fallen."""
        return not (self._finite and 1.0 <= self._height <= 2.0)
