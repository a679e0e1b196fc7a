"""Trained agents that come with metarl, by name: `zoo:NAME` stands for the folder of a run."""

import os
from pathlib import Path

from metarl.errors import RunFolderError, UnknownNameError
from metarl.field_types import suggestion

PREFIX = "zoo:"
_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "zoo", _PACKAGE.parent / "experiments" / "zoo")
"""in an installation, and in a clone"""


def zoo_folder() -> Path:
    """The folder with one run folder for each agent of the zoo; it may be missing."""
    return next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])


def zoo_names() -> list[str]:
    """Sorted names of the agents of the zoo."""
    return sorted(path.parent.name for path in zoo_folder().glob("*/config.json"))


def is_in_zoo(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a name of the zoo, or a folder in it."""
    return os.fspath(path).startswith(PREFIX) or zoo_folder() in Path(path).absolute().parents


def run_path(path: str | os.PathLike[str]) -> Path:
    """The folder of a run, given its path or `zoo:NAME`.

    Raises:
        UnknownNameError: the zoo has no agent of this name.
    """
    text = os.fspath(path)
    if not text.startswith(PREFIX):
        return Path(path).expanduser()
    name, known = text.removeprefix(PREFIX), zoo_names()
    if name not in known:
        raise UnknownNameError(
            f"The zoo has no agent {name!r}.{suggestion(name, known)} Known: "
            f"{', '.join(known) or 'none; the folder of the zoo is missing'}."
        )
    return zoo_folder() / name


def results_path(folder: Path) -> Path:
    """Where results of a run are written by default: in its folder, or for the zoo below runs/."""
    return Path("runs") / "zoo" / folder.name if is_in_zoo(folder) else folder


def evaluated_folder(path: Path) -> Path:
    """The folder with the results of a run: its own, or that below runs/ for `zoo:NAME`.

    Raises:
        UnknownNameError: the zoo has no agent of this name.
        RunFolderError: that agent was not evaluated here.
    """
    if not os.fspath(path).startswith(PREFIX):
        return path
    folder = results_path(run_path(path))
    if not folder.is_dir():
        raise RunFolderError(f"{path} was not evaluated here; `metarl evaluate {path}` does it.")
    return folder
