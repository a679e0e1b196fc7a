"""Atomic writing of files."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from metarl.errors import RunFolderError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a draft next to `path` that replaces it when the context ends without an error.

    If the context fails or is interrupted, the old file is unchanged and the draft is removed.
    """
    draft = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        with suppress(OSError):  # the folder may be missing
            draft.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON atomically.

    Raises:
        RunFolderError: a value is not a number, text, list or mapping of these, or the file cannot
            be written.
    """
    try:
        text = json.dumps(content, indent=2)
    except TypeError as error:
        raise RunFolderError(
            f"The settings cannot be written to {path}: {error}. Options of agents and families "
            "must be numbers, text, or lists of these."
        ) from error
    with as_folder_error(path), atomic_write(path) as draft:
        draft.write_text(text + "\n")


@contextmanager
def as_folder_error(path: Path) -> Iterator[None]:
    """Converts an `OSError` into a `RunFolderError` that gives the path and the cause."""
    try:
        yield
    except RunFolderError:
        raise  # already has a message
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written ({error.strerror or error}); choose another path with "
            "--out, or make this one writable."
        ) from error
