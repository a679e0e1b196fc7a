"""Files of a run folder that are written row by row, or whole or not at all."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metarl.errors import RunFolderError


class MetricsFile:
    """`metrics.csv`: one row per meta-iteration, flushed at once."""

    def __init__(self, path: Path, *, keep: int) -> None:
        """Opens the file, keeping the rows of the first `keep` iterations of an earlier session."""
        rows = read_metrics(path) if path.exists() else []
        kept = [row for row in rows if float(row["iteration"]) <= keep]
        with as_folder_error(path):
            self._file = path.open("w", newline="")
        self._writer: csv.DictWriter[str] | None = None
        for row in kept:
            self.write(row)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row; the first decides the columns."""
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow(
            {
                key: f"{value:.6g}" if isinstance(value, float) else value
                for key, value in row.items()
            }
        )
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a `metrics.csv`."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON whole or not at all.

    Raises:
        RunFolderError: a value is not a number, text, list or mapping of these.
    """
    try:
        text = json.dumps(content, indent=2)
    except TypeError as error:
        raise RunFolderError(
            f"The settings cannot be written to {path}: {error}. Options of agents and families "
            "must be numbers, text, or lists of these."
        ) from error
    temporary = path.with_suffix(".partial")
    with as_folder_error(path):
        temporary.write_text(text + "\n")
        os.replace(temporary, path)


@contextmanager
def as_folder_error(path: Path) -> Iterator[None]:
    """Says which place cannot be written to, and why."""
    try:
        yield
    except RunFolderError:
        raise  # it has said so itself
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written ({error.strerror or error}); choose another place with "
            "--out, or free this one."
        ) from error
