"""The runs of a report: what their folders hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metarl.errors import RunFolderError
from metarl.results.evaluation_files import ADAPTATION_FILES, is_evaluated
from metarl.results.evaluation_settings import EvaluationSettings, read_settings
from metarl.results.learning_curves import METRICS_FILE, LearningCurve, read_learning
from metarl.results.run_config import read_config
from metarl.tasks.family import TaskDistribution
from metarl.training.run_settings import RunConfig


@dataclass(frozen=True)
class ReportedRun:
    """A run folder, or the folder of one evaluation."""

    folder: Path
    """with the results"""
    training: Path
    """folder of the run: the same, but for agents of the zoo, whose results are elsewhere"""
    config: RunConfig | None
    """settings of the training; None for rows without settings"""
    settings: EvaluationSettings | None
    """of the evaluation; None where there is none, or one of an early version"""
    is_evaluated: bool
    learning: LearningCurve | None
    """None where the folder holds no rows of a training"""

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.resolve().name

    @property
    def holds_training(self) -> bool:
        """Whether this is the folder of a training, whose agent can be loaded."""
        return (self.training / "config.json").is_file()

    @property
    def values(self) -> dict[str, Any]:
        """All settings by name: of the agent, of the family after `task.`, of the evaluation."""
        found: dict[str, Any] = {}
        if self.config is not None:
            found = {"agent": self.config.agent, "task": self.config.task}
            found |= {f"task.{name}": value for name, value in self.config.task_options.items()}
            found |= {"seed": self.config.seed, "init_from": self.config.init_from}
            found |= self.config.agent_options
        if self.settings is not None:
            one = self.settings
            found |= {f"evaluation.{name}": value for name, value in one.agent_options.items()}
            found |= {f"evaluation.task.{n}": value for n, value in one.task_options.items()}
            for name in ("split", "seed", "num_tasks", "episodes", "iteration"):
                found[f"evaluation.{name}"] = getattr(one, name)
        return found

    @cached_property
    def family(self) -> TaskDistribution:
        """The family as it was evaluated.

        Raises:
            MetaRLError: it is defined in a module that is not imported, or cannot be made.
            ImportError: a package that it needs is missing.
        """
        if self.config is None:
            raise RunFolderError(f"{self.folder} holds no settings of a training.")
        changed = self.settings.task_options if self.settings else {}
        options = {**self.config.task_options, **changed}
        whole: RunConfig = RunConfig(**{**vars(self.config), "task_options": options})
        return whole.make_family()


def read_run(folder: Path, metric: str, *, training: Path | None = None) -> ReportedRun:
    """Reads the settings of a folder, and its learning curve; its rows of evaluation are not read.

    Args:
        folder: of a run, or of an evaluation.
        metric: of the learning curve.
        training: folder of the run, if it is another one.

    Raises:
        RunFolderError: this is neither the folder of a training nor that of an evaluation, or a
            file is broken.
        UnknownNameError: the training has no such metric.
    """
    evaluated = is_evaluated(folder)
    run = folder if training is None else training
    has_config = (run / "config.json").exists()
    if not (evaluated or has_config):
        raise RunFolderError(
            f"{folder} is not a run folder: it has neither a config.json nor an "
            f"{' or '.join(ADAPTATION_FILES.values())}. Give a folder printed by `metarl train` or "
            "`metarl evaluate`."
        )
    settings = read_settings(folder)
    trained: Mapping[str, Any] = {}
    if has_config:
        trained = read_config(run)
    elif settings is not None:
        trained = settings.training
    learned = has_config and (run / METRICS_FILE).exists()
    return ReportedRun(
        folder=folder,
        training=run,
        config=RunConfig(**trained) if trained else None,
        settings=settings,
        is_evaluated=evaluated,
        learning=read_learning(run, metric) if learned else None,
    )


def settings_of(runs: Sequence[ReportedRun]) -> tuple[list[str], list[str]]:
    """Names of the settings that differ between the runs, and of those that all share."""
    values = [run.values for run in runs]
    names = list(dict.fromkeys(name for one in values for name in one))
    differing = [
        n for n in names if any(one.get(n, ...) != values[0].get(n, ...) for one in values)
    ]
    return differing, [name for name in names if name not in differing]
