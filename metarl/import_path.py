"""The import path of `python -m metarl` and of new processes: without the current folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SAFE_PATH = "PYTHONSAFEPATH"  # of Python: not empty means that no folder is put on the path
_SET_HERE = "set by metarl"


def drop_current_folder() -> None:
    """Removes the current folder, which `python -m` searches first, unless metarl itself is in it.

    Must be called before anything else is imported. Other programs are left as they are.
    """
    if sys.argv[:1] != ["-m"] or "-m" not in sys.orig_argv:
        return  # Python is not looking for the module of `-m` at this moment
    module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    here = os.getcwd()
    clone = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if module == "metarl" and sys.path[:1] == [here] and clone != here:
        del sys.path[0]


@contextmanager
def safe_path_of_children() -> Iterator[None]:
    """Within it new Python processes do not search the current folder for modules.

    `multiprocessing` starts them by `python -c`, which searches that folder first. Many modules are
    imported before the process takes over the import path of its parent.
    """
    if os.environ.get(_SAFE_PATH):
        yield
        return
    os.environ[_SAFE_PATH] = _SET_HERE
    try:
        yield
    finally:
        end_safe_path()


def end_safe_path() -> bool:
    """Lets programs that this process starts search as usual; returns whether that has changed.

    A process that was started within `safe_path_of_children` calls it first.
    """
    is_set_here = os.environ.get(_SAFE_PATH) == _SET_HERE
    if is_set_here:
        del os.environ[_SAFE_PATH]
    return is_set_here


@contextmanager
def usual_path_of_children() -> Iterator[None]:
    """Within it `safe_path_of_children` does not apply: for the code of an environment."""
    was_safe = end_safe_path()
    try:
        yield
    finally:
        if was_safe:
            os.environ[_SAFE_PATH] = _SET_HERE
