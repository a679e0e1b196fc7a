"""Settings of a training from a file, named by `--config`, or from a run, named by `--resume`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from metarl.cli.modules import import_for_run, take_modules
from metarl.cli.terminal import has_option
from metarl.errors import ConfigError
from metarl.modules import require_imported
from metarl.training.settings_file import TrainingFile, read_training_file


def take_resumed(arguments: Sequence[str]) -> list[str]:
    """The arguments, in which `--resume RUN` stands for its settings, its folder and `--resume`.

    `--resume` alone stays, as in the command that started the run.

    Raises:
        ConfigError: they name other settings or another folder, too.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", nargs="?", const="")
    found, rest = parser.parse_known_args(list(arguments))
    if not found.resume:
        return list(arguments)
    for name in ("--config", "--out", "--seeds"):
        if has_option(rest, name):
            raise ConfigError(
                f"Got {name} and --resume {found.resume}, which goes on with that run in its "
                "folder and with its settings. Leave one of them out."
            )
    config = str(Path(found.resume) / "config.json")
    return [*rest, "--config", config, "--out", found.resume, "--resume"]


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
