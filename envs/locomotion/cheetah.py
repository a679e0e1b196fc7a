"""Half-cheetahs with a hidden target velocity or direction.

See `metarl.envs.locomotion.base` for the sources and the differences from them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from metarl.envs.locomotion.base import Locomotion, Vector, random_sign
from metarl.new_tasks import NewTask
from metarl.split import Split


class HalfCheetahVel(Locomotion):
    """A cheetah runs at a hidden target velocity.

    reward = -|v - target| - 0.05 |a|^2. The target is drawn from U[0, 2] (source `maml`) or
    U[0, 3] (`promp`, `pearl`, `varibad`) in both splits; test tasks are new draws. Episodes never
    terminate.

    Sources: Finn et al. 2017 (`maml`, cbfinn/maml_rl), Rothfuss et al. 2019 (`promp`), Rakelly et
    al. 2019 (`pearl`, katerakelly/oyster), Zintgraf et al. 2020 (`varibad`). Unlike them: current
    MuJoCo and Gymnasium's v5 model, whose observation has 17 numbers (`maml` and `pearl`: 20).
    """

    MODEL = "HalfCheetah-v5"
    SOURCES = ("maml", "promp", "pearl", "varibad")

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
        self.task_space = spaces.Box(0.0, 2.0 if source == "maml" else 3.0, (1,), np.float64)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Higher nearer to the target velocity."""
        assert self.task is not None
        error = abs(info["x_velocity"] - self.task[0])
        return float(-error - 0.05 * np.square(action).sum())


class HalfCheetahDir(Locomotion):
    """A cheetah runs in a hidden direction, forward or backward.

    reward = direction * v - 0.05 |a|^2. The direction is +1 or -1 with equal probability in both
    splits: there are only these two tasks. Episodes never terminate.

    Sources and deviations: as HalfCheetahVel; all sources agree on this task.
    """

    MODEL = "HalfCheetah-v5"
    SOURCES = ("maml", "promp", "pearl", "varibad")
    splits_share_tasks = True

    def __init__(
        self,
        source: str = "maml",
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
        self.task_space = spaces.Box(-1.0, 1.0, (1,), np.float64)

    def sample_task(self, np_random: np.random.Generator, split: Split = "train") -> Vector:
        """The direction [1]."""
        return random_sign(np_random)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Higher at larger velocity along the direction."""
        assert self.task is not None
        return float(self.task[0] * info["x_velocity"] - 0.05 * np.square(action).sum())
