"""Settings of a training in a file: TOML, or the `config.json` of a run."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarl.errors import ConfigError, RunFolderError
from metarl.field_types import require_known
from metarl.results.reading import quoted, read_json, read_small_file, shortened
from metarl.results.run_config import checked_config
from metarl.text import control_within

_TABLES = ("agent_options", "task_options", "run")
_TEXTS = ("agent", "task", "preset")


@dataclass(frozen=True, kw_only=True)
class TrainingFile:
    """The settings in a file; what it leaves out has its default."""

    path: Path
    agent: str
    task: str
    preset: str | None = None
    agent_options: Mapping[str, Any] = field(default_factory=dict)
    task_options: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    """fields of `RunOptions`"""


def read_training_file(path: Path) -> TrainingFile:
    """Reads a file of settings.

    Raises:
        ConfigError: it cannot be read, or has unknown or unexpected entries.
        RunFolderError: it is the broken `config.json` of a run.
    """
    if path.suffix == ".json":
        stored = checked_config(read_json(path, "a run's config.json"), path)
        run = {"seed": stored["seed"], "init_from": stored["init_from"]}
        names = ("agent", "task", "agent_options", "task_options")
        return TrainingFile(path=path, run=run, **{name: stored[name] for name in names})
    return checked_training(read_toml(path, "a TOML file, or the config.json of a run"), path)


def read_toml(path: Path, wanted: str) -> dict[str, Any]:
    """The content of a TOML file; `ConfigError` if it is none, with what is wanted instead."""
    remedy = f"Give {wanted}."
    try:
        return tomllib.loads(read_small_file(path, "a TOML file").decode("utf-8"))
    except RunFolderError as error:
        raise ConfigError(f"{error} {remedy}") from error
    except (ValueError, RecursionError) as error:  # those of TOML and Unicode are ValueErrors
        raise ConfigError(f"{path} is not a TOML file: {shortened(error)}. {remedy}") from error


def checked_training(content: Mapping[str, Any], path: Path) -> TrainingFile:
    """The settings in a mapping, as read from TOML; `ConfigError` if an entry is unexpected."""
    require_known(str(path), content, [*_TEXTS, *_TABLES])
    for name in ("agent", "task"):
        if name not in content:
            raise ConfigError(f'{path} lacks {name} = "...", which names what is trained.')
    for name, value in content.items():
        kind, word = (dict, "a table") if name in _TABLES else (str, "a text")
        if not isinstance(value, kind):
            raise ConfigError(f"{path} has {name} = {quoted(value)}, which must be {word}.")
    if (text := control_within(content)) is not None:
        raise ConfigError(f"{path} holds the text {text!r} with control characters.")
    return TrainingFile(path=path, **content)
