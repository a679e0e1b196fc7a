"""Curves of evaluated run folders, with labels that distinguish agents by their options."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.errors import ConfigError
from metarl.results.adaptation_curves import ADAPTATION_FILE, Curve, read_curves
from metarl.results.run_config import read_config


def read_run_curves(folders: Sequence[Path]) -> list[Curve]:
    """The curves of all folders; runs with equal label and options are seeds of one agent.

    Where runs of one label differ in their options, such as the learning rate, these options are
    added to their labels, so that the runs are not joined.

    Raises:
        RunFolderError: a folder was not evaluated, or its files are broken.
        ConfigError: two folders hold the same training: same options, same seed.
    """
    curves = [
        (folder, curve) for folder in folders for curve in read_curves(folder / ADAPTATION_FILE)
    ]
    agents: dict[tuple[str, str], list[Path]] = {}
    for folder, curve in curves:
        if curve.role == "agent":
            agents.setdefault((curve.agent, curve.label), []).append(folder)
    suffix: dict[Path, str] = {}
    for group in agents.values():
        suffix |= _suffixes({folder: _training(folder) for folder in group})
    return [
        replace(curve, label=curve.label + suffix[folder]) if curve.role == "agent" else curve
        for folder, curve in curves
    ]


def _training(folder: Path) -> Mapping[str, Any]:
    """The run's settings; empty for a folder with rows but no `config.json`."""
    return read_config(folder) if (folder / "config.json").exists() else {}


def _suffixes(trainings: Mapping[Path, Mapping[str, Any]]) -> dict[Path, str]:
    """For each folder, the options in which it differs from other runs of its label."""
    seen: dict[str, Path] = {}
    for folder, config in trainings.items():
        same = json.dumps([config.get("agent_options"), config.get("seed")], sort_keys=True)
        if config and same in seen:
            raise ConfigError(
                f"{seen[same]} and {folder} are the same training: equal options and equal seed. "
                "A repeated run adds no information; train again with another --seed."
            )
        seen[same] = folder
    options = {folder: config.get("agent_options", {}) for folder, config in trainings.items()}
    names = dict.fromkeys(name for chosen in options.values() for name in chosen)
    differ = [
        name for name in names if len({json.dumps(o.get(name)) for o in options.values()}) > 1
    ]
    return {
        folder: f" ({', '.join(f'{name}={chosen.get(name)}' for name in differ)})" if differ else ""
        for folder, chosen in options.items()
    }
