"""Ants with a hidden direction, target velocity or goal.

See `metarl.envs.locomotion.base` for the sources and the differences from them.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from metarl.envs.locomotion.base import Locomotion, Vector, random_direction, random_sign
from metarl.new_tasks import NewTask
from metarl.split import Split

CONTACT_WEIGHT = 5e-4
"""weight of the squared contact forces, each clipped to 1"""


class _Ant(Locomotion):
    """Costs and termination shared by the ants."""

    MODEL = "Ant-v5"
    MODEL_OPTIONS: ClassVar[Mapping[str, Any]] = {"include_cfrc_ext_in_observation": False}
    HEALTHY: ClassVar[Mapping[str, tuple[float, float]]] = {
        "maml": (0.2, 1.0),
        "promp": (0.0, 1.0),
        "pearl": (0.2, 1.0),
        "varibad": (0.2, 1.0),
    }
    """range of torso heights of an ant that has not fallen"""

    def _costs(self, action: Vector) -> float:
        """Cost of actions and contacts, minus a constant bonus per step."""
        effort = np.square(action).sum()
        if self.source == "maml":
            return float(0.005 * effort + CONTACT_WEIGHT * self._contact - 0.05)
        return float(0.5 * effort + CONTACT_WEIGHT * self._contact - 1.0)

    @property
    def _contact(self) -> float:
        """Sum of squared contact forces, each clipped to 1."""
        return float(np.square(np.clip(self.mujoco_env.data.cfrc_ext, -1, 1)).sum())

    def terminated(self) -> bool:
        """Whether the ant has fallen."""
        low, high = self.HEALTHY[self.source]
        return not (self._finite and low <= self._height <= high)


class AntDir(_Ant):
    """An ant runs in a hidden direction.

    reward = velocity along the direction - costs, with costs of
    0.005 |a|^2 + 0.0005 |contact|^2 - 0.05 (source `maml`) or
    0.5 |a|^2 + 0.0005 |contact|^2 - 1 (`promp`, `pearl`).
    `maml` and `pearl` (as in its configuration) draw forward or backward, in both splits; `promp`
    draws any angle, and test tasks are new draws. Terminates when the ant falls.

    Sources: Finn et al. 2017 (`maml`, cbfinn/maml_rl), Rothfuss et al. 2019 (`promp`), Rakelly et
    al. 2019 (`pearl`, katerakelly/oyster). The version of Zintgraf et al. 2020 is not included: it
    uses the sign of the direction as an angle in radians. Unlike the sources: current MuJoCo and
    Gymnasium's v5 model, contact forces not observed.
    """

    SOURCES = ("maml", "promp", "pearl")

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
        self.splits_share_tasks = source != "promp"
        self.task_space = spaces.Box(-1.0, 1.0, (2,), np.float64)

    def sample_task(self, np_random: np.random.Generator, split: Split = "train") -> Vector:
        """The direction [2], of length 1."""
        if self.source == "promp":
            return random_direction(np_random)
        return np.append(random_sign(np_random), 0.0)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Higher at larger velocity along the direction."""
        assert self.task is not None
        along = self.task @ (info["x_velocity"], info["y_velocity"])
        return float(along) - self._costs(action)


class AntVel(_Ant):
    """An ant runs at a hidden target velocity.

    reward = 1 - |v - target| - costs (as in AntDir). The target is drawn from U[0, 3] in both
    splits; test tasks are new draws. Terminates when the ant falls.

    Source: Finn et al. 2017 (`maml`, cbfinn/maml_rl); deviations as in AntDir.
    """

    SOURCES = ("maml",)

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
        self.task_space = spaces.Box(0.0, 3.0, (1,), np.float64)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Higher nearer to the target velocity."""
        assert self.task is not None
        return float(1 - abs(info["x_velocity"] - self.task[0])) - self._costs(action)


class AntGoal(_Ant):
    """An ant walks to a hidden goal; it observes its position.

    Source `maml`: reward = 4 - |x - goal|_1 - costs (as in AntDir), goals from U[-3, 3]^2,
    terminates when the ant falls. Sources `promp`, `pearl`, `varibad`:
    reward = -|x - goal|_1 - 0.1 |a|^2 - 0.0005 |contact|^2, goals uniform in a disc of radius 3;
    terminates only if the simulation becomes non-finite. Test tasks are new draws.

    Sources: as in AntDir, and Zintgraf et al. 2020 (`varibad`); deviations as in AntDir.
    """

    MODEL_OPTIONS: ClassVar[Mapping[str, Any]] = {
        "include_cfrc_ext_in_observation": False,
        "exclude_current_positions_from_observation": False,
    }
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
        self.task_space = spaces.Box(-3.0, 3.0, (2,), np.float64)

    def sample_task(self, np_random: np.random.Generator, split: Split = "train") -> Vector:
        """The goal [2]."""
        if self.source == "maml":
            return super().sample_task(np_random, split)
        distance = 3 * float(np.sqrt(np_random.uniform()))
        return distance * random_direction(np_random)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Higher nearer to the goal."""
        assert self.task is not None
        distance = float(np.abs(self.mujoco_env.data.qpos[:2] - self.task).sum())
        if self.source == "maml":
            return 4 - distance - self._costs(action)
        effort = 0.1 * np.square(action).sum()
        return float(-distance - effort - CONTACT_WEIGHT * self._contact)

    def terminated(self) -> bool:
        """Whether the ant has fallen (`maml`), or the simulation is non-finite (other sources)."""
        return super().terminated() if self.source == "maml" else not self._finite
