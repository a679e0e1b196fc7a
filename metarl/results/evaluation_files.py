"""The files of an evaluation, of which the table of curves has one of two forms, and moving them.

A folder holds one table, never two that could disagree: what writes one removes the other.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from metarl.errors import RunFolderError

TableForm: TypeAlias = Literal["csv", "parquet"]
ADAPTATION_FILES: Mapping[TableForm, str] = {
    "csv": "adaptation.csv",
    "parquet": "adaptation.parquet",
}
"""names inside a run folder; written by evaluation"""
STEPS_FILE = "trials.csv"
"""name inside a run folder; written by evaluation"""
SETTINGS_FILE = "evaluation.json"
"""name inside the folder of an evaluation"""


def adaptation_file(folder: Path) -> Path:
    """The table of curves in the folder of an evaluation; where there is none, that of CSV.

    Raises:
        RunFolderError: the folder holds both forms.
    """
    found = [folder / name for name in _present(folder)]
    if len(found) > 1:
        raise RunFolderError(
            f"{folder} holds {' and '.join(path.name for path in found)}, which may disagree: the "
            "folder of an evaluation has one of them. Remove one, or evaluate again."
        )
    return found[0] if found else folder / ADAPTATION_FILES["csv"]


def is_evaluated(folder: Path) -> bool:
    """Whether a folder holds a table of curves, in whatever form and state."""
    return bool(_present(folder))


def move_evaluation(source: Path, target: Path) -> None:
    """Moves the files of an evaluation over those in `target`, where no other table stays.

    Raises:
        OSError: a file cannot be moved.
    """
    tables = _present(source)
    for name in (*tables, STEPS_FILE, SETTINGS_FILE):
        if os.path.lexists(source / name):
            os.replace(source / name, target / name)
    remove_other_tables(target, tables)


def remove_other_tables(folder: Path, kept: list[str]) -> None:
    """Removes the tables of curves in `folder` but those named in `kept`.

    Raises:
        OSError: a file cannot be removed.
    """
    for name in _present(folder):
        if name not in kept:
            os.unlink(folder / name)


def _present(folder: Path) -> list[str]:
    """Names of the tables of curves in a folder, of broken links, too."""
    return [name for name in ADAPTATION_FILES.values() if os.path.lexists(folder / name)]
