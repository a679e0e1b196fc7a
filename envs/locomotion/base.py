"""Base class of the locomotion environments: a Gymnasium MuJoCo model with a task and its reward.

The bodies are Gymnasium's MuJoCo models (v5), with rewards and tasks from the literature. They need
the extra `mujoco` and are ordinary environments, stepped one by one or in worker processes.

All differ from their sources in two ways. They use current MuJoCo and the v5 models, so returns are
not comparable with published ones. Observations are those of the v5 models without contact forces,
which were zero in many published runs (MuJoCo from 2.0 on, without the call that computes them).

Sources, as in their released code: Finn et al. 2017 (MAML, cbfinn/maml_rl), Rothfuss et al. 2019
(ProMP), Rakelly et al. 2019 (PEARL, katerakelly/oyster), Zintgraf et al. 2020 (VariBAD).
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled
from numpy.typing import NDArray

from metarl.errors import ConfigError, MissingPackageError
from metarl.new_tasks import NewTask, NewTasks
from metarl.split import Split

Vector = NDArray[np.float64]
CAMERA = "track"
"""camera of all models that keeps the body in view; Gymnasium's own choice depends on its version,
and stays where it is from 1.4 on"""
SIMULATION = "simulation"
"""key of MuJoCo's data and Gymnasium's generator in a copied body"""


class Locomotion(gymnasium.Env[Vector, Any]):
    """A MuJoCo body with a task, and a reward that depends on both."""

    MODEL: ClassVar[str]
    """id of the Gymnasium environment that provides the body and its physics"""
    MODEL_OPTIONS: ClassVar[Mapping[str, Any]] = {}
    SOURCES: ClassVar[tuple[str, ...]]
    """values of `source`"""
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012  (Gymnasium's)
    task_space: spaces.Box
    trial_episodes = 2

    def __init__(
        self,
        source: str,
        render_mode: str | None = None,
        new_task: NewTask | None = None,
    ) -> None:
        if source not in self.SOURCES:
            raise ConfigError(f"source={source!r} must be one of {', '.join(self.SOURCES)}.")
        self.source = source
        try:
            self._env = gymnasium.make(
                self.MODEL,
                render_mode=render_mode,
                disable_env_checker=True,
                camera_name=CAMERA,
                **self.MODEL_OPTIONS,
            )
        except DependencyNotInstalled as error:
            raise MissingPackageError(
                f"{type(self).__name__} needs MuJoCo: pip install 'metarl-suite[mujoco]'. ({error})"
            ) from error
        self.mujoco_env: Any = self._env.unwrapped
        self.render_mode = render_mode
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        self.task: Vector | None = None
        self._new_tasks = NewTasks(new_task or "episode", self.trial_episodes)

    def sample_task(self, np_random: np.random.Generator, split: Split = "train") -> Vector:
        """Draws a task; uniform in the task space unless a subclass overrides it."""
        return np_random.uniform(self.task_space.low, self.task_space.high)

    @abstractmethod
    def reward(self, action: Vector, info: Mapping[str, Any]) -> float:
        """Reward of the latest step; `info` holds the velocities of the body."""

    def terminated(self) -> bool:
        """Whether the episode terminates in the current state, such as after a fall."""
        return False

    def set_task(self, task: Vector) -> None:
        """Sets the task of all following steps."""
        self.task = task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Vector, dict[str, Any]]:
        """Starts an episode; a given task stays until `options` give another."""
        super().reset(seed=seed)
        given = (options or {}).get("task")
        if self._new_tasks.needs_task(given is not None, seed is not None):
            task = self.sample_task(self.np_random, "train") if given is None else given
            self.set_task(np.array(task, dtype=np.float64))
        obs, info = self._env.reset(seed=seed)
        return self._observation(obs), info

    def step(self, action: Any) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """One environment step, which is several steps of the simulation."""
        action = np.asarray(action, dtype=np.float64)
        obs, _, _, _, info = self._env.step(action)
        return self._observation(obs), self.reward(action, info), self.terminated(), False, info

    def __getstate__(self) -> dict[str, Any]:
        """All attributes, and what Gymnasium's models leave out: the state of the simulation."""
        env = self.mujoco_env
        return {**self.__dict__, SIMULATION: (env.data, env.np_random, env.np_random_seed)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy steps as the original does."""
        import mujoco  # NOTE: an extra, which is installed where a body exists

        data, generator, seed = state.pop(SIMULATION)
        self.__dict__.update(state)
        if self.task is not None:
            self.set_task(self.task)
        mujoco.mj_copyData(self.mujoco_env.data, self.mujoco_env.model, data)
        self.mujoco_env.np_random, self.mujoco_env._np_random_seed = generator, seed

    def render(self) -> Any:
        """A frame of the model."""
        return self._env.render()

    def close(self) -> None:
        """Closes the model."""
        self._env.close()

    def _observation(self, obs: Vector) -> Vector:
        return np.array(obs, dtype=np.float64)

    @property
    def _height(self) -> float:
        return float(self.mujoco_env.data.qpos[2])

    @property
    def _finite(self) -> bool:
        data = self.mujoco_env.data
        return bool(np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all())


def random_sign(np_random: np.random.Generator) -> Vector:
    """+1 or -1 with equal probability, [1]."""
    return np.array([2.0 * np_random.integers(2) - 1])


def random_direction(np_random: np.random.Generator) -> Vector:
    """A uniformly random point on the unit circle, [2]."""
    angle = np_random.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])
