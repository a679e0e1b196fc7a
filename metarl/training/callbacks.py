"""Callbacks of a training: what a user runs at its start, after iterations and at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from metarl.agent import Agent, AgentConfig
from metarl.errors import ConfigError
from metarl.field_types import shown
from metarl.tasks.family import TaskDistribution
from metarl.training.options import RunOptions
from metarl.training.run_folder import Progress, Run

Row = Mapping[str, float]
"""metrics of an iteration, or one measured point of an evaluation, by name"""
Outcome: TypeAlias = Literal["complete", "stopped", "failed"]
"""all iterations were trained; a signal or a callback ended the training; an error ended it"""


class Callback:
    """Called by a training; the methods do nothing unless a subclass overrides them.

    A callback may read everything that it is given, and must change nothing of it: the training
    goes on with the same agent. If it raises an error, the training ends after the iteration, which
    is saved. With several seeds each process has a copy of the callback.
    """

    def on_start(self, training: "TrainingView") -> None:
        """Training begins, or goes on after `training.progress`, also after a rollback."""

    def on_iteration(self, training: "TrainingView", row: Row) -> bool | None:
        """An iteration was learned and recorded; True stops the training after it.

        A run that was stopped is saved, and `resume` goes on with it.
        """

    def on_evaluation(self, training: "TrainingView", rows: Sequence[Row]) -> bool | None:
        """The agent was evaluated, as by `PeriodicEvaluation`; True stops the training."""

    def on_end(self, training: "TrainingView") -> None:
        """Training ends after `training.progress`; `training.outcome` says how."""


@dataclass(frozen=True, kw_only=True)
class TrainingView:
    """What a callback is shown of a training."""

    run: Run
    """its folder; the checkpoint in it may be of an earlier iteration"""
    agent: Agent
    family: TaskDistribution
    config: AgentConfig
    options: RunOptions
    progress: Progress
    callbacks: Sequence[Callback]
    """all of this training"""
    outcome: Outcome = "stopped"
    """how the training has ended; as long as it goes on, what it would be if it stopped now"""

    def announce(self, rows: Sequence[Row]) -> bool:
        """Calls `on_evaluation` of every callback; whether one of them stops the training."""
        answers = [each.on_evaluation(self, rows) for each in self.callbacks]
        return stops(self.callbacks, answers, "on_evaluation")


def stops(callbacks: Sequence[Callback], answers: Sequence[object], method: str) -> bool:
    """Whether a callback has answered that the training stops.

    Raises:
        ConfigError: an answer is neither a bool nor None.
    """
    for callback, answer in zip(callbacks, answers, strict=True):
        if answer is not None and not isinstance(answer, bool | np.bool_):
            raise ConfigError(
                f"{method} of {type(callback).__name__} returned {shown(answer)}. It must return "
                "True, which stops the training, or False or None, which do not."
            )
    return any(answers)
