"""Bodies that run where they are told only by their reward: torques go in, rewards come out.

Gymnasium's own MuJoCo models (v5) under the rewards and tasks of the literature. They need the
extra `mujoco`, and are ordinary environments, stepped one by one or in workers.

Deviations that all share: current MuJoCo and the v5 models, so that returns must not be compared
with published ones; observations are those of the v5 models without contact forces, which in many
published runs were zero anyway (MuJoCo from 2.0 on, without the call that fills them in).

Sources, as their released code has them: Finn et al. 2017 (MAML, cbfinn/maml_rl), Rothfuss et al.
2019 (ProMP), Rakelly et al. 2019 (PEARL, katerakelly/oyster), Zintgraf et al. 2020 (VariBAD).
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.tasks.family import Split

Vector = NDArray[np.float64]


class Locomotion(gymnasium.Env[Vector, Any]):
    """A MuJoCo body, a task, and a reward that depends on both."""

    MODEL: ClassVar[str]
    """id of Gymnasium's environment whose body and physics are used"""
    MODEL_OPTIONS: ClassVar[Mapping[str, Any]] = {}
    SOURCES: ClassVar[tuple[str, ...]]
    """values of `source`"""
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  (Gymnasium's)
    task_space: spaces.Box
    trial_episodes = 2

    def __init__(self, source: str, render_mode: str | None = None) -> None:
        if source not in self.SOURCES:
            raise ConfigError(f"source={source!r} must be one of {', '.join(self.SOURCES)}.")
        self.source = source
        try:
            self._env = gymnasium.make(
                self.MODEL,
                render_mode=render_mode,
                disable_env_checker=True,
                **self.MODEL_OPTIONS,
            )
        except DependencyNotInstalled as error:
            raise ConfigError(
                f"{type(self).__name__} needs MuJoCo: pip install 'metarl-suite[mujoco]'. ({error})"
            ) from error
        self.body: Any = self._env.unwrapped
        self.render_mode = render_mode
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        self.task: Vector | None = None

    def sample_task(self, np_random: np.random.Generator, split: Split) -> Vector:
        """Draws a task: any in the space, unless a body says otherwise."""
        return np_random.uniform(self.task_space.low, self.task_space.high)

    @abstractmethod
    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """What a step earned; `info` holds the velocities of the body."""

    def terminated(self) -> bool:
        """Whether the body has fallen, as the model says it."""
        return False

    def set_task(self, task: Vector) -> None:
        """Lives in `task` from now on."""
        self.task = task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Vector, dict[str, Any]]:
        """Opens an episode; the task stays until another is given."""
        super().reset(seed=seed)
        given = (options or {}).get("task")
        if given is not None or self.task is None:
            drawn = self.sample_task(self.np_random, "train") if given is None else given
            self.set_task(np.array(drawn, dtype=np.float64))
        obs, info = self._env.reset(seed=seed)
        return self._seen(obs), info

    def step(self, action: Any) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """One step, of several steps of the physics."""
        action = np.asarray(action, dtype=np.float64)
        obs, _, _, _, info = self._env.step(action)
        return self._seen(obs), self.reward(action, info), self.terminated(), False, info

    def render(self) -> Any:
        """As the model does."""
        return self._env.render()

    def close(self) -> None:
        """Closes the model."""
        self._env.close()

    def _seen(self, obs: Vector) -> Vector:
        return np.array(obs, dtype=np.float64)

    @property
    def _height(self) -> float:
        return float(self.body.data.qpos[2])

    @property
    def _finite(self) -> bool:
        return bool(
            np.isfinite(self.body.data.qpos).all() and np.isfinite(self.body.data.qvel).all()
        )


class HalfCheetahVel(Locomotion):
    """A cheetah runs as fast as a target says, which is not shown.

    reward = -|v - target| - 0.05 |a|^2. The target is drawn from U[0, 2] (source `maml`) or
    U[0, 3] (`promp`, `pearl`, `varibad`), in either split: test tasks are other draws. Episodes
    never terminate.

    Sources: Finn et al. 2017 (`maml`, cbfinn/maml_rl), Rothfuss et al. 2019 (`promp`), Rakelly et
    al. 2019 (`pearl`, katerakelly/oyster), Zintgraf et al. 2020 (`varibad`). Unlike them: current
    MuJoCo and Gymnasium's v5 model, whose observation has 17 numbers (`maml` and `pearl`: 20).
    """

    MODEL = "HalfCheetah-v5"
    SOURCES = ("maml", "promp", "pearl", "varibad")

    def __init__(self, source: str = "pearl", render_mode: str | None = None) -> None:
        """Takes the body.

        Args:
            source: whose rewards and tasks, as above.
            render_mode: `rgb_array` or None.
        """
        super().__init__(source, render_mode)
        self.task_space = spaces.Box(0.0, 2.0 if source == "maml" else 3.0, (1,), np.float64)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Nearer to the target is better."""
        assert self.task is not None
        off = abs(info["x_velocity"] - self.task[0])
        return float(-off - 0.05 * np.square(action).sum())


class HalfCheetahDir(Locomotion):
    """A cheetah runs forward or backward, whichever is paid.

    reward = direction * v - 0.05 |a|^2, the direction +1 or -1 with equal chance, in both splits:
    there are only these two tasks. Episodes never terminate.

    Sources and deviations: as HalfCheetahVel; all sources agree on this task.
    """

    MODEL = "HalfCheetah-v5"
    SOURCES = ("maml", "promp", "pearl", "varibad")
    splits_share_tasks = True

    def __init__(self, source: str = "maml", render_mode: str | None = None) -> None:
        """Takes the body.

        Args:
            source: whose rewards and tasks, as above.
            render_mode: `rgb_array` or None.
        """
        super().__init__(source, render_mode)
        self.task_space = spaces.Box(-1.0, 1.0, (1,), np.float64)

    def sample_task(self, np_random: np.random.Generator, split: Split) -> Vector:
        """The direction [1]."""
        return either(np_random)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Farther in the direction is better."""
        assert self.task is not None
        return float(self.task[0] * info["x_velocity"] - 0.05 * np.square(action).sum())


class HumanoidDir(Locomotion):
    """A humanoid walks in the direction that is paid.

    reward = 0.25 * velocity along the direction - 0.1 |a|^2 - min(5e-7 |contact|^2, 10) + 5, the
    direction any angle, in either split: test tasks are other draws. Terminates when the torso is
    lower than 1 or higher than 2.

    Source: Rakelly et al. 2019 (`pearl`, katerakelly/oyster), whose task Zintgraf et al. 2020 took
    over; the version of Rothfuss et al. 2019, forward or backward, is not here. Unlike it: current
    MuJoCo and Gymnasium's v5 model, contact forces not observed.
    """

    MODEL = "Humanoid-v5"
    MODEL_OPTIONS: ClassVar[Mapping[str, Any]] = {"include_cfrc_ext_in_observation": False}
    SOURCES = ("pearl",)

    def __init__(self, source: str = "pearl", render_mode: str | None = None) -> None:
        """Takes the body.

        Args:
            source: whose rewards and tasks, as above.
            render_mode: `rgb_array` or None.
        """
        super().__init__(source, render_mode)
        self.task_space = spaces.Box(-1.0, 1.0, (2,), np.float64)

    def sample_task(self, np_random: np.random.Generator, split: Split) -> Vector:
        """The direction [2], of length 1."""
        return direction(np_random)

    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Farther in the direction is better."""
        assert self.task is not None
        along = self.task @ (info["x_velocity"], info["y_velocity"])
        contact = min(5e-7 * np.square(self.body.data.cfrc_ext).sum(), 10)
        effort = 0.1 * np.square(self.body.data.ctrl).sum()
        return float(0.25 * along - effort - contact + 5)

    def terminated(self) -> bool:
        """Whether it has fallen."""
        return not (self._finite and 1.0 <= self._height <= 2.0)


def either(np_random: np.random.Generator) -> Vector:
    """+1 or -1, [1]."""
    return np.array([2.0 * np_random.integers(2) - 1])


def direction(np_random: np.random.Generator) -> Vector:
    """A point on the unit circle [2], each angle as likely as every other."""
    angle = np_random.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])
