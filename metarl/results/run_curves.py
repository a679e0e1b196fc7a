"""Evaluated run folders go in, curves come out whose labels tell different agents apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.errors import ConfigError
from metarl.results.curves import FILE_NAME, Curve, read_curves
from metarl.results.run_config import read_config


def read_run_curves(folders: Sequence[Path]) -> list[Curve]:
    """The curves of all folders; runs of one label and one set of options are seeds of one agent.

    Where runs of one label have different options, such as two learning rates, the options that
    differ are added to their labels: they are not seeds of each other.

    Raises:
        RunFolderError: a folder was not evaluated, or its files are broken.
        ConfigError: two folders hold the same training: same options, same seed.
    """
    curves = [(folder, curve) for folder in folders for curve in read_curves(folder / FILE_NAME)]
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
    """The agent's options and the seed; nothing for rows that came without their run."""
    return read_config(folder) if (folder / "config.json").exists() else {}


def _suffixes(trainings: Mapping[Path, Mapping[str, Any]]) -> dict[Path, str]:
    """For each folder, the options in which it differs from others of its label."""
    seen: dict[str, Path] = {}
    for folder, config in trainings.items():
        same = json.dumps([config.get("agent_options"), config.get("seed")], sort_keys=True)
        if config and same in seen:
            raise ConfigError(
                f"{seen[same]} and {folder} are the same training: equal options and equal seed. "
                "Two of it say no more than one; train another with another --seed."
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
