"""Bodies whose masses, inertias, dampings and frictions differ from task to task.

Axes: `P` numbers of the model that are scaled.

Source: the environments of PEARL (Rakelly et al. 2019, arXiv:1903.08254), as in
dennisl88/rand_param_envs.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.locomotion.cheetah_and_humanoid import Locomotion, Vector

SCALES = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}
"""arrays of the model, and the base of their factors"""
LIMIT = 3.0
"""exponents are drawn from [-3, 3]"""
MOST_SPEED = 10.0
"""observed velocities are clipped to this"""


class RandomParameters(Locomotion):
    """A body whose every mass, inertia, friction and damping has a factor of its own.

    factor = 1.5 ** u (damping: 1.3 ** u) with u ~ U[-3, 3]; a task holds all u, [P].
    reward = velocity + 1 - 0.001 |a|^2. Terminates when the body falls. Unlike the source, what is
    scaled is that of Gymnasium's v5 models.
    """

    SOURCES = ("pearl",)

    def __init__(self, source: str = "pearl", render_mode: str | None = None) -> None:
        """Takes the body.

        Args:
            source: whose rewards and tasks, as above.
            render_mode: `rgb_array` or None.
        """
        super().__init__(source, render_mode)
        self._original: Mapping[str, NDArray[np.float64]] = {
            name: np.array(getattr(self.body.model, name)) for name in SCALES
        }
        size = sum(array.size for array in self._original.values())
        self.task_space = spaces.Box(-LIMIT, LIMIT, (size,), np.float64)

    def set_task(self, task: Vector) -> None:
        """Scales the model."""
        super().set_task(task)
        used = 0
        for name, original in self._original.items():
            exponents = task[used : used + original.size].reshape(original.shape)
            getattr(self.body.model, name)[:] = original * SCALES[name] ** exponents
            used += original.size

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Faster is better."""
        return float(info["x_velocity"] + 1 - 1e-3 * np.square(action).sum())

    def _seen(self, obs: Vector) -> Vector:
        velocities = self.body.model.nv
        seen = np.array(obs, dtype=np.float64)
        seen[-velocities:] = np.clip(seen[-velocities:], -MOST_SPEED, MOST_SPEED)
        return seen


class Walker2DRandParams(RandomParameters):
    """A two-legged walker whose every mass, inertia, friction and damping has a factor of its own.

    factor = 1.5 ** u (damping: 1.3 ** u) with u ~ U[-3, 3]; a task holds all u.
    reward = velocity + 1 - 0.001 |a|^2. Terminates when the walker falls. Test tasks are other
    draws.

    Source: Rakelly et al. 2019 (`pearl`, dennisl88/rand_param_envs). Unlike it: current MuJoCo, and
    what is scaled is Gymnasium's v5 model.
    """

    MODEL: ClassVar[str] = "Walker2d-v5"

    def terminated(self) -> bool:
        """Whether it has fallen: height not in (0.8, 2), or leaning more than 1 radian."""
        _, height, angle = self.body.data.qpos[:3]
        return not (self._finite and 0.8 < height < 2.0 and abs(angle) < 1.0)


class HopperRandParams(RandomParameters):
    """A one-legged hopper whose every mass, inertia, friction and damping has its own factor.

    factor = 1.5 ** u (damping: 1.3 ** u) with u ~ U[-3, 3]; a task holds all u.
    reward = velocity + 1 - 0.001 |a|^2. Terminates when the hopper falls. Test tasks are other
    draws.

    Source: Rakelly et al. 2019 (`pearl`, dennisl88/rand_param_envs). Unlike it: current MuJoCo, and
    what is scaled is Gymnasium's v5 model.
    """

    MODEL: ClassVar[str] = "Hopper-v5"

    def terminated(self) -> bool:
        """Whether it has fallen: not higher than 0.7, or leaning more than 0.2 radians."""
        _, height, angle = self.body.data.qpos[:3]
        bounded = bool((np.abs(self.body.data.qpos[2:]) < 100).all())
        return not (self._finite and bounded and height > 0.7 and abs(angle) < 0.2)
