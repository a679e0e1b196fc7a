"""Reading files of unknown origin: each is checked before its content is used."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, AnyStr

from metarl.errors import RunFolderError
from metarl.text import visible

MAX_BYTES = 10_000_000
"""of a file that is read as a whole; a config.json has a few thousand"""
MAX_LINE = 10_000_000
"""characters in a line of a table; one with an image as observation has about 400,000"""
MAX_DEPTH = 20
"""of lists and mappings within each other"""
SHORT = 1000
"""characters that a message takes from another one"""
QUOTED = 60
"""characters that a message quotes of a file"""


def require_file(path: Path) -> None:
    """Raises `RunFolderError` if something else than a file has this name, such as a pipe.

    A link to a file counts as a file, a missing one is left to the caller.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise RunFolderError(f"{path} cannot be read: {error}.") from error
    if not stat.S_ISREG(mode):
        raise RunFolderError(
            f"{path} is a folder, a pipe or a device, where a file is expected. Remove it, or give "
            "another path."
        )


def read_json(path: Path, kind: str) -> Any:
    """The content of a JSON file.

    Args:
        path: of the file.
        kind: what it should be, for messages, such as "a run's config.json".

    Raises:
        RunFolderError: it is missing, no file, too large, not UTF-8, or not JSON.
    """
    return parse_json(read_small_file(path, kind), path, kind)


def read_small_file(path: Path, kind: str) -> bytes:
    """The bytes of a file of at most `MAX_BYTES`; arguments and errors are those of `read_json`."""
    require_file(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RunFolderError(f"{path} is not {kind}: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise RunFolderError(f"{path} is not {kind}: it has more than {MAX_BYTES:,} bytes.")
    return content


def lines_of(path: Path, file: IO[AnyStr]) -> Iterator[AnyStr]:
    """The lines of an open table, with their ends; each is bounded, so that memory is.

    Raises:
        RunFolderError: a line has more than `MAX_LINE` characters.
    """
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise RunFolderError(
                f"{path} cannot be read: a line has more than {MAX_LINE:,} characters."
            )
        yield line


def parse_json(content: str | bytes, path: Path, kind: str) -> Any:
    """Parses JSON that a file holds; the other arguments are as in `read_json`.

    Raises:
        RunFolderError: it is not UTF-8, not JSON, or nested too deeply.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path} is not {kind}: {shortened(error)}.") from error
    if _depth(value) > MAX_DEPTH:
        raise RunFolderError(f"{path} is not {kind}: values are nested over {MAX_DEPTH} deep.")
    return value


def quoted(value: object) -> str:
    """A value from a file for a message: its `repr`, cut to `QUOTED` characters."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."


def shortened(quote: object) -> str:
    """A message or a list that may quote a file, cut to `SHORT` visible characters."""
    text = visible(quote)
    return text if len(text) <= SHORT else f"{text[:SHORT]}..."


def _depth(value: Any) -> int:
    """How deep lists and mappings are nested; counts only to just above `MAX_DEPTH`."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH:
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            break
        depth += 1
    return depth
