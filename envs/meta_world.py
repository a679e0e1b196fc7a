"""Meta-World's meta-learning benchmarks: a robot arm whose task is a manipulation skill and a goal.

They need the extra `metaworld`, which pins an older MuJoCo than locomotion uses; install it into a
separate virtual environment. Each is an ordinary environment, best stepped by worker processes.

Source: Yu et al. 2020, arXiv:1910.10897; version 3 of the package. Tasks are the benchmark's lists
of training and test tasks. (The package's `make_vec` uses ML1's test tasks for training.)
"""

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.errors import ConfigError, MissingPackageError
from metarl.field_types import suggestion
from metarl.new_tasks import NewTask, NewTasks
from metarl.split import Split

BENCHMARKS = ("ML1", "ML10", "ML25", "ML45")
DEFAULT_THING = "reach-v3"
"""default skill of ML1"""


class MetaWorld(gymnasium.Env[NDArray[np.float64], Any]):
    """A robot arm performs one of Meta-World's skills for one goal; both are hidden.

    A task is an index into the benchmark's training tasks, followed by its test tasks. ML1 has 50
    training and 50 test goals of one skill (`thing`, such as reach-v3); ML10, ML25 and ML45 train
    on 10, 25 and 45 skills with 50 goals each and test on 5 others. Rewards (0 to 10 per step) and
    success come from the package. An observation has 39 numbers, of which the three of the goal are
    0. An action has four numbers from -1 to 1: three forces on the hand, and the gripper. A trial
    has two episodes, each truncated after 500 steps. Tasks are deterministic. Random actions earn
    about 770 per episode of reach and solve 2% of the episodes; no ceiling is computed.

    Agents soon memorise 50 goals: `draws` adds further ones to the training tasks.

    Source: Yu et al. 2020, arXiv:1910.10897, in version 3 of the package.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012  (Gymnasium's)
    trial_episodes = 2

    def __init__(
        self,
        benchmark: str = "ML1",
        thing: str = DEFAULT_THING,
        goals_seed: int = 1,
        draws: int = 1,
        render_mode: str | None = None,
        new_task: NewTask | None = None,
    ) -> None:
        """Draws the benchmark's tasks, once per process.

        Args:
            benchmark: ML1, ML10, ML25 or ML45.
            thing: skill of ML1; the other benchmarks define theirs.
            goals_seed: seed of the benchmark's tasks, at least 1.
            draws: number of draws of training tasks; the benchmark itself is one. Each further
                draw adds as many training tasks, with new goals (seeds `goals_seed` + 2, + 4, ...),
                and takes about a second. Test tasks do not change.
            render_mode: `rgb_array` or None.
            new_task: when a task is drawn where none is given; None means "episode".
        """
        self._env_classes, self._tasks, self._trained_on = benchmark_tasks(
            benchmark, thing, goals_seed, draws
        )
        self.render_mode = render_mode
        self.task_space = spaces.Discrete(len(self._tasks))
        self._envs: dict[str, Any] = {}
        self._task: int | None = None
        self._new_tasks = NewTasks(new_task or "episode", self.trial_episodes)
        env = self._env_of(self._tasks[0].env_name)
        self.observation_space = spaces.Box(
            -np.inf, np.inf, env.observation_space.shape, np.float64
        )
        self.action_space = env.action_space

    @property
    def task(self) -> int | None:
        """The current task; None before the first reset."""
        return self._task

    def sample_task(self, np_random: np.random.Generator, split: Split = "train") -> int:
        """A uniformly random task of the split."""
        bounds = (0, self._trained_on) if split == "train" else (self._trained_on, len(self._tasks))
        return int(np_random.integers(*bounds))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Starts an episode; a given task stays until `options` give another."""
        super().reset(seed=seed)
        given = (options or {}).get("task")
        if self._new_tasks.needs_task(given is not None, seed is not None) and given is None:
            given = self.sample_task(self.np_random, "train")
        if given is not None and int(given) != self._task:
            self._task = int(given)
            task = self._tasks[self._task]
            self._env_of(task.env_name).set_task(task)
        obs, _ = self._current.reset(seed=seed)
        return np.array(obs, dtype=np.float64), {}

    def step(self, action: Any) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """One step; `info` holds the package's `success`."""
        obs, reward, _, truncated, info = self._current.step(np.asarray(action, dtype=np.float32))
        # An array of no axes, because readers of infos look for a dtype.
        success = {"success": np.array(bool(info["success"]))}
        return np.array(obs, dtype=np.float64), float(reward), False, bool(truncated), success

    def render(self) -> Any:
        """A camera image."""
        return self._current.render()

    def close(self) -> None:
        """Closes all environments created so far."""
        for env in self._envs.values():
            env.close()

    @property
    def _current(self) -> Any:
        assert self._task is not None
        return self._env_of(self._tasks[self._task].env_name)

    def _env_of(self, skill: str) -> Any:
        """The package's environment of a skill, created on first use."""
        if skill not in self._envs:
            env = self._env_classes[skill](render_mode=self.render_mode)
            # A new environment cannot be reset before it has a task.
            env.set_task(next(task for task in self._tasks if task.env_name == skill))
            self._envs[skill] = env
        return self._envs[skill]


@functools.cache
def benchmark_tasks(
    benchmark: str, thing: str, seed: int, draws: int = 1
) -> tuple[dict[str, Any], list[Any], int]:
    """Environment classes by skill; all tasks, training tasks first; the number of training tasks.

    The package draws test tasks with the seed after that of the training tasks, so further draws of
    training tasks use every second seed.

    Raises:
        ConfigError: the benchmark or skill is unknown, or the package is missing.
    """
    if benchmark not in BENCHMARKS:
        raise ConfigError(f"benchmark={benchmark!r} must be one of {', '.join(BENCHMARKS)}.")
    if seed < 1:
        raise ConfigError(f"goals_seed={seed} must be at least 1: Meta-World treats 0 as no seed.")
    if benchmark != "ML1" and thing != DEFAULT_THING:
        raise ConfigError(f"thing={thing!r} applies to ML1 only; {benchmark} has its own skills.")
    if draws < 1:
        raise ConfigError(
            f"draws={draws} must be at least 1: the first draw is the benchmark itself."
        )
    try:
        import metaworld
    except ImportError as error:
        raise MissingPackageError(
            "Meta-World is not installed. In a clone of this library: pip install '.[metaworld]', "
            "into a virtual environment without the extra `mujoco`. "
            f"({error})"
        ) from error
    if benchmark == "ML1":
        known = list(metaworld.ML1.ENV_NAMES)
        if thing not in known:
            raise ConfigError(
                f"thing={thing!r} is not a skill of Meta-World.{suggestion(thing, known)} "
                f"Known: {', '.join(known)}."
            )
    benchmark_class: Any = getattr(metaworld, benchmark)
    arguments = (thing,) if benchmark == "ML1" else ()
    first, *further = (benchmark_class(*arguments, seed=seed + 2 * draw) for draw in range(draws))
    training = [*first.train_tasks, *(task for draw in further for task in draw.train_tasks)]
    env_classes = {**first.train_classes, **first.test_classes}
    return env_classes, [*training, *first.test_tasks], len(training)
