"""Evaluation in held-out tasks while an agent is trained.

Axes: `P` points of experience, `N` tasks.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metarl.errors import ConfigError
from metarl.evaluation.protocol import EvaluationProtocol, Schedule
from metarl.field_types import check_fields
from metarl.registry import make_family
from metarl.results.adaptation_curves import Curve
from metarl.results.learning_curves import EVALUATION_CURVE_FILE, MetricsFile
from metarl.split import Split
from metarl.training.callbacks import Callback, Row, TrainingView
from metarl.validation import require_positive


@dataclass
class PeriodicEvaluation(Callback):
    """Measures the agent before training, after every so many iterations, and after the last.

    The rows are added to `evaluation_curve.csv` in the run folder: iteration, environment steps and
    seconds of training; the measured episode of a task, counted from 1; mean return over tasks and
    its standard error; the share of tasks solved. Tasks and noise are those of `metarl.evaluate`
    with this seed, the same in each evaluation. The numbers of the training do not change.
    """

    every: int
    """iterations between two evaluations"""
    num_tasks: int = 100
    """held-out tasks"""
    seed: int = 0
    """of tasks and noise"""
    split: Split = "test"
    """from which tasks are drawn"""
    _file: MetricsFile | None = field(default=None, init=False, repr=False)
    _protocol: EvaluationProtocol | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        require_positive("every", self.every)
        require_positive("num_tasks", self.num_tasks)

    def on_start(self, training: TrainingView) -> None:
        """Opens the file, cut off after the iteration from which training goes on.

        Raises:
            ConfigError: another callback writes the same file.
        """
        if sum(isinstance(each, PeriodicEvaluation) for each in training.callbacks) > 1:
            raise ConfigError(
                f"A training can have one PeriodicEvaluation, because each writes its rows to "
                f"{EVALUATION_CURVE_FILE}."
            )
        kept = training.progress.iteration
        self._file = MetricsFile(training.run.path / EVALUATION_CURVE_FILE, keep=kept, sparse=True)
        settings = training.run.config
        self._protocol = EvaluationProtocol(
            # Another object, because a family of Gymnasium environments steps one set at a time.
            family=make_family(settings.task, **settings.task_options),
            num_tasks=self.num_tasks,
            seed=self.seed,
            split=self.split,
            device=training.options.device,
            threads=training.options.threads,
            workers=training.options.workers,
        )
        if not kept:
            self._evaluate(training)

    def on_iteration(self, training: TrainingView, row: Row) -> bool | None:
        """Evaluates, if it is time."""
        iteration = training.progress.iteration
        if iteration % self.every and iteration != training.config.iterations:
            return None
        return self._evaluate(training)

    def on_end(self, training: TrainingView) -> None:
        """Closes the file and the environments."""
        if self._file is not None:
            self._file.close()
        close = getattr(self._protocol and self._protocol.family, "close", None)
        if close is not None:
            close()
        self._file = self._protocol = None

    def _evaluate(self, training: TrainingView) -> bool:
        assert self._protocol is not None
        assert self._file is not None
        config, family = training.config, self._protocol.family
        schedule = Schedule(
            steps=training.agent.evaluation_steps,
            rollouts_per_task=config.rollouts_per_task,
            episodes=config.episodes or family.trial_episodes,
        )
        names = dict.fromkeys(("run", "agent", "role", "label", "family"), "")
        measured = self._protocol.measure_agent(
            training.agent, schedule, names, keep_next_obs=config.reads_next_obs
        )
        rows = _rows(measured.curve, training)
        for each in rows:
            self._file.write(each)
        self._file.sync()
        return training.announce(rows)


def _rows(curve: Curve, training: TrainingView) -> list[dict[str, Any]]:
    progress = training.progress
    tasks = curve.returns.shape[1]
    deviations = curve.returns.std(1, ddof=1) if tasks > 1 else np.full(len(curve.returns), np.nan)
    return [
        {
            "iteration": progress.iteration,
            "env_steps": progress.env_steps,
            "seconds": progress.seconds,
            "episode": int(episode),
            "return": float(returns.mean()),
            "standard_error": float(deviation / len(returns) ** 0.5),
            "success": float(success.mean()),
        }
        for episode, returns, deviation, success in zip(
            curve.episode, curve.returns, deviations, curve.success, strict=True
        )
    ]
