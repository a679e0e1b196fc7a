"""Files that are written whole or not at all."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from metarl.errors import RunFolderError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A draft next to `path` that replaces it when the context ends without an error.

    An interrupted or failed context leaves the old file as it was, and no draft.
    """
    draft = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        with suppress(OSError):  # there may not even be a folder
            draft.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON, whole or not at all.

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
    with as_folder_error(path), written_whole(path) as draft:
        draft.write_text(text + "\n")


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
