"""Curves of evaluated run folders, with labels that tell agents and evaluations apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metarl.errors import ConfigError
from metarl.results.adaptation_curves import Curve, read_curves
from metarl.results.evaluation_files import adaptation_file
from metarl.results.evaluation_settings import EvaluationSettings, read_settings
from metarl.results.run_config import read_config


def read_run_curves(folders: Sequence[Path], *, join_unfinished: bool = False) -> list[Curve]:
    """The curves of all folders; runs with equal label and options are seeds of one agent.

    Where runs of one label differ in their options, such as the learning rate, or in the settings
    of their evaluation, these are added to their labels, so that the runs are not joined. The label
    of a run that was evaluated before the end of its training says so.

    Args:
        folders: run folders, or those of single evaluations.
        join_unfinished: join unfinished runs with others, as seeds of one agent.

    Raises:
        RunFolderError: a folder was not evaluated, or its files are broken.
        ConfigError: two folders hold the same evaluation of the same training.
    """
    evaluated = [_read(folder) for folder in folders]
    groups: dict[tuple[str, str], list[_Evaluated]] = {}
    for one in evaluated:
        for key in dict.fromkeys((c.agent, c.label) for c in one.curves if c.role == "agent"):
            groups.setdefault(key, []).append(one)
    suffix: dict[Path, str] = {}
    for group in groups.values():
        suffix |= _suffixes(group, join_unfinished)
    of_references = _reference_suffixes(evaluated)
    return [
        replace(
            curve,
            label=curve.label + (suffix if curve.role == "agent" else of_references)[one.folder],
        )
        for one in evaluated
        for curve in one.curves
    ]


@dataclass(frozen=True, kw_only=True)
class _Evaluated:
    folder: Path
    curves: list[Curve]
    training: Mapping[str, Any]  # empty for a folder with rows but without settings
    settings: EvaluationSettings | None

    @property
    def options(self) -> dict[str, Any]:
        """Options of the agent in this evaluation."""
        changed = self.settings.agent_options if self.settings else {}
        return {**self.training.get("agent_options", {}), **changed}

    @property
    def tasks(self) -> dict[str, Any]:
        """What decides the tasks of this evaluation."""
        one = self.curves[0]
        changed = self.settings.task_options if self.settings else {}
        named = {"split": one.split, "task_seed": one.seed, "tasks": one.num_tasks}
        return {**named, **changed}

    @property
    def phases(self) -> dict[str, Any]:
        return {"episodes": self.settings.episodes} if self.settings else {}

    @property
    def is_unfinished(self) -> bool:
        return self.settings is not None and self.settings.is_unfinished


def _read(folder: Path) -> _Evaluated:
    settings = read_settings(folder)
    if (folder / "config.json").exists():
        training: Mapping[str, Any] = read_config(folder)
    else:
        training = settings.training if settings else {}
    curves = read_curves(adaptation_file(folder))
    return _Evaluated(folder=folder, curves=curves, training=training, settings=settings)


def _suffixes(group: Sequence[_Evaluated], join_unfinished: bool) -> dict[Path, str]:
    """For each folder, in what it differs from other evaluations of its label."""
    seen: dict[str, Path] = {}
    for one in group:
        same = json.dumps(
            [one.options, one.training.get("seed"), one.tasks, one.phases], sort_keys=True
        )
        if one.training and same in seen:
            raise ConfigError(
                f"{seen[same]} and {one.folder} are the same training: equal options and equal "
                "seed, evaluated alike. A repeated run adds no information; train again with "
                "another --seed."
            )
        seen[same] = one.folder
    one_training = len({json.dumps(one.training, sort_keys=True) for one in group}) == 1
    chosen = [
        {**one.options, **one.tasks, **one.phases} if one_training else one.options for one in group
    ]
    differ = _differing(chosen)
    suffixes = {}
    for one, options in zip(group, chosen, strict=True):
        parts = [f"{name}={options.get(name)}" for name in differ]
        if one.settings is not None and one.is_unfinished and not join_unfinished:
            parts.append(f"trained {one.settings.trained}")
        suffixes[one.folder] = f" ({', '.join(parts)})" if parts else ""
    return suffixes


def _reference_suffixes(evaluated: Sequence[_Evaluated]) -> dict[Path, str]:
    """For each folder, what decides its tasks, where one run was evaluated in several sets."""
    if len({json.dumps(one.training, sort_keys=True) for one in evaluated}) > 1:
        return dict.fromkeys((one.folder for one in evaluated), "")
    tasks = [one.tasks for one in evaluated]
    differ = _differing(tasks)
    return {
        one.folder: f" ({', '.join(f'{name}={chosen.get(name)}' for name in differ)})"
        if differ
        else ""
        for one, chosen in zip(evaluated, tasks, strict=True)
    }


def _differing(options: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for chosen in options for name in chosen)
    return [name for name in names if len({json.dumps(one.get(name)) for one in options}) > 1]
