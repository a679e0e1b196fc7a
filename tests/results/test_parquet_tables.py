"""Adaptation tables as Parquet: the same curves as in CSV, and files of unknown origin."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest

from metarl.errors import MissingPackageError, RunFolderError
from metarl.results import parquet_files
from metarl.results.adaptation_curves import COLUMNS, read_curves, write_curves
from tests.file_limits import file_size_limit
from tests.results.test_adaptation_curves import assert_equal, make_curve

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra 'parquet'")

CURVES = [
    make_curve(training_seed=3),
    make_curve(agent="random", run="", role="floor", points=5, seed=1),
]


@pytest.fixture
def path(tmp_path):
    """A table of `CURVES`."""
    write_curves(tmp_path / "a.parquet", CURVES)
    return tmp_path / "a.parquet"


def change(path, **columns):
    """Writes the table again with columns replaced; None removes a column."""
    table = parquet.read_table(path)
    for name, column in columns.items():
        at = table.schema.get_field_index(name)
        table = table.remove_column(at)
        if column is not None:
            table = table.add_column(at, name, column)
    parquet.write_table(table, path)


def assert_same(path, curves=CURVES):
    for one, other in zip(curves, read_curves(path), strict=True):
        assert_equal(one, other)


def test_written_curves_are_read_back_bit_for_bit(tmp_path, path):
    assert_same(path)
    extreme = np.array([[-0.0, 5e-324, 1.7976931348623157e308, 0.1 + 0.2]])
    curve = replace(make_curve(points=1), returns=extreme, env_steps=extreme / 3)
    write_curves(tmp_path / "b.parquet", [curve])
    (back,) = read_curves(tmp_path / "b.parquet")
    assert back.returns.tobytes() == curve.returns.tobytes()
    assert back.env_steps.tobytes() == curve.env_steps.tobytes()


def test_both_forms_hold_the_same_rows(tmp_path, path):
    write_curves(tmp_path / "a.csv", read_curves(path))
    assert_same(tmp_path / "a.csv")
    write_curves(tmp_path / "b.parquet", read_curves(tmp_path / "a.csv"))
    assert (tmp_path / "b.parquet").read_bytes() == path.read_bytes()


def test_other_programs_read_tidy_rows_with_types(path):
    table = parquet.read_table(path)
    assert table.column_names == list(COLUMNS)
    assert table.num_rows == sum(curve.returns.size for curve in CURVES)
    types = {field.name: str(field.type) for field in table.schema}
    assert {types[name] for name in ("seed", "training_seed", "task", "episode")} == {"int64"}
    assert {types[name] for name in ("env_steps", "return", "success")} == {"double"}
    assert types["label"] == "dictionary<values=string, indices=int32, ordered=0>"
    first = table.slice(0, 2).to_pylist()
    assert [row["success"] is None for row in first] == [False, True]
    assert table["training_seed"].to_pylist() == [3] * 12 + [None] * 20


def test_names_are_stored_once_and_numbers_are_compressed(tmp_path):
    tasks = 20_000
    counted = np.ones((5, tasks))
    curve = replace(
        make_curve(points=5), returns=counted, env_steps=counted, success=counted * np.nan
    )
    sizes = []
    for name in ("a.csv", "a.parquet"):
        write_curves(tmp_path / name, [replace(curve, family="a long name " * 20)])
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[1] < sizes[0] / 100


def test_rows_columns_and_types_of_other_programs_are_read(path):
    table = parquet.read_table(path)
    order = np.random.default_rng(0).permutation(table.num_rows)
    table = table.take(pyarrow.array(order)).select(COLUMNS[::-1])
    table = table.append_column("more", pyarrow.array(["x"] * table.num_rows))
    for name, kind in (("run", "string"), ("label", "large_string"), ("task", "int8")):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(kind))
    table = table.replace_schema_metadata({"pandas": "no JSON"})
    parquet.write_table(table, path, row_group_size=7, compression="snappy")
    back = {curve.agent: curve for curve in read_curves(path)}
    for curve in CURVES:
        assert_equal(back[curve.agent], curve)


def test_code_in_metadata_is_not_executed(tmp_path, path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    table = parquet.read_table(path)
    field = pyarrow.field(
        "more",
        pyarrow.int64(),
        metadata={
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickle.dumps(Evil()),
        },
    )
    more = pyarrow.array(range(table.num_rows))
    parquet.write_table(table.append_column(field, more), path)
    assert_same(path)
    assert not (tmp_path / "executed").exists()


def texts(*values):
    return pyarrow.array(values * 16, pyarrow.string())


def numbers(value, kind=None):
    return pyarrow.array([value] * 32, kind or pyarrow.float64())


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"return": None}, "has no column return, or several; the columns of an adaptation curve"),
        ({"run": numbers(1.0)}, "'run' .* is of type double, where texts are expected"),
        ({"task": numbers(1.0)}, "'task' .* where whole numbers are expected"),
        ({"return": texts("1", "2")}, "'return' .* of type string, where numbers are expected"),
        ({"seed": numbers(True, pyarrow.bool_())}, "'seed' .* of type bool"),
        ({"label": texts("a", None)}, "has no 'label' in some rows"),
        ({"seed": numbers(None, pyarrow.int64())}, "has no 'seed' in some rows"),
        ({"return": numbers(float("nan"))}, "Row 1 .* has nan in column 'return'"),
        ({"return": numbers(None)}, "Row 1 .* has nan in column 'return'"),
        ({"env_steps": numbers(float("inf"))}, "Row 1 .* has inf in column 'env_steps'"),
        ({"task": numbers(None, pyarrow.int64())}, "Row 1 .* in column 'task'"),
        ({"task": numbers(7, pyarrow.int64())}, "each of tasks 0 to 0 must have one row"),
        ({"agent": texts("a", "b")}, "must have one row for each episode"),
        ({"label": texts("\x1b[31m", "\x1b[31m")}, r"has '\\x1b\[31m' in column 'label'"),
        ({"family": texts("a" * 200_000, "b")}, "more than 100,000 characters in column 'family'"),
        ({"success": numbers(float("-inf"))}, "has -inf in column 'success'"),
    ],
)
def test_what_no_table_holds_is_refused(path, columns, complaint):
    change(path, **columns)
    with pytest.raises(RunFolderError, match=complaint):
        read_curves(path)


def test_a_column_that_occurs_twice_is_refused(path):
    table = parquet.read_table(path)
    parquet.write_table(table.append_column("return", table["return"]), path)
    with pytest.raises(RunFolderError, match="has no column return, or several"):
        read_curves(path)


def test_texts_that_are_no_utf_8_are_refused(path):
    broken = pyarrow.array([b"\xff\xfe"] * 32).view(pyarrow.string())
    change(path, label=broken)
    with pytest.raises(RunFolderError, match="cannot be read: "):
        read_curves(path)


def test_a_table_without_rows_is_refused(tmp_path):
    write_curves(tmp_path / "a.parquet", [])
    with pytest.raises(RunFolderError, match=r"holds no rows; .*metarl evaluate"):
        read_curves(tmp_path / "a.parquet")


def test_damage_is_found_by_checksums(path):
    """A changed byte within the numbers leaves a valid file, but not the checksum of its page."""
    content = bytearray(path.read_bytes())
    column = parquet.ParquetFile(path).metadata.row_group(0).column(COLUMNS.index("return"))
    content[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"cannot be read: .*CRC"):
        read_curves(path)


@pytest.mark.parametrize("end", [0, 3, 100, -1])
def test_a_cut_file_is_refused(path, end):
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(RunFolderError, match=r"cannot be read: .*`metarl evaluate"):
        read_curves(path)


def test_a_small_file_with_too_many_rows_is_refused_unread(path, monkeypatch):
    def row_group(*_):
        raise AssertionError("the rows were read")

    monkeypatch.setattr(parquet_files, "_row_group", row_group)
    table = parquet.read_table(path).slice(0, 1)
    many = table.take(pyarrow.array(np.zeros(parquet_files.MAX_ROWS // 100 + 1, np.int32)))
    with parquet.ParquetWriter(path, table.schema) as writer:
        for _ in range(100):
            writer.write_table(many)
    assert path.stat().st_size < 10_000_000
    with pytest.raises(RunFolderError, match="has 50,000,100 rows; at most 50,000,000 are read"):
        read_curves(path)


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ("MAX_BYTES", "bytes; at most 10"),
        ("MAX_COLUMNS", "has 13 columns"),
        ("MAX_UNPACKED_BYTES", "bytes without compression"),
    ],
)
def test_a_file_that_is_too_large_is_refused(path, monkeypatch, limit, what):
    monkeypatch.setattr(parquet_files, limit, 10)
    with pytest.raises(RunFolderError, match=what):
        read_curves(path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing", "text"])
def test_something_else_than_a_table_is_refused(tmp_path, kind):
    path = tmp_path / "a.parquet"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "text":
        path.write_text("run,agent")
    with pytest.raises(
        RunFolderError, match=r"where a file is expected|There is no|cannot be read"
    ):
        read_curves(path)


def test_a_version_of_pyarrow_that_executes_code_is_refused(path, monkeypatch):
    monkeypatch.setattr(pyarrow, "__version__", "14.0.0")
    with pytest.raises(MissingPackageError, match=r"needs pyarrow 17 or newer, but 14\.0\.0"):
        read_curves(path)


def test_a_full_disk_leaves_the_old_file(path):
    before = path.read_bytes()
    with file_size_limit(len(before) // 2), pytest.raises(RunFolderError, match="free some space"):
        write_curves(path, CURVES)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_an_interrupted_write_keeps_the_old_file(path):
    def interrupted():
        yield make_curve(seed=1)
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_curves(path, interrupted())
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_the_error_names_a_missing_folder(tmp_path):
    with pytest.raises(RunFolderError, match=r"a\.parquet cannot be written \(No such file"):
        write_curves(tmp_path / "nowhere" / "a.parquet", CURVES)
