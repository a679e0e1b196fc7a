"""The tracker of Weights & Biases, an extra.

Metrics and settings are sent, and nothing else: no code, no state of git, no output of the program
and no data of the machine.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from metarl.errors import ConfigError
from metarl.extras import require_extra
from metarl.field_types import check_fields
from metarl.tracking.tracker import TrackedRun, TrackedTraining, Tracker
from metarl.training.callbacks import Outcome
from metarl.training.events import STEPS

EXIT_CODES: Mapping[Outcome, int] = {"complete": 0, "stopped": 130, "failed": 1}
"""wandb marks a run as failed unless this is zero"""


@dataclass
class WandbTracker(Tracker):
    """Logs a training to Weights & Biases, or with WANDB_MODE=offline to files in `./wandb`.

    Raises:
        ConfigError: wandb is not installed, or has no login and is not offline.
    """

    project: str | None = None
    """by default that of WANDB_PROJECT, or metarl"""
    entity: str | None = None
    """user or team; by default that of WANDB_ENTITY, or of the login"""
    service: ClassVar[str] = "wandb"

    def __post_init__(self) -> None:
        check_fields(self)
        settings = _wandb().setup().settings
        if settings.mode == "online" and not _wandb().login(prompt=False, verify=False):
            raise ConfigError(
                "wandb has no login. Call `wandb login`, or set WANDB_MODE=offline, which writes "
                "files that `wandb sync` sends later."
            )

    def _begin(self, training: TrackedTraining) -> TrackedRun:
        """Starts or continues a run."""
        return _WandbRun(self, training)


class _WandbRun(TrackedRun):
    def __init__(self, tracker: WandbTracker, training: TrackedTraining) -> None:
        wandb = _wandb()
        self._run = wandb.init(
            project=tracker.project or os.environ.get("WANDB_PROJECT", "metarl"),
            entity=tracker.entity,
            id=training.known_id,
            resume="allow",
            reinit="create_new",  # a run that the user has opened stays open
            name=training.name,
            group=training.group,
            config=dict(training.settings),
            allow_val_change=True,  # a run that is prolonged has more iterations
            settings=_settings(wandb),
        )
        # wandb's own steps only grow, but a training may go on from an earlier checkpoint.
        self._run.define_metric(STEPS, hidden=True)
        self._run.define_metric("*", step_metric=STEPS)
        self.id = self._run.id
        self.url = None if self._run.offline else self._run.url

    def log(self, values: Mapping[str, float], env_steps: int) -> None:
        self._run.log({**values, STEPS: env_steps})

    def finish(self, outcome: Outcome) -> None:
        self._run.summary["outcome"] = outcome
        self._run.finish(exit_code=EXIT_CODES[outcome])


def _settings(wandb: Any) -> Any:
    return wandb.Settings(
        console="off",
        silent=True,
        save_code=False,
        disable_code=True,
        disable_git=True,
        host="",
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


def _wandb() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
    return require_extra("wandb", "wandb", "Tracking by wandb needs the package wandb")
