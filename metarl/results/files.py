"""Atomic writing of files: a reader finds the old file or the new one, whole, whatever happens."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from metarl.errors import RunFolderError
from metarl.field_types import checks_arguments

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@checks_arguments("path")
@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a draft next to `path` that replaces it when the context ends without an error.

    If the context fails or is interrupted, the old file is unchanged and the draft is removed. The
    content is on the disk before it has its final name, so a power cut leaves no empty file there.
    The mode is that of any new file (the umask), whatever the code in the context makes of it. A
    link is replaced, not followed.

    Raises:
        ConfigError: `path` is no path.
        RunFolderError: the file cannot be written, or `path` is a device or a pipe. An `OSError`
            within the context counts as such.
    """
    path = Path(path)
    with as_folder_error(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")
        if not path.name:
            raise OSError(errno.EISDIR, "it is a folder, not a file")
        draft = draft_of(path)
        try:
            with suppress(FileNotFoundError):
                draft.unlink()  # of a process that was killed and had the same number
            with draft.open("xb") as file:
                mode = os.fstat(file.fileno()).st_mode
            yield draft
            os.chmod(draft, mode & 0o777)
            _flush_to_disk(draft)
            os.replace(draft, path)
            _flush_to_disk(path.parent)
        finally:
            with suppress(OSError):  # the folder may be missing
                draft.unlink()


def make_parent(path: Path) -> None:
    """Makes the folder of a file that is to be written, where it is missing.

    Raises:
        RunFolderError: it cannot be made.
    """
    with as_folder_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)


class AppendedFile:
    """A file that grows by whole records, each on its way to the disk at once.

    It is unbuffered, so that a full disk is noticed by the record that does not fit.
    """

    def __init__(self, path: Path) -> None:
        """Opens or creates the file; `RunFolderError` if it cannot be written."""
        self._path = path
        with as_folder_error(path):
            self._file = path.open("ab", buffering=0)

    def write(self, record: bytes) -> None:
        """Appends a record, or raises `RunFolderError` and leaves the file as it was."""
        with as_folder_error(self._path):
            end = os.fstat(self._file.fileno()).st_size
            try:
                if self._file.write(record) != len(record):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._file.truncate(end)
                raise

    def cut(self, end: int) -> None:
        """Removes everything from byte `end` on."""
        with as_folder_error(self._path):
            self._file.truncate(end)

    def sync(self) -> None:
        """Waits until all records have reached the disk."""
        with as_folder_error(self._path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def draft_of(path: Path) -> Path:
    """Name of the draft of this process for a file."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def is_draft(name: str) -> bool:
    """Whether a file of this name is a draft, possibly of a process that was killed."""
    return name.startswith(".") and ".partial" in name


def json_text(path: Path, content: Mapping[str, Any]) -> str:
    """The text of a JSON file.

    Raises:
        RunFolderError: a value is not a number, text, list or mapping of these.
    """
    try:
        return json.dumps(content, indent=2) + "\n"
    except TypeError as error:
        raise RunFolderError(
            f"The settings cannot be written to {path}: {error}. Options of agents and families "
            "must be numbers, text, or lists of these."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically.

    Raises:
        RunFolderError: the file cannot be written.
    """
    with atomic_write(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def as_folder_error(path: Path) -> Iterator[None]:
    """Converts an `OSError` into a `RunFolderError` that gives the path, the cause and a remedy."""
    try:
        yield
    except RunFolderError:
        raise  # already has a message
    except OSError as error:
        remedy = "choose another path, or make this one writable"
        if error.errno in _FULL:
            remedy = "free some space, or choose another path; older files are unchanged"
        raise RunFolderError(
            f"{path} cannot be written ({error.strerror or error}): {remedy}."
        ) from error


def _flush_to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, have reached the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # folders cannot be opened on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise  # otherwise the file system cannot do it
    finally:
        os.close(descriptor)
