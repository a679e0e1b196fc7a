"""What a task environment is examined with: lives that are lived twice, and findings about them.

The environment is seen through Gymnasium, as anybody sees it. Everything is repeatable: equal
seeds are equal examinations, and Python's, NumPy's and torch's global generators are left as they
were.

Axes: `N` tasks, `D` observation, `F` numbers that tell a task.
"""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from textwrap import shorten
from typing import Any, Literal, NamedTuple, TypeAlias

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.bridges.gym_family import EnvFamily
from metarl.bridges.task_env import TaskEnv
from metarl.errors import TaskContractError
from metarl.rollout import collect
from metarl.seeding import Seeds
from metarl.tasks.family import Split, TaskDistribution, TaskFamily, draw_tasks

MOST_TASKS = 4
"""tasks that are lived in"""
FEWEST_STEPS, MOST_STEPS = 24, 100
"""of a life; shorter episodes follow each other"""
MOST_SEARCHED = 20_000
"""steps spent in search of an effect of the task"""

Verdict: TypeAlias = Literal["ok", "noted", "broken", "unknown"]
"""`noted`: kept, but something is worth knowing; `unknown`: another promise stands in the way"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found about one promise."""

    name: str
    """of the promise"""
    promised: str
    """the promise, as a sentence"""
    verdict: Verdict
    """whether it is kept"""
    seen: str = ""
    """what was seen, unless it is simply kept"""
    why: str = ""
    """of a broken promise: why it matters where adaptation is measured"""
    mend: str = ""
    """of a broken promise: what to do"""


class BrokenPromiseError(Exception):
    """Raised by what examines a promise that is not kept; the message says what was seen."""

    def __init__(self, seen: str, mend: str | None = None) -> None:
        """`mend` replaces the promise's own advice."""
        super().__init__(seen)
        self.mend = mend


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One promise, and how it is examined."""

    name: str
    promised: str
    why: str
    mend: str
    check: Callable[["Subject"], str | None]
    """gives a note, or raises `BrokenPromiseError`"""
    needs: tuple[str, ...]
    """promises without which this one cannot be examined"""

    def examine(self, subject: "Subject", before: Sequence[Finding]) -> Finding:
        """The finding, given those about the promises before."""
        missing = [f for f in before if f.name in self.needs and f.verdict in ("broken", "unknown")]
        if missing:
            return self._found("unknown", f"not examined: first mend '{missing[0].name}'")
        try:
            with global_generators(0):
                note = self.check(subject)
        except BrokenPromiseError as broken:
            return self._found("broken", str(broken), self.why, broken.mend or self.mend)
        except Exception as error:  # whatever a user's environment may raise
            return self._found("broken", f"it raised {told(error)}", self.why, self.mend)
        return self._found("noted" if note else "ok", note or "")

    def _found(self, verdict: Verdict, seen: str, why: str = "", mend: str = "") -> Finding:
        return Finding(
            name=self.name, promised=self.promised, verdict=verdict, seen=seen, why=why, mend=mend
        )


def promise(
    promised: str, *, why: str, mend: str, needs: Sequence[str] = ()
) -> Callable[[Callable[["Subject"], str | None]], Promise]:
    """Makes a promise of the function that examines it, and takes its name from it."""

    def make(check: Callable[["Subject"], str | None]) -> Promise:
        name = check.__name__.replace("_", " ")
        return Promise(
            name=name, promised=promised, why=why, mend=mend, check=check, needs=tuple(needs)
        )

    return make


class Moment(NamedTuple):
    """What an opening or a step brought."""

    obs: NDArray[np.float64]  # [D]
    reward: NDArray[np.float64]  # [1] where it is a number
    ended: tuple[bool, bool]  # terminated, truncated

    def __str__(self) -> str:
        return f"observation {_short(self.obs)}, reward {_short(self.reward)}, ended {self.ended}"


Life: TypeAlias = list[Moment]
"""openings included"""


class Subject:
    """The environment under examination: its tasks, and lives in them."""

    def __init__(self, family: TaskDistribution, *, workers: int, seed: int) -> None:
        """Makes nothing yet.

        Args:
            family: the tasks; `EnvFamily` or `TaskFamily`.
            workers: processes to try; 0 tries none.
            seed: of the tasks and of everything else that is drawn.
        """
        self.family, self.workers, self.seed = family, workers, seed

    def make(self) -> gymnasium.Env[Any, Any]:
        """A fresh environment with all options."""
        if isinstance(self.family, EnvFamily):
            return self.family.make_env()
        assert isinstance(self.family, TaskFamily)
        return TaskEnv(type(self.family), **asdict(self.family))  # type: ignore[call-overload]

    def drawn(self, num_tasks: int, split: Split) -> torch.Tensor:
        """Tasks [N, ...] of a split; each split has a stream of its own."""
        return draw_tasks(self.family, num_tasks, Seeds(self.seed).torch(split), split)

    @cached_property
    def rows(self) -> torch.Tensor:
        """Up to `MOST_TASKS` different tasks [N, ...], of both splits."""
        drawn = [self.drawn(32, split) for split in ("train", "test")]
        mixed = torch.stack(drawn, 1).flatten(0, 1)
        different = {tuple(row.reshape(-1).tolist()): row for row in mixed}
        return torch.stack(list(different.values())[:MOST_TASKS])

    @cached_property
    def tasks(self) -> list[Any]:
        """The same as the environment takes them."""
        if isinstance(self.family, EnvFamily):
            return self.family.own_tasks(self.rows)
        return list(self.rows.numpy())

    @cached_property
    def limit(self) -> int | None:
        """The declared time limit, if there is one."""
        try:
            return self.family.episode_steps
        except TaskContractError:
            return None

    @cached_property
    def life_steps(self) -> int:
        """Steps of a life: a whole episode, or several, but not too many."""
        return min(max(self.limit or MOST_STEPS, FEWEST_STEPS), MOST_STEPS)

    def actions(self, number: int) -> list[Any]:
        """A plan for a life: drawn anew at each step, or held for the whole life, or for a while.

        Only who holds a direction gets anywhere in places where random moves cancel.
        """
        space = copy.deepcopy(self.make().action_space)
        space.seed(self.seed + number)
        held = (1, self.life_steps, 5)[number % 3]
        chosen: list[Any] = []
        while len(chosen) < self.life_steps:
            chosen += [space.sample()] * held
        return chosen[: self.life_steps]

    def live(
        self,
        actions: Sequence[Any],
        *,
        task: Any = None,
        seed: int | None = None,
        env: gymnasium.Env[Any, Any] | None = None,
    ) -> Life:
        """Opens an episode and takes the actions; where an episode ends the next is opened."""
        fresh = env or self.make()
        with global_generators(0):
            lived = live(fresh, actions, task=task, seed=seed)
        if env is None:
            fresh.close()
        return lived

    @cached_property
    def is_random(self) -> bool:
        """Whether other seeds are other lives."""
        actions = self.actions(0)
        lives = [self.live(actions, task=self.tasks[0], seed=seed) for seed in range(8)]
        return any(difference(lives[0], life) for life in lives[1:])

    @cached_property
    def telling_actions(self) -> list[Any] | None:
        """Actions whose outcome depends on the task, if such were found."""
        searched, number = 0, 0
        while searched < MOST_SEARCHED:
            actions = self.actions(number)
            if self._tell(actions, seed=number):
                return actions
            searched += len(self.tasks) * len(actions)
            number += 1
        return next((a for a in self._plans_of_ceilings() if self._tell(a, seed=0)), None)

    def _tell(self, actions: Sequence[Any], seed: int) -> bool:
        first = self.live(actions, task=self.tasks[0], seed=seed)
        return any(
            difference(first, self.live(actions, task=task, seed=seed)) for task in self.tasks[1:]
        )

    def _plans_of_ceilings(self) -> Iterator[list[Any]]:
        """What those do who know the first task, where the family has such."""
        for reference in self.family.references(1).values():
            if reference.role == "ceiling":
                policy = reference.build(self.rows[:1])
                lived = collect(self.family, self.rows[:1], policy, episodes=1, seeds=Seeds(0))
                yield list(lived.action[:, 0, 0].numpy())


def live(
    env: gymnasium.Env[Any, Any], actions: Sequence[Any], *, task: Any = None, seed: int | None
) -> Life:
    """Opens an episode, in `task` if there is one, and takes the actions."""
    options = {} if task is None else {"task": copy.deepcopy(task)}
    obs, _ = env.reset(seed=seed, options=options)
    lived = [moment(env, obs, 0.0, False, False)]
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(copy.deepcopy(action))
        lived.append(moment(env, obs, reward, terminated, truncated))
        if terminated or truncated:
            obs, _ = env.reset()
            lived.append(moment(env, obs, 0.0, False, False))
    return lived


def moment(
    env: gymnasium.Env[Any, Any], obs: Any, reward: Any, terminated: Any, truncated: Any
) -> Moment:
    """All of it copied and flattened."""
    flat = np.array(spaces.flatten(env.observation_space, obs), dtype=np.float64).reshape(-1)
    number = np.array(reward, dtype=np.float64).reshape(-1)
    return Moment(flat, number, (bool(terminated), bool(truncated)))


def difference(one: Life, two: Life) -> str | None:
    """The first difference of two lives, in words; None if they are equal in every number."""
    for step, (a, b) in enumerate(zip(one, two, strict=False)):
        same = a.ended == b.ended and _equal(a.obs, b.obs) and _equal(a.reward, b.reward)
        if not same:
            return f"moment {step} (the opening is 0) was: {a}; and then: {b}"
    return None if len(one) == len(two) else "one went on longer"


@contextmanager
def global_generators(seed: int) -> Iterator[None]:
    """Within it the global generators start from `seed`; afterwards they are as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def told(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def shown(task: Any) -> str:
    """A task as one would type it."""
    if isinstance(task, dict):
        return "{" + ", ".join(f"{name!r}: {shown(part)}" for name, part in task.items()) + "}"
    return shorten(repr(task.tolist() if isinstance(task, np.ndarray | np.generic) else task), 100)


def _equal(one: NDArray[Any], two: NDArray[Any]) -> bool:
    return np.array_equal(one, two, equal_nan=True)


def _short(values: NDArray[np.float64]) -> str:
    shown = [f"{value:.6g}" for value in values[:6]]
    return f"[{', '.join(shown)}{', ...' if len(values) > 6 else ''}]"
