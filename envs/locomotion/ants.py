"""Ants that run in the direction, at the speed or to the goal that they are paid for.

As the other bodies of `metarl.envs.locomotion.cheetah_and_humanoid`, which says where the numbers
are from.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from metarl.envs.locomotion.cheetah_and_humanoid import Locomotion, Vector, direction, either
from metarl.tasks.family import Split

CONTACT_WEIGHT = 5e-4
"""of the squared contact forces, each clipped to 1"""


class _Ant(Locomotion):
    """What the ants share: their costs, and how they fall."""

    MODEL = "Ant-v5"
    MODEL_OPTIONS: ClassVar[Mapping[str, Any]] = {"include_cfrc_ext_in_observation": False}
    HEALTHY: ClassVar[Mapping[str, tuple[float, float]]] = {
        "maml": (0.2, 1.0),
        "promp": (0.0, 1.0),
        "pearl": (0.2, 1.0),
        "varibad": (0.2, 1.0),
    }
    """heights of the torso at which an ant has not fallen"""

    def _costs(self, action: Vector) -> float:
        """What the moves cost, less what an upright ant is paid."""
        effort = np.square(action).sum()
        if self.source == "maml":
            return float(0.005 * effort + CONTACT_WEIGHT * self._contact - 0.05)
        return float(0.5 * effort + CONTACT_WEIGHT * self._contact - 1.0)

    @property
    def _contact(self) -> float:
        """Sum of squared contact forces, each clipped to 1."""
        return float(np.square(np.clip(self.body.data.cfrc_ext, -1, 1)).sum())

    def terminated(self) -> bool:
        """Whether it has fallen."""
        low, high = self.HEALTHY[self.source]
        return not (self._finite and low <= self._height <= high)


class AntDir(_Ant):
    """An ant runs in the direction that is paid.

    reward = velocity along the direction - costs, with costs of
    0.005 |a|^2 + 0.0005 |contact|^2 - 0.05 (source `maml`) or
    0.5 |a|^2 + 0.0005 |contact|^2 - 1 (`promp`, `pearl`).
    `maml` and `pearl` (as its configuration has it) draw forward or backward, in both splits;
    `promp` any angle, test tasks being other draws. Terminates when the ant falls.

    Sources: Finn et al. 2017 (`maml`, cbfinn/maml_rl), Rothfuss et al. 2019 (`promp`), Rakelly et
    al. 2019 (`pearl`, katerakelly/oyster). That of Zintgraf et al. 2020 takes the sign of the
    direction for an angle in radians and is left out. Unlike them: current MuJoCo and Gymnasium's
    v5 model, contact forces not observed.
    """

    SOURCES = ("maml", "promp", "pearl")

    def __init__(self, source: str = "pearl", render_mode: str | None = None) -> None:
        """Takes the body.

        Args:
            source: whose rewards and tasks, as above.
            render_mode: `rgb_array` or None.
        """
        super().__init__(source, render_mode)
        self.splits_share_tasks = source != "promp"
        self.task_space = spaces.Box(-1.0, 1.0, (2,), np.float64)

    def sample_task(self, np_random: np.random.Generator, split: Split) -> Vector:
        """The direction [2], of length 1."""
        if self.source == "promp":
            return direction(np_random)
        return np.append(either(np_random), 0.0)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Farther in the direction is better."""
        assert self.task is not None
        along = self.task @ (info["x_velocity"], info["y_velocity"])
        return float(along) - self._costs(action)


class AntVel(_Ant):
    """An ant runs as fast as a target says, which is not shown.

    reward = 1 - |v - target| - costs (as in AntDir), the target drawn from U[0, 3], in either
    split: test tasks are other draws. Terminates when the ant falls.

    Source: Finn et al. 2017 (`maml`, cbfinn/maml_rl); deviations as AntDir.
    """

    SOURCES = ("maml",)

    def __init__(self, source: str = "maml", render_mode: str | None = None) -> None:
        """Takes the body.

        Args:
            source: whose rewards and tasks, as above.
            render_mode: `rgb_array` or None.
        """
        super().__init__(source, render_mode)
        self.task_space = spaces.Box(0.0, 3.0, (1,), np.float64)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Nearer to the target is better."""
        assert self.task is not None
        return float(1 - abs(info["x_velocity"] - self.task[0])) - self._costs(action)


class AntGoal(_Ant):
    """An ant walks to a goal that is not shown; its own position is.

    Source `maml`: reward = 4 - |x - goal|_1 - costs (as in AntDir), goals from U[-3, 3]^2,
    terminates when the ant falls. Sources `promp`, `pearl`, `varibad`:
    reward = -|x - goal|_1 - 0.1 |a|^2 - 0.0005 |contact|^2, goals from a disc of radius 3, evenly
    by area; terminates only where the simulation is no longer finite. Test tasks are other draws.

    Sources: as AntDir, and Zintgraf et al. 2020 (`varibad`); deviations as there.
    """

    MODEL_OPTIONS: ClassVar[Mapping[str, Any]] = {
        "include_cfrc_ext_in_observation": False,
        "exclude_current_positions_from_observation": False,
    }
    SOURCES = ("maml", "promp", "pearl", "varibad")

    def __init__(self, source: str = "pearl", render_mode: str | None = None) -> None:
        """Takes the body.

        Args:
            source: whose rewards and tasks, as above.
            render_mode: `rgb_array` or None.
        """
        super().__init__(source, render_mode)
        self.task_space = spaces.Box(-3.0, 3.0, (2,), np.float64)

    def sample_task(self, np_random: np.random.Generator, split: Split) -> Vector:
        """The goal [2]."""
        if self.source == "maml":
            return super().sample_task(np_random, split)
        distance = 3 * float(np.sqrt(np_random.uniform()))
        return distance * direction(np_random)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Nearer to the goal is better."""
        assert self.task is not None
        away = float(np.abs(self.body.data.qpos[:2] - self.task).sum())
        if self.source == "maml":
            return 4 - away - self._costs(action)
        effort = 0.1 * np.square(action).sum()
        return float(-away - effort - CONTACT_WEIGHT * self._contact)

    def terminated(self) -> bool:
        """Whether it has fallen, where that counts."""
        return super().terminated() if self.source == "maml" else not self._finite
