"""The run folders that a command is given, and the folder that they have in common."""

import os
from collections.abc import Sequence
from pathlib import Path

from metarl.errors import ConfigError, RunFolderError
from metarl.field_types import kind_of


def unique_folders(runs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Each folder once, in order; a single path counts as a list of one.

    Raises:
        ConfigError: the list is empty, or holds no paths.
        RunFolderError: one of them is a file.
    """
    if isinstance(runs, str | os.PathLike):
        runs = [runs]
    try:
        runs = [*runs]
    except TypeError:
        runs = [None]  # type: ignore[list-item]
    if not all(isinstance(run, (str, os.PathLike)) for run in runs):
        raise ConfigError(
            "Runs are given as a list of their folders, or of what metarl.train returns; got "
            f"{kind_of(runs)}."
        )
    paths = [Path(run).expanduser() for run in runs]
    for path in paths:
        if "\0" in str(path):
            raise ConfigError(f"{str(path)!r} is no path: it holds a zero byte.")
        if os.path.isfile(path):
            raise RunFolderError(
                f"{path} is a file, where a run folder is expected. Give the folder printed by "
                "`metarl train`."
            )
    folders = list({path.resolve(): path for path in paths}.values())
    if not folders:
        raise ConfigError("There is nothing to show; name at least one run folder.")
    return folders


def common_folder(folders: Sequence[Path]) -> Path:
    """Where a file about runs is written by default: in the run, or in the folder above them."""
    if len(folders) == 1:
        return folders[0]
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders]))
