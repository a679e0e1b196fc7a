"""Settings of a training from a file: TOML, or the `config.json` of a run."""

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarl.cli.modules import import_for_run, take_modules
from metarl.errors import ConfigError
from metarl.field_types import require_known
from metarl.modules import require_imported
from metarl.results.reading import quoted, read_json
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


def take_config(arguments: Sequence[str]) -> tuple[TrainingFile | None, list[str]]:
    """The file named by --config, if any, and the other arguments.

    A module in the names of agent and task is imported if it is named in the arguments, as part of
    these names or by --module, because importing executes it.

    Raises:
        ConfigError: it is no such file, or its names are not those in the arguments.
        RunFolderError: it names a module that the arguments do not name, or lies beside one.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path)
    try:
        found, rest = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f"--config needs the path of a file: {error}.") from error
    if found.config is None:
        return None, rest
    file = read_training_file(found.config)
    modules, rest = take_modules(rest)
    import_for_run(modules, file.path.parent)
    names = (file.agent, file.task)
    for number, kind in enumerate(("agent", "task")):
        given = rest[number] if len(rest) > number and not rest[number].startswith("-") else None
        if given is None:
            require_imported(names[number], kind)
            rest.insert(number, names[number])
        elif given != names[number]:
            raise ConfigError(
                f"The {kind} is {given} on the command line and {names[number]} in {file.path}, "
                "whose options are for that one. Leave the names out, or change the file."
            )
    return file, rest


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
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigError(
            f"{path} cannot be read as TOML ({error}). Give a TOML file, or the config.json of a "
            "run."
        ) from error
    return _checked(content, path)


def _checked(content: Mapping[str, Any], path: Path) -> TrainingFile:
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
