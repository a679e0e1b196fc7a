"""What is promised about tasks: an environment goes in, the promises kept and broken come out.

Axes: `N` tasks, `S` steps, `D` observation, `F` numbers that tell a task.
"""

import copy
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.bridges.gym_family import EnvFamily
from metarl.checks.framework import (
    BrokenPromiseError,
    Subject,
    difference,
    moment,
    promise,
    shown,
    told,
)
from metarl.errors import MetaRLError

DRAWN = 500
"""tasks of each split that are compared"""
COINCIDENCES = 2
"""so many test tasks among the training tasks are no accident, even of numbers in float32"""
FEWEST_VALUES = 3
"""a component that equals the task in fewer different tasks may do so by accident"""
LATER_STEPS = 4
"""steps over which a component must stay what it is, if it is to be the task"""

OPENS = "it opens and steps"
SEEDS = "seeds decide"
OWN_LUCK = "no global randomness"
PLAIN = "numbers are plain"


@promise(
    "There is a task_space, and sampled tasks lie in it.",
    why="An agent that learns to adapt is trained on many tasks, drawn from here.",
    mend="Give the environment a Gymnasium space `task_space` of fixed size and, if the space's "
    "own sample() will not do, a method sample_task(np_random, split).",
)
def task_space(subject: Subject) -> str | None:
    """Draws tasks of both splits; what float32 rounds over a bound is put back."""
    try:
        subject.family.task_space  # noqa: B018
        subject.drawn(DRAWN, "train"), subject.drawn(DRAWN, "test")
        tasks = subject.tasks
    except MetaRLError as error:
        raise BrokenPromiseError(str(error)) from error
    space = (
        subject.family.own_task_space
        if isinstance(subject.family, EnvFamily)
        else subject.family.task_space
    )
    for task in tasks:
        if not space.contains(task):
            raise BrokenPromiseError(f"The task {shown(task)} is not in {space}.")
    return None


@promise(
    "Observations are of fixed size, actions Discrete or a Box of floats.",
    why="All lanes are stepped together and read by one network.",
    mend="Wrap the environment, for example with gymnasium.wrappers.",
)
def spaces_of_a_network(subject: Subject) -> str | None:
    """Asks for the spaces that the engine would work with."""
    try:
        subject.family.observation_space  # noqa: B018
        subject.family.action_space  # noqa: B018
    except MetaRLError as error:
        raise BrokenPromiseError(str(error)) from error
    return None


@promise(
    "reset(seed=..., options={'task': ...}) opens an episode, and step goes on.",
    why="This is how the engine puts a lane into its task.",
    mend="def reset(self, *, seed=None, options=None): super().reset(seed=seed); take "
    "(options or {}).get('task') if it is there; return observation, {}. step(action) returns "
    "observation, reward, terminated, truncated, {}.",
    needs=["task space", "batched types", "spaces of a network"],
)
def it_opens_and_steps(subject: Subject) -> str | None:
    """Lives a few steps in every task."""
    for task in subject.tasks:
        try:
            subject.live(subject.actions(0)[:3], task=task, seed=0)
        except Exception as error:
            raise BrokenPromiseError(f"In task {shown(task)} it raised {told(error)}") from error
    return None


@promise(
    "The task given to reset() is lived in at once, whatever was lived before.",
    why="Lanes are used again for other tasks: what is left of an earlier task makes the later "
    "one another than it is called.",
    mend="Let reset() compute everything that depends on the task from the task alone, before it "
    "draws the opening state.",
    needs=[OPENS, SEEDS],
)
def task_is_taken(subject: Subject) -> str | None:
    """Compares with a fresh environment after lives in other tasks, under equal seeds."""
    actions = subject.telling_actions or subject.actions(0)
    for seed, task in enumerate(subject.tasks):
        env = subject.make()
        for earlier in (task, subject.tasks[seed - 1]):
            subject.live(actions, env=env, task=earlier, seed=100)
        used = subject.live(actions, env=env, task=task, seed=seed)
        if found := difference(subject.live(actions, task=task, seed=seed), used):
            raise BrokenPromiseError(
                f"The life in task {shown(task)} differs between a fresh environment and one that "
                f"had lived in others before: {found}."
            )
    return None


@promise(
    "The task stays over resets, seeded ones included, until another is given.",
    why="A trial is several episodes in one task. Where each has a task of its own there is "
    "nothing to adapt to, and a curve of adaptation shows noise.",
    mend="Keep the task in an attribute that reset() changes only where options hold a 'task'; "
    "draw one only if there has never been one, and draw nothing to set one.",
    needs=[OPENS, SEEDS],
)
def task_stays(subject: Subject) -> str | None:
    """Compares later lives with those of a fresh environment that is given the task again."""
    actions = subject.telling_actions or subject.actions(0)
    for seed, task in enumerate(subject.tasks):
        env = subject.make()
        subject.live(actions, env=env, task=task, seed=100)
        env.reset()
        later = subject.live(actions, env=env, seed=seed)
        if found := difference(subject.live(actions, task=task, seed=seed), later):
            raise BrokenPromiseError(
                f"After reset(seed={seed}) without a task the life was no longer that of task "
                f"{shown(task)}: {found}."
            )
        again, silent = subject.make(), subject.make()
        for one in (again, silent):
            subject.live(actions, env=one, task=task, seed=seed)
        told_again = subject.live(actions, env=again, task=task)
        if found := difference(told_again, subject.live(actions, env=silent)):
            raise BrokenPromiseError(
                "After reset() the life was not the one after "
                f"reset(options={{'task': {shown(task)}}}) with the same task again: {found}."
            )
    return None


@promise(
    "The task makes a difference to rewards or observations.",
    why="Where all tasks are the same an agent that adapts is no better than one that does not, "
    "and nobody sees why.",
    mend="Use the task that reset() was given: set the numbers that reward and dynamics are "
    "computed from, and what depends on these (an inertia after a new mass).",
    needs=[OPENS, SEEDS],
)
def task_matters(subject: Subject) -> str | None:
    """Looks for two tasks whose lives differ under equal seeds and actions.

    Random actions and held ones are tried, then those of the family's ceilings. A reward that
    none of these find is taken for missing.
    """
    if len(subject.tasks) == 1:
        raise BrokenPromiseError(
            f"Every task drawn was {shown(subject.tasks[0])}.", "Let sample_task draw many tasks."
        )
    if subject.telling_actions is None:
        raise BrokenPromiseError(
            f"Lives in {len(subject.tasks)} tasks were equal in every number under equal seeds and "
            "actions, random and held; the first two tasks are "
            f"{shown(subject.tasks[0])} and {shown(subject.tasks[1])}."
        )
    return None


@promise(
    "The observation does not show the task, or task_is_observable is declared.",
    why="Where the task can be read off, nothing need be found out: agents that do not adapt "
    "score as well as those that do.",
    mend="Leave the task out of the observation, and draw the opening state without it; or "
    "declare task_is_observable = True, if that is what you want to measure.",
    needs=[OPENS, SEEDS],
)
def task_is_hidden(subject: Subject) -> str | None:
    """Compares openings of different tasks under equal seeds, and components with the task.

    A component that shows one of the task's numbers as it is, and stays, is found later in the
    episode too. What is not found: the task in other units, in noise or in parts, once the episode
    has begun; there transitions may differ between tasks by right.
    """
    if subject.family.task_is_observable:
        return "declared as observable"
    for seed in range(3):
        openings = [subject.live([], task=task, seed=seed)[0].obs for task in subject.tasks]
        for task, obs in zip(subject.tasks[1:], openings[1:], strict=True):
            if not np.array_equal(openings[0], obs, equal_nan=True):
                raise BrokenPromiseError(
                    f"Under equal seeds the first observation is {shown(openings[0])} in task "
                    f"{shown(subject.tasks[0])} and {shown(obs)} in task {shown(task)}."
                )
    flat = subject.rows.reshape(len(subject.rows), -1).numpy().astype(np.float64)
    for component, number in _showing(_later_observations(subject), flat):
        raise BrokenPromiseError(
            f"After the first step, component {component} of the flattened observation is number "
            f"{number} of the task, in every task."
        )
    return None


def _later_observations(subject: Subject) -> NDArray[np.float64]:
    """Observations [N, S, D] after the first steps, as far as all episodes last."""
    actions, lives = subject.actions(0)[:LATER_STEPS], []
    for task in subject.tasks:
        env, seen = subject.make(), []
        env.reset(seed=0, options={"task": copy.deepcopy(task)})
        for action in actions:
            obs, _, terminated, truncated, _ = env.step(action)
            seen.append(moment(env, obs, 0.0, terminated, truncated).obs)
            if terminated or truncated:
                break
        lives.append(seen)
    steps = min(map(len, lives))
    return np.array([seen[:steps] for seen in lives])


def _showing(obs: NDArray[np.float64], tasks: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (d, f) such that component d of [N, S, D] always is number f of the tasks [N, F]."""
    if obs.shape[1] < 2:  # one step need not be a constant
        return []
    equal = np.isclose(obs[:, :, :, None], tasks[:, None, None, :], rtol=1e-5, atol=1e-8)
    values = [len(np.unique(column)) for column in tasks.T]
    pairs = np.argwhere(equal.all((0, 1)))
    return [(int(d), int(f)) for d, f in pairs if values[f] >= FEWEST_VALUES]


@promise(
    "Test tasks are not met in training, or splits_share_tasks is declared.",
    why="On tasks that it has been trained on an agent need not adapt but only recognise them: "
    "what is measured is memory, not adaptation to something new.",
    mend="Give the environment a method sample_task(np_random, split) that draws other tasks "
    "where split is 'test' than where it is 'train'; or declare splits_share_tasks = True, if the "
    "tasks are so few by design.",
    needs=["task space"],
)
def splits_are_disjoint(subject: Subject) -> str | None:
    """Looks for tasks that were drawn in both splits; needs no environment."""
    if subject.family.splits_share_tasks:
        return "declared as shared by both splits"
    train, test = (
        [tuple(row.reshape(-1).tolist()) for row in subject.drawn(DRAWN, split)]
        for split in ("train", "test")
    )
    known = set(train)
    shared = [task for task in test if task in known]
    if len(shared) < COINCIDENCES:
        return None
    example: Any = shared[0] if len(shared[0]) > 1 else shared[0][0]
    reason = ""
    if isinstance(subject.family.task_space, spaces.Discrete) and not _samples(subject):
        reason = " There is no sample_task, so both splits draw from the whole task_space."
    raise BrokenPromiseError(
        f"Of {DRAWN} test tasks {len(shared)} were also among {DRAWN} training tasks, for example "
        f"{example}.{reason}"
    )


def _samples(subject: Subject) -> bool:
    if not isinstance(subject.family, EnvFamily):
        return True
    env = subject.make()
    has = env.has_wrapper_attr("sample_task")
    return has and env.get_wrapper_attr("sample_task") is not None


TASK_PROMISES = (
    task_space,
    spaces_of_a_network,
    it_opens_and_steps,
)
"""without these nothing else can be examined"""
ADAPTATION_PROMISES = (
    task_is_taken,
    task_stays,
    task_matters,
    task_is_hidden,
    splits_are_disjoint,
)
