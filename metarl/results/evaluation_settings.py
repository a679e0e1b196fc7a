"""Settings of an evaluation, next to its rows, and where earlier evaluations are kept."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarl.errors import RunFolderError
from metarl.results.evaluation_files import SETTINGS_FILE, is_evaluated, move_evaluation
from metarl.results.files import as_folder_error, json_text, write_text
from metarl.results.reading import quoted, read_json
from metarl.results.run_config import checked_config
from metarl.text import control_within

EARLIER = "evaluations"
"""folder inside a run folder with earlier evaluations, one folder for each setting"""
_FORMAT = "metarl-evaluation-1"
_KINDS: Mapping[str, tuple[type, ...]] = {
    "training": (dict,),
    "iteration": (int,),
    "split": (str,),
    "seed": (int,),
    "num_tasks": (int,),
    "episodes": (int,),
    "references": (list,),
    "label": (str, type(None)),
    "agent_options": (dict,),
    "task_options": (dict,),
}


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """What was evaluated, and how; equal settings give equal rows on one machine."""

    training: Mapping[str, Any]
    """the settings of the run, as in its `config.json`"""
    iteration: int
    """meta-iterations that the agent had been trained for"""
    split: str
    seed: int
    """of the tasks and trials"""
    num_tasks: int
    episodes: int
    """of each phase"""
    references: Sequence[str]
    """names of the references that were evaluated"""
    label: str | None
    """as given; None for that of the agent"""
    agent_options: Mapping[str, Any]
    """those that differ from training"""
    task_options: Mapping[str, Any]
    """those that differ from training"""

    @property
    def iterations(self) -> int | None:
        """Meta-iterations of the whole run; None for an agent without this option."""
        iterations = self.training["agent_options"].get("iterations")
        return iterations if isinstance(iterations, int) else None

    @property
    def is_unfinished(self) -> bool:
        """Whether the agent was evaluated before the end of its training."""
        return self.iterations is not None and self.iteration < self.iterations

    @property
    def trained(self) -> str:
        """Such as '3 of 100 iterations'."""
        return f"{self.iteration} of {self.iterations} iterations"

    @property
    def folder_name(self) -> str:
        """A name of these settings, such as test-1000-tasks-seed0-1a2b3c4d."""
        content = json.dumps(dataclasses.asdict(self), sort_keys=True)
        short = hashlib.sha256(content.encode()).hexdigest()[:8]
        return f"{self.split}-{self.num_tasks}-tasks-seed{self.seed}-{short}"


def write_settings(folder: Path, settings: EvaluationSettings) -> None:
    """Writes `evaluation.json` atomically."""
    path = folder / SETTINGS_FILE
    write_text(path, json_text(path, {**dataclasses.asdict(settings), "format": _FORMAT}))


def read_settings(folder: Path) -> EvaluationSettings | None:
    """The settings of the evaluation in a folder; None where the file is missing, as in old runs.

    Raises:
        RunFolderError: the file is broken.
    """
    path = folder / SETTINGS_FILE
    if not os.path.lexists(path):
        return None
    content = read_json(path, "the settings of an evaluation")
    fits = isinstance(content, dict) and all(
        name in content and isinstance(content[name], kinds) and not isinstance(content[name], bool)
        for name, kinds in _KINDS.items()
    )
    if not fits or content.get("format") != _FORMAT or control_within(content) is not None:
        raise RunFolderError(
            f"{path} does not hold the settings of an evaluation: {quoted(content)}. Evaluate the "
            "run again, or remove the file."
        )
    training = checked_config(content["training"], path)
    return EvaluationSettings(**{name: content[name] for name in _KINDS} | {"training": training})


def keep_earlier(folder: Path, settings: EvaluationSettings) -> None:
    """Moves the evaluation in a folder to `evaluations/`, unless it has the same settings.

    Raises:
        RunFolderError: it cannot be moved, or `evaluations` is a symbolic link.
    """
    if not is_evaluated(folder):
        return
    earlier = read_settings(folder)
    if earlier is not None and _as_json(earlier) == _as_json(settings):
        return
    name = earlier.folder_name if earlier else _unused(folder / EARLIER, "earlier")
    kept = folder / EARLIER / name
    for path in (kept, kept.parent):
        if path.is_symlink():
            raise RunFolderError(
                f"{path} is a symbolic link, and no result is moved through a link. Remove it."
            )
    with as_folder_error(kept):
        kept.mkdir(parents=True, exist_ok=True)
        move_evaluation(folder, kept)


def _as_json(settings: EvaluationSettings) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _unused(folder: Path, name: str) -> str:
    number = 1
    while os.path.lexists(folder / f"{name}-{number}"):
        number += 1
    return f"{name}-{number}"
