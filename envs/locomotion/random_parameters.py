"""Bodies whose masses, inertias, dampings and frictions vary between tasks.

Axes: `P` scaled parameters of the model.

Source: the environments of PEARL (Rakelly et al. 2019, arXiv:1903.08254), as in
dennisl88/rand_param_envs.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.locomotion.base import Locomotion, Vector
from metarl.new_tasks import NewTask

SCALES = {"body_mass": 1.5, "body_inertia": 1.5, "geom_friction": 1.5, "dof_damping": 1.3}
"""arrays of the model, and the base of their scale factors"""
MAX_EXPONENT = 3.0
"""exponents are drawn from [-3, 3]"""
FOLLOWS_BODY = 1
"""mode of a camera, `mjCAMLIGHT_TRACK` of MuJoCo"""
MAX_SPEED = 10.0
"""observed velocities are clipped to this"""


class RandomParameters(Locomotion):
    """A body with a random scale factor for every mass, inertia, friction and damping.

    factor = 1.5 ** u (damping: 1.3 ** u) with u ~ U[-3, 3]; a task holds all u, [P].
    reward = velocity + 1 - 0.001 |a|^2. Terminates when the body falls. Unlike the source, it
    scales the parameters of Gymnasium's v5 models.
    """

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
        self._original: Mapping[str, NDArray[np.float64]] = {
            name: np.array(getattr(self.mujoco_env.model, name)) for name in SCALES
        }
        size = sum(array.size for array in self._original.values())
        self.task_space = spaces.Box(-MAX_EXPONENT, MAX_EXPONENT, (size,), np.float64)

    def set_task(self, task: Vector) -> None:
        """Sets the task and scales the model."""
        super().set_task(task)
        start = 0
        for name, original in self._original.items():
            exponents = task[start : start + original.size].reshape(original.shape)
            getattr(self.mujoco_env.model, name)[:] = original * SCALES[name] ** exponents
            start += original.size
        # Not after the centre of mass, which MuJoCo finds by the masses of the unscaled model.
        camera = self.mujoco_env.mujoco_renderer.camera_id
        self.mujoco_env.model.cam_mode[camera] = FOLLOWS_BODY

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Higher at larger velocity."""
        return float(info["x_velocity"] + 1 - 1e-3 * np.square(action).sum())

    def _observation(self, obs: Vector) -> Vector:
        velocities = self.mujoco_env.model.nv
        clipped = np.array(obs, dtype=np.float64)
        clipped[-velocities:] = np.clip(clipped[-velocities:], -MAX_SPEED, MAX_SPEED)
        return clipped


class Walker2DRandParams(RandomParameters):
    """A two-legged walker with a random scale factor for every mass, inertia, friction and damping.

    factor = 1.5 ** u (damping: 1.3 ** u) with u ~ U[-3, 3]; a task holds all u.
    reward = velocity + 1 - 0.001 |a|^2. Terminates when the walker falls. Test tasks are new
    draws.

    Source: Rakelly et al. 2019 (`pearl`, dennisl88/rand_param_envs). Unlike it: current MuJoCo, and
    the scaled model is Gymnasium's v5 model.
    """

    MODEL: ClassVar[str] = "Walker2d-v5"

    def terminated(self) -> bool:
        """Whether the walker has fallen: height not in (0.8, 2), or tilt of 1 radian or more."""
        _, height, angle = self.mujoco_env.data.qpos[:3]
        return not (self._finite and 0.8 < height < 2.0 and abs(angle) < 1.0)


class HopperRandParams(RandomParameters):
    """A one-legged hopper with a random scale factor for every mass, inertia, friction and damping.

    factor = 1.5 ** u (damping: 1.3 ** u) with u ~ U[-3, 3]; a task holds all u.
    reward = velocity + 1 - 0.001 |a|^2. Terminates when the hopper falls. Test tasks are new
    draws.

    Source: Rakelly et al. 2019 (`pearl`, dennisl88/rand_param_envs). Unlike it: current MuJoCo, and
    the scaled model is Gymnasium's v5 model.
    """

    MODEL: ClassVar[str] = "Hopper-v5"

    def terminated(self) -> bool:
        """Whether the hopper has fallen: height at most 0.7, or tilt of 0.2 radians or more."""
        _, height, angle = self.mujoco_env.data.qpos[:3]
        bounded = bool((np.abs(self.mujoco_env.data.qpos[2:]) < 100).all())
        return not (self._finite and bounded and height > 0.7 and abs(angle) < 0.2)
