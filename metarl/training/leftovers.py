"""What a training that finished no iteration leaves in its folder."""

from pathlib import Path

from metarl.errors import RunFolderError
from metarl.results.files import is_draft
from metarl.results.learning_curves import EVALUATION_CURVE_FILE, METRICS_FILE
from metarl.results.reading import read_small_file

LOCK_FILE = "training.lock"
"""empty; locked while a process trains in the folder"""
EVENTS = "events.out.tfevents."
"""beginning of the names of TensorBoard's files"""
TRACKING_FILE = "tracking.json"
"""ids of the run in the services that track it"""

_TABLES = ("config.json", METRICS_FILE, EVALUATION_CURVE_FILE, TRACKING_FILE)


def files_of_a_training(folder: Path) -> set[str]:
    """Names of the files that a training without a checkpoint has left, killed or failed.

    Without a `config.json` of metarl, a table or events may be of another program.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    left = {name for name in names if name == LOCK_FILE or is_draft(name)}
    try:
        is_run = b'"metarl-run-' in read_small_file(folder / "config.json", "a run's config.json")
    except RunFolderError:
        is_run = False
    if is_run:
        left |= {name for name in names if name in _TABLES}
        left |= {name for name in names if name.startswith(EVENTS)}
    return left


def foreign_files(folder: Path) -> list[str]:
    """Sorted names of everything else in a folder."""
    return sorted({path.name for path in folder.iterdir()} - files_of_a_training(folder))
