"""Modules that a command line names: the task and agent of `train` and `check`, and `--module`.

They may lie in the current folder. Nothing else is imported from there: the folder is on the import
path only if a module is named that it holds, and that is not installed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from metarl.errors import ConfigError
from metarl.modules import import_trusted, is_installed, require_outside, split_module


def find_named(*names: str) -> None:
    """Makes the modules in names such as `my_module:lab/Lever-v0` importable."""
    for name in names:
        find_module(split_module(name)[0])


def find_module(module: str) -> None:
    """Adds the current folder to the end of the import path if it holds the module.

    It stays there, because worker processes import the module too.
    """
    here, top = os.getcwd(), module.partition(".")[0]
    if not top or here in sys.path or is_installed(module):
        return
    if PathFinder.find_spec(top, [here]) is not None:
        sys.path.append(here)


def take_modules(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The modules named by --module, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--module", action="append", default=[])
    try:
        found, rest = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f"--module needs the name of a module: {error}.") from error
    return found.module, rest


def import_for_run(modules: Sequence[str], run: Path) -> None:
    """Imports the modules that the user trusts to define the task or the agent of a run.

    Raises:
        RunFolderError: one of them lies in the run folder.
        UnknownNameError: there is no such module.
    """
    for module in modules:
        require_outside(module, run)
        find_module(module)
    import_trusted(modules, run)
