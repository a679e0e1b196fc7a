"""Checks of the interface: task space, spaces, reset and step. All other checks need these."""

from metarl.bridges.gym_family import EnvFamily
from metarl.checks.batched_checks import shapes_and_dtypes_are_correct
from metarl.checks.check import ViolationError, check
from metarl.checks.env_under_test import EnvUnderTest, error_line, task_text
from metarl.errors import MetaRLError

SAMPLED_TASKS = 500
"""of each split"""


@check(
    "There is a task_space, and sampled tasks lie in it.",
    why="An agent that learns to adapt is trained on many tasks, sampled from this space.",
    fix="Give the environment a Gymnasium space `task_space` of fixed size and, if the space's "
    "own sample() is not suitable, a method sample_task(np_random, split).",
)
def tasks_lie_in_the_task_space(env_under_test: EnvUnderTest) -> str | None:
    """Samples tasks of both splits; values that float32 rounds over a bound are clipped back."""
    family = env_under_test.family
    try:
        family.task_space  # noqa: B018
        for split in ("train", "test"):
            env_under_test.sample_tasks(SAMPLED_TASKS, split)
        tasks = env_under_test.tasks
    except MetaRLError as error:
        raise ViolationError(str(error)) from error
    space = family.env_task_space if isinstance(family, EnvFamily) else family.task_space
    for task in tasks:
        if not space.contains(task):
            raise ViolationError(f"The task {task_text(task)} is not in {space}.")
    return None


@check(
    "Observations are of fixed size, actions Discrete or a Box of floats.",
    why="All lanes are stepped as one batch, and one network reads them.",
    fix="Wrap the environment, for example with gymnasium.wrappers.",
)
def spaces_are_supported(env_under_test: EnvUnderTest) -> str | None:
    """Builds the spaces that the engine works with."""
    try:
        env_under_test.family.observation_space  # noqa: B018
        env_under_test.family.action_space  # noqa: B018
    except MetaRLError as error:
        raise ViolationError(str(error)) from error
    return None


@check(
    "reset(seed=..., options={'task': ...}) starts an episode, and step continues it.",
    why="The engine sets the task of a lane in this way.",
    fix="def reset(self, *, seed=None, options=None): super().reset(seed=seed); use "
    "(options or {}).get('task') if it is given; return observation, {}. step(action) returns "
    "observation, reward, terminated, truncated, {}.",
    needs=[tasks_lie_in_the_task_space, shapes_and_dtypes_are_correct, spaces_are_supported],
)
def reset_and_step_work(env_under_test: EnvUnderTest) -> str | None:
    """Takes a few steps in every task."""
    for task in env_under_test.tasks:
        try:
            env_under_test.roll_out(env_under_test.action_plan(0)[:3], task=task, seed=0)
        except Exception as error:
            raise ViolationError(f"In task {task_text(task)}: {error_line(error)}") from error
    return None


@check(
    "close() raises no error, before the first reset or after an episode.",
    why="Environments are closed when the results are there already: an error at that moment looks "
    "like one of the results.",
    fix="Close only what exists: `if self.viewer is not None: self.viewer.close()`.",
    needs=[reset_and_step_work],
)
def close_works(env_under_test: EnvUnderTest) -> str | None:
    """Closes a new environment, and one that was used."""
    new, used = env_under_test.make_env(), env_under_test.make_env()
    env_under_test.roll_out(
        env_under_test.action_plan(0)[:3], env=used, task=env_under_test.tasks[0], seed=0
    )
    for env, when in ((new, "before the first reset"), (used, "after some steps")):
        try:
            env.close()
        except Exception as error:
            raise ViolationError(f"close() {when} raised {error_line(error)}") from error
    return None
