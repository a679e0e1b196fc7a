"""The import path of `python -m metarl`: without the current folder, as that of `metarl`."""

import os
import sys


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
