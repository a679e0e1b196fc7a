"""Modules of users that define tasks or agents.

Names of tasks and agents may start with a module: `my_module:lab/Lever-v0`. A module that the user
names is imported. A module that only a file names is not, because importing it executes it.
"""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path

from metarl import plugins
from metarl.errors import ConfigError, MetaRLError, RunFolderError, UnknownNameError


def split_module(name: str) -> tuple[str, str]:
    """`'my_module'` and `'lab/Lever-v0'` of `'my_module:lab/Lever-v0'`; the module may be empty."""
    module, _, rest = name.rpartition(":")
    return module, rest


def import_module_of(name: str, kind: str) -> str:
    """Imports the module in a name that the user gave; returns the name without it.

    Args:
        name: such as `my_module:lab/Lever-v0`; nothing is imported if it has no module.
        kind: what it names, for the message: task or agent.

    Raises:
        UnknownNameError: there is no such module, or it fails to import another one.
    """
    module, rest = split_module(name)
    if module:
        _import(module, f"of the {kind} {name!r}")
    return rest


def import_trusted(modules: Sequence[str] | str, folder: Path) -> None:
    """Imports modules that the user trusts to define the task or the agent of a run.

    Args:
        modules: their names.
        folder: the run folder.

    Raises:
        UnknownNameError: there is no such module, or it fails to import another one.
        RunFolderError: a module lies in the run folder, which holds results and no code.
    """
    for module in trusted_names(modules):
        require_outside(module, folder)
        _import(module, "that was named")


def trusted_names(modules: Sequence[str] | str) -> tuple[str, ...]:
    """The names of modules, one or several.

    Raises:
        ConfigError: they are no texts.
    """
    names = (modules,) if isinstance(modules, str) else modules
    if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
        raise ConfigError(
            "modules must be a list of names, such as ['my_module']: those of modules that you "
            f"trust; got a value of type {type(modules).__name__}."
        )
    return tuple(names)


def require_outside(module: str, folder: Path) -> None:
    """Raises `RunFolderError` if a module would be imported from a run folder."""
    path = module_path(module)
    if path is not None and path.resolve().is_relative_to(folder.resolve()):
        raise RunFolderError(
            f"The module {module!r} would be imported from {path}, which lies in the run folder. A "
            "run folder holds results, and nothing in it is executed; if the module is yours, move "
            "it to another folder."
        )


def require_imported(name: str, kind: str) -> None:
    """Raises `RunFolderError` if a name in a file has a module that is not imported.

    Those of plugins are imported later: installed packages with an entry point for metarl.
    """
    module, _ = split_module(name)
    if not module or module in sys.modules or _is_of_plugin(module):
        return
    if not all(part.isidentifier() for part in module.split(".")):
        raise RunFolderError(f"The {kind} of this run is {name!r}, but {module!r} is no module.")
    path = module_path(module)
    where = f"would be imported from {path}" if path else "is found nowhere"
    raise RunFolderError(
        f"The {kind} of this run is {name!r}. The module {module!r} {where}, and importing it "
        "would execute it. A module is not imported because a run folder names it. If you trust "
        f"it, say so: --module {module} on the command line, modules=[{module!r}] in Python."
    )


def module_path(module: str) -> Path | None:
    """Where a module would be imported from, the current folder last; imports nothing.

    A module of builtins has no path, as one that does not exist.
    """
    top, *parts = module.split(".")
    spec = _installed(top) or PathFinder.find_spec(top, [os.getcwd()])
    for part in parts:
        spec = spec and PathFinder.find_spec(part, _folders(spec))
    if spec is None:
        return None
    found = spec.origin if spec.has_location else next(iter(_folders(spec)), None)
    return None if found is None else Path(found)


def is_installed(module: str) -> bool:
    """Whether a module, or the package that contains it, is on the import path."""
    top = module.partition(".")[0]
    return top in sys.modules or _installed(top) is not None


def _installed(top: str) -> ModuleSpec | None:
    try:
        return find_spec(top)
    except (ValueError, ImportError):  # such as __main__, or an empty name
        return None


def _folders(spec: ModuleSpec) -> list[str]:
    return list(spec.submodule_search_locations or ())


def _is_of_plugin(module: str) -> bool:
    return any(f"{module}.".startswith(f"{plugin}.") for plugin in plugins.loaded)


def _import(module: str, owner: str) -> None:
    try:
        importlib.import_module(module)
    except (ImportError, TypeError, ValueError) as error:  # the last two: no valid name
        missing = getattr(error, "name", None)
        if isinstance(error, ImportError) and not _is_part(missing, module):
            raise UnknownNameError(f"{module} fails while it is imported: {error}.") from error
        raise UnknownNameError(
            f"The module {module!r} {owner} cannot be imported: {error}. Install it, or start "
            "metarl in the folder that contains it."
        ) from error
    except MetaRLError:
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        if not isinstance(error, SyntaxError):  # which says it itself
            place = traceback.extract_tb(error.__traceback__)[-1]
            reason += f" ({place.filename}, line {place.lineno})"
        raise ConfigError(f"{module} fails while it is imported: {reason}.") from error


def _is_part(missing: str | None, module: str) -> bool:
    """Whether the missing module is the one to import, or a package that contains it."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")
