"""Meta-World's meta-learning benchmarks: a robot arm, whose task is which thing to do and where.

They need the extra `metaworld`, which pins an older MuJoCo than locomotion has; install it into an
environment of its own. Each is an ordinary environment, best stepped by workers.

Source: Yu et al. 2020, arXiv:1910.10897; version 3 of the package. Tasks are the benchmark's own
lists of training and test tasks. (The package's `make_vec` gives ML1's test tasks for training.)
"""

import functools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.errors import ConfigError
from metarl.registry import suggestion
from metarl.tasks.family import Split

BENCHMARKS = ("ML1", "ML10", "ML25", "ML45")
THING = "reach-v3"


class MetaWorld(gymnasium.Env[NDArray[np.float64], Any]):
    """A robot arm does one of Meta-World's things, at one of its places, neither of which is told.

    A task is a number: first the benchmark's training tasks, then its test tasks. ML1 has 50 and 50
    goals of one thing to do (`thing`, such as reach-v3); ML10, ML25 and ML45 train on 10, 25 and 45
    things with 50 goals each and test on 5 others. Rewards (0 to 10 a step) and success are the
    package's own; of the 39 numbers of an observation the three of the goal are 0; an action is
    four numbers from -1 to 1, three pushes of the hand and the grip. Two episodes make a trial,
    each is truncated after 500 steps. Nothing is random within a task. Random actions earn about
    770 in an episode of reach and solve it in 2% of them; a ceiling is not computed.

    Fifty goals are soon known by heart: `draws` adds further ones to the training tasks.

    Source: Yu et al. 2020, arXiv:1910.10897, in version 3 of the package.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012  (Gymnasium's)
    trial_episodes = 2

    def __init__(
        self,
        benchmark: str = "ML1",
        thing: str = THING,
        goals_seed: int = 1,
        draws: int = 1,
        render_mode: str | None = None,
    ) -> None:
        """Draws the benchmark's tasks, once in each process.

        Args:
            benchmark: ML1, ML10, ML25 or ML45.
            thing: what there is to do in ML1; the others know themselves.
            goals_seed: of the benchmark's tasks, from 1 on.
            draws: of training tasks. Each further one adds as many as the benchmark has, with
                goals of its own (`goals_seed` + 2, + 4, ...), and takes about a second; test tasks
                stay what they are. The benchmark itself is one draw.
            render_mode: `rgb_array` or None.
        """
        self._things, self._tasks, self._trained_on = benchmark_tasks(
            benchmark, thing, goals_seed, draws
        )
        self.render_mode = render_mode
        self.task_space = spaces.Discrete(len(self._tasks))
        self._opened: dict[str, Any] = {}
        self._task: int | None = None
        arm = self._arm(self._tasks[0].env_name)
        self.observation_space = spaces.Box(
            -np.inf, np.inf, arm.observation_space.shape, np.float64
        )
        self.action_space = arm.action_space

    def sample_task(self, np_random: np.random.Generator, split: Split) -> int:
        """A task of the split, each as likely as every other."""
        ends = (0, self._trained_on) if split == "train" else (self._trained_on, len(self._tasks))
        return int(np_random.integers(*ends))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        """Opens an episode; the task stays until another is given."""
        super().reset(seed=seed)
        given = (options or {}).get("task")
        if given is None and self._task is None:
            given = self.sample_task(self.np_random, "train")
        if given is not None and int(given) != self._task:
            self._task = int(given)
            chosen = self._tasks[self._task]
            self._arm(chosen.env_name).set_task(chosen)
        obs, _ = self._current.reset(seed=seed)
        return np.array(obs, dtype=np.float64), {}

    def step(self, action: Any) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        """One step; the package says `success` at each."""
        obs, reward, _, truncated, info = self._current.step(np.asarray(action, dtype=np.float32))
        told = {"success": bool(info["success"])}
        return np.array(obs, dtype=np.float64), float(reward), False, bool(truncated), told

    def render(self) -> Any:
        """A camera's picture."""
        return self._current.render()

    def close(self) -> None:
        """Closes all arms that were opened."""
        for arm in self._opened.values():
            arm.close()

    @property
    def _current(self) -> Any:
        assert self._task is not None
        return self._arm(self._tasks[self._task].env_name)

    def _arm(self, name: str) -> Any:
        """The environment of one thing to do, opened when it is first met."""
        if name not in self._opened:
            arm = self._things[name](render_mode=self.render_mode)
            # A newly opened arm refuses to be reset before it has a task.
            arm.set_task(next(task for task in self._tasks if task.env_name == name))
            self._opened[name] = arm
        return self._opened[name]


@functools.cache
def benchmark_tasks(
    benchmark: str, thing: str, seed: int, draws: int = 1
) -> tuple[dict[str, Any], list[Any], int]:
    """What there is to do, by name; all tasks, training first; and how many are for training.

    The package draws test tasks with the seed after that of training tasks, so further draws of
    training tasks take every second seed.

    Raises:
        ConfigError: there is no such benchmark or thing, or the package is missing.
    """
    if benchmark not in BENCHMARKS:
        raise ConfigError(f"benchmark={benchmark!r} must be one of {', '.join(BENCHMARKS)}.")
    if seed < 1:
        raise ConfigError(f"goals_seed={seed} must be at least 1: Meta-World takes 0 for none.")
    if benchmark != "ML1" and thing != THING:
        raise ConfigError(
            f"thing={thing!r} is for ML1, which has one thing to do; {benchmark} has its own."
        )
    if draws < 1:
        raise ConfigError(f"draws={draws} must be at least 1: one is the benchmark itself.")
    try:
        import metaworld
    except ImportError as error:
        raise ConfigError(
            "Meta-World is not installed. Install this library with its extra `metaworld`, in a "
            "clone: pip install '.[metaworld]', into an environment without the extra `mujoco`. "
            f"({error})"
        ) from error
    if benchmark == "ML1":
        known = list(metaworld.ML1.ENV_NAMES)
        if thing not in known:
            raise ConfigError(
                f"thing={thing!r} is not among what Meta-World can do.{suggestion(thing, known)} "
                f"Known: {', '.join(known)}."
            )
    kind: Any = getattr(metaworld, benchmark)
    arguments = (thing,) if benchmark == "ML1" else ()
    first, *further = (kind(*arguments, seed=seed + 2 * draw) for draw in range(draws))
    training = [*first.train_tasks, *(task for made in further for task in made.train_tasks)]
    things = {**first.train_classes, **first.test_classes}
    return things, [*training, *first.test_tasks], len(training)
