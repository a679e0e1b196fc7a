"""Reading and writing Parquet tables with pyarrow, an extra; errors name the file and the column.

Parquet (https://parquet.apache.org/docs/file-format/) holds columns apart and compressed, in groups
of rows. Files may be of unknown origin: sizes, names and types of columns are checked before any
value is read, and metadata of other programs, such as those of pandas, are ignored.

Axes: `R` rows of one group.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from metarl.errors import MissingPackageError, RunFolderError
from metarl.extras import require_extra
from metarl.results.csv_files import TableKind, first_invalid
from metarl.results.files import atomic_write
from metarl.results.reading import require_file, shortened

MAX_BYTES = 2_000_000_000
"""of a file"""
MAX_ROWS = 50_000_000
"""of all groups; the numbers of an adaptation table of so many rows take 2 GB of memory"""
MAX_UNPACKED_BYTES = 4_000_000_000
"""that a file may state as its size without compression"""
MAX_COLUMNS = 1000
MAX_TEXT = 100_000
"""characters of a name"""
FIRST_SAFE_VERSION = 17
"""of pyarrow; versions up to 14.0.0 execute code that a file holds (CVE-2023-47248)"""
_METADATA_LIMITS = {
    "thrift_string_size_limit": 10_000_000,
    "thrift_container_size_limit": 1_000_000,
}

Value: TypeAlias = str | int | NDArray[Any] | None
"""a column of one group: a name that all of its rows share, or numbers [R]"""


@dataclass(frozen=True, kw_only=True)
class ParquetColumns:
    """The columns of a table by type; other columns of a file are ignored."""

    texts: Sequence[str]
    """names, stored once for each group"""
    wholes: Sequence[str]
    """names that are whole numbers; those in `gaps` may be missing"""
    counts: Sequence[str]
    """whole numbers, one for each row"""
    numbers: Sequence[str]
    """finite numbers, one for each row; those in `gaps` may be missing"""
    gaps: Sequence[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that tell the curves, or what else a table holds, apart."""
        return (*self.texts, *self.wholes)

    @property
    def values(self) -> tuple[str, ...]:
        """Columns with a number for each row."""
        return (*self.counts, *self.numbers)


@dataclass(frozen=True)
class RowGroup:
    """The rows of one group, in the order of the file."""

    names: tuple[tuple[NDArray[np.int64], list[str]], ...]
    """for each of `ParquetColumns.names`, the place [R] of each row's name in a list of names; a
    missing name is empty"""
    values: NDArray[np.float64]
    """[V, R] of `ParquetColumns.values`; a missing number is NaN"""


def require_pyarrow(need: str) -> Any:
    """The module `pyarrow.parquet`.

    Args:
        need: beginning of the message, such as "adaptation.parquet needs pyarrow".

    Raises:
        MissingPackageError: pyarrow is not installed, or of a version that is too old.
    """
    parquet = require_extra("pyarrow.parquet", "parquet", need)
    version = require_extra("pyarrow", "parquet", need).__version__
    if int(version.split(".")[0]) < FIRST_SAFE_VERSION:
        raise MissingPackageError(
            f"{need} {FIRST_SAFE_VERSION} or newer, but {version} is installed: "
            "pip install 'metarl-suite[parquet]'."
        )
    return parquet


def write_parquet(
    path: Path, columns: ParquetColumns, groups: Iterable[Mapping[str, Value]]
) -> None:
    """Writes one Parquet file atomically, each group apart; floats are read back bit for bit.

    Args:
        path: of the file.
        columns: its columns.
        groups: names and numbers of each group, by column.

    Raises:
        RunFolderError: the folder is missing or not writable, or the disk is full.
        MissingPackageError: pyarrow is not installed.
    """
    parquet = require_pyarrow(f"{path} needs pyarrow")
    pyarrow = require_extra("pyarrow", "parquet", f"{path} needs pyarrow")
    schema = _schema(pyarrow, columns)
    with (
        atomic_write(path) as draft,
        # pyarrow writes to Python's file, whose errors have a number, such as that of a full disk.
        draft.open("wb") as file,
        parquet.ParquetWriter(
            file,
            schema,
            compression="zstd",
            # Numbers of a dictionary would be compressed worse, and those of few values no better.
            use_dictionary=[*columns.names, *columns.counts],
            use_byte_stream_split=list(columns.numbers),
            write_page_checksum=True,
        ) as writer,
    ):
        for group in groups:
            writer.write_table(_table(pyarrow, schema, group))


def read_parquet(path: Path, kind: TableKind, columns: ParquetColumns) -> Iterator[RowGroup]:
    """The groups of a Parquet file that has these columns, in any order.

    Raises:
        RunFolderError: the file is missing, damaged, too large or of another kind.
        MissingPackageError: pyarrow is not installed.
    """
    require_file(path)
    parquet = require_pyarrow(f"{path} needs pyarrow")
    pyarrow = require_extra("pyarrow", "parquet", f"{path} needs pyarrow")
    with _as_damage(pyarrow, path, kind), path.open("rb") as opened:
        _require_size(path, opened.seek(0, 2), MAX_BYTES, "bytes")
        file = parquet.ParquetFile(
            opened,
            read_dictionary=list(columns.texts),
            page_checksum_verification=True,
            **_METADATA_LIMITS,
        )
        _require_sizes(path, file.metadata)
        _require_types(pyarrow.types, path, kind, columns, file.schema_arrow)
        read = 0
        for number in range(file.metadata.num_row_groups):
            table = file.read_row_group(
                number, columns=[*columns.names, *columns.values], use_threads=False
            )
            table.validate(full=True)
            if table.num_rows:
                yield _row_group(path, kind, columns, table, read)
            read += table.num_rows
        if read != file.metadata.num_rows:
            raise RunFolderError(
                f"{path} states {file.metadata.num_rows} rows and has {read}: it was edited; "
                f"{kind.remedy(path)}"
            )


def _schema(pyarrow: Any, columns: ParquetColumns) -> Any:
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    types = [
        *((name, text) for name in columns.texts),
        *((name, pyarrow.int64()) for name in (*columns.wholes, *columns.counts)),
        *((name, pyarrow.float64()) for name in columns.numbers),
    ]
    return pyarrow.schema(
        [pyarrow.field(name, one, nullable=name in columns.gaps) for name, one in types]
    )


def _table(pyarrow: Any, schema: Any, group: Mapping[str, Value]) -> Any:
    """A table [R] of one group."""
    rows = max(len(value) for value in group.values() if isinstance(value, np.ndarray))
    arrays = []
    for field in schema:
        value = group[field.name]
        if isinstance(value, np.ndarray):
            missing = np.isnan(value) if field.nullable else None
            arrays.append(pyarrow.array(value, field.type, mask=missing))
        elif isinstance(value, str):
            places = pyarrow.array(np.zeros(rows, np.int32))
            arrays.append(pyarrow.DictionaryArray.from_arrays(places, [value]))
        else:
            arrays.append(pyarrow.repeat(pyarrow.scalar(value, field.type), rows))
    return pyarrow.Table.from_arrays(arrays, schema=schema)


@contextmanager
def _as_damage(pyarrow: Any, path: Path, kind: TableKind) -> Iterator[None]:
    """Converts the errors of pyarrow, and those of the file system, to `RunFolderError`."""
    try:
        yield
    except (RunFolderError, MissingPackageError):
        raise
    except FileNotFoundError as error:
        raise RunFolderError(
            f"There is no {path}; `metarl {kind.command} {path.parent}` writes it."
        ) from error
    # Malformed files raise all of these, such as a UnicodeDecodeError.
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        raise RunFolderError(
            f"{path} cannot be read: {shortened(error)}; {kind.remedy(path)}"
        ) from error


def _require_size(path: Path, size: int, limit: int, what: str) -> None:
    if size > limit:
        raise RunFolderError(f"{path} has {size:,} {what}; at most {limit:,} are read.")


def _require_sizes(path: Path, metadata: Any) -> None:
    """Raises `RunFolderError` if a file states more content than is read."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = max(metadata.num_rows, sum(group.num_rows for group in groups))
    unpacked = sum(group.total_byte_size for group in groups)
    _require_size(path, rows, MAX_ROWS, "rows")
    _require_size(path, metadata.num_columns, MAX_COLUMNS, "columns")
    _require_size(path, unpacked, MAX_UNPACKED_BYTES, "bytes without compression")


def _require_types(
    types: Any, path: Path, kind: TableKind, columns: ParquetColumns, schema: Any
) -> None:
    """Raises `RunFolderError` unless each column is there once, and of its type."""
    wanted = (*columns.names, *columns.values)
    if missing := [name for name in wanted if schema.names.count(name) != 1]:
        raise RunFolderError(
            f"{path} has no column {', '.join(missing)}, or several; the columns of {kind.content} "
            f"are {', '.join(wanted)}."
        )
    expected = {
        **dict.fromkeys(columns.texts, (_is_text, "texts")),
        **dict.fromkeys((*columns.wholes, *columns.counts), (_is_whole, "whole numbers")),
        **dict.fromkeys(columns.numbers, (_is_number, "numbers")),
    }
    for name, (is_expected, content) in expected.items():
        found = schema.field(name).type
        if not is_expected(types, found):
            raise RunFolderError(
                f"Column {name!r} of {path} is of type {shortened(found)}, where {content} are "
                f"expected; {kind.remedy(path)}"
            )


def _is_text(types: Any, found: Any) -> bool:
    if types.is_dictionary(found):
        found = found.value_type
    return bool(types.is_string(found) or types.is_large_string(found))


def _is_whole(types: Any, found: Any) -> bool:
    return bool(types.is_integer(found))


def _is_number(types: Any, found: Any) -> bool:
    return bool(types.is_float64(found) or types.is_float32(found) or types.is_integer(found))


def _row_group(
    path: Path, kind: TableKind, columns: ParquetColumns, table: Any, before: int
) -> RowGroup:
    """The rows of one group, checked; `before` is the number of rows before them."""
    names = []
    for name in columns.names:
        column = table[name].combine_chunks()
        if column.null_count and name not in columns.gaps:
            raise RunFolderError(f"{path} has no {name!r} in some rows; {kind.remedy(path)}")
        if name in columns.wholes:  # texts are read so already
            column = column.dictionary_encode("encode")
        listed = ["" if one is None else str(one) for one in column.dictionary.to_pylist()]
        if any(len(one) > MAX_TEXT for one in listed):
            raise RunFolderError(
                f"{path} has a text of more than {MAX_TEXT:,} characters in column {name!r}; "
                f"{kind.remedy(path)}"
            )
        names.append((column.indices.to_numpy().astype(np.int64), listed))
    values = np.empty((len(columns.values), table.num_rows))
    for row, name in enumerate(columns.values):
        column = table[name]
        values[row] = column.to_numpy()
        at = first_invalid(values[row], name, gaps=name in columns.gaps)
        if at is not None:
            raise RunFolderError(
                f"Row {before + at + 1} of {path} has {float(values[row, at])!r} in column "
                f"{name!r}, where a number is expected; {kind.remedy(path)}"
            )
    return RowGroup(tuple(names), values)
