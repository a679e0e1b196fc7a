"""When an environment that is given no task draws a new one.

Axes: `L` lanes.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from metarl.errors import ConfigError

NewTask: TypeAlias = Literal["episode", "trial", "never"]
"""a new task for every episode, for every trial, or for the first episode only"""


def reset_options(options: Any) -> dict[str, Any]:
    """A copy of the options of an environment's `reset`; `ConfigError` if they are no mapping."""
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigError(
            "options of reset must be a mapping, such as {'task': ...}; got a value of type "
            f"{type(options).__name__}."
        )
    return dict(options)


class NewTasks:
    """Counts the episodes of each lane, and says which lanes start one in a new task.

    A task that was given stays until another is given.
    """

    def __init__(self, when: NewTask, trial_episodes: int, lanes: int = 1) -> None:
        """`trial_episodes` is the number of episodes of a trial.

        Raises:
            ConfigError: `when` is none of the three.
        """
        if not isinstance(when, str) or when not in get_args(NewTask):
            got = repr(when) if isinstance(when, str) else f"a value of type {type(when).__name__}"
            raise ConfigError(
                f"new_task={got} must be one of {', '.join(get_args(NewTask))}: a new task, "
                "where none is given, for every episode, every trial, or the first episode only."
            )
        self._length = {"episode": 1.0, "trial": float(trial_episodes), "never": np.inf}[when]
        self._left = np.zeros(lanes)  # episodes that each lane still starts in its task
        self._given = np.zeros(lanes, bool)

    def needs_task(self, given: bool, seeded: bool) -> bool:
        """For one environment at a reset: whether it sets a task, given or to be drawn."""
        every = np.ones(1, bool)
        if seeded:
            self.reseed(every)
        if given:
            self.give(every)
        return bool(self.start(every)[0]) or given

    def give(self, lanes: NDArray[np.bool_]) -> None:
        """The lanes marked in [L] were given a task."""
        self._given |= lanes
        self._left[lanes] = np.inf

    def reseed(self, lanes: NDArray[np.bool_]) -> None:
        """A seed starts a trial in the marked lanes [L] whose tasks were drawn and do not stay."""
        self._left[lanes & ~self._given & np.isfinite(self._left)] = 0

    def start(self, lanes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Starts an episode in the marked lanes [L]; those [L] that need a new task for it."""
        due: NDArray[np.bool_] = lanes & (self._left <= 0)
        self._left[due] = self._length
        self._left[lanes] -= 1
        return due
