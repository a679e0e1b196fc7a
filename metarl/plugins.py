"""Packages that register tasks, agents and memories, found through an entry-point group.

The built-in tasks and agents are such packages, too.
"""

import importlib
import warnings
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

PLUGIN_GROUP = "metarl.plugins"
"""entry-point group of the packages that register tasks and agents"""

loaded: set[str] = set()
"""modules of the plugins that were imported, or tried"""


def load_plugins(not_installed: Iterable[EntryPoint] = ()) -> None:
    """Imports every package with an entry point in the group `metarl.plugins`.

    A plugin that cannot be imported is skipped with a warning: a broken third-party package must
    not break this one. The built-in plugins come first, so a name that is taken twice is refused
    to the package that took a built-in one.

    Args:
        not_installed: further plugins, which have no installed entry point.
    """
    entries = (*entry_points(group=PLUGIN_GROUP), *not_installed)
    for entry in sorted(entries, key=lambda entry: not entry.value.startswith("metarl.")):
        if entry.value in loaded:
            continue
        loaded.add(entry.value)
        try:
            entry.load()
        except Exception as error:
            warnings.warn(
                f"The metarl plugin {entry.name} = {entry.value} could not be imported and is "
                f"skipped: {error!r}",
                RuntimeWarning,
                stacklevel=2,
            )


def load_object(path: str) -> Any:
    """Imports the object at `'module:name'`."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
