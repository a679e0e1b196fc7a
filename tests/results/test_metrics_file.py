"""metrics.csv is appended to; where a training continues, only its end is cut off."""

import os

import pytest

from metarl.errors import RunFolderError
from metarl.results.learning_curves import MetricsFile, read_metrics

HEADER = "iteration,loss\n"


def rows(path):
    return [row["iteration"] for row in read_metrics(path)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER + "".join(f"{i},0.5\n" for i in range(1, 6)))
    return path


def test_rows_after_the_checkpoint_are_cut_off_and_the_file_is_the_same_one(path):
    before = os.stat(path).st_ino
    file = MetricsFile(path, keep=3)
    assert path.read_text() == HEADER + "1,0.5\n2,0.5\n3,0.5\n"  # before anything is written
    file.write({"iteration": 4, "loss": 0.25})
    file.close()
    assert rows(path) == ["1", "2", "3", "4"]
    assert os.stat(path).st_ino == before


def test_a_row_with_a_cell_too_many_destroys_nothing(path):
    path.write_text(HEADER + "1,0.5\n2,0.5,7\n3,0.5\n4,0.5\n")
    MetricsFile(path, keep=3).close()
    assert path.read_text() == HEADER + "1,0.5\n2,0.5,7\n3,0.5\n"


@pytest.mark.parametrize(
    "header", ["a\riteration,loss\n", '"' + "a" * 200_000 + '"\n', "a" * 10_000_001, "loss\n"]
)
def test_a_first_line_that_is_no_header_is_one_error_and_the_file_stays(path, header):
    path.write_text(header, newline="")
    with pytest.raises(RunFolderError, match=r"names no column 'iteration'|a line has more than"):
        MetricsFile(path, keep=3)
    assert path.stat().st_size == len(header)


@pytest.mark.parametrize("row", ["2", "2,0.5,7"])
def test_rows_that_do_not_fit_the_header_are_one_error_when_read(path, row):
    path.write_text(f"{HEADER}1,0.5\n{row}\n")
    with pytest.raises(RunFolderError, match=r"a row has \d cells, the header 2"):
        read_metrics(path)
    path.write_text(f"{HEADER}1,0.5\n{row}")  # torn: a training was killed
    assert rows(path) == ["1"]
    path.write_text("")
    assert read_metrics(path) == []


@pytest.mark.parametrize("torn", ["4,0.", "4", "itera"])
def test_a_torn_last_line_is_cut_off(path, torn):
    whole = HEADER + "1,0.5\n2,0.5\n3,0.5\n" if torn[0] == "4" else ""
    path.write_text(whole + torn)
    MetricsFile(path, keep=3 if whole else 0).close()
    assert path.read_text() == whole


def test_missing_rows_are_reported(path, caplog):
    MetricsFile(path, keep=9).close()
    assert "metrics.csv ends at iteration 5, but the training continues after iteration 9" in (
        caplog.text
    )
    caplog.clear()
    MetricsFile(path, keep=5).close()
    assert caplog.text == ""


def test_columns_are_those_of_the_file_under_current_names(path):
    path.write_text("iteration,gradient_norm\n1,0.5\n")
    file = MetricsFile(path, keep=1)
    file.write({"grad_norm": 0.25, "unknown": 3.0, "iteration": 2})
    file.close()
    assert path.read_text() == "iteration,gradient_norm\n1,0.5\n2,0.25\n"


def test_a_table_of_something_else_is_refused_and_unchanged(path):
    path.write_text("a,b\n1,2\n")
    with pytest.raises(RunFolderError, match=r"names no column 'iteration'.*Move it away"):
        MetricsFile(path, keep=0)
    assert path.read_text() == "a,b\n1,2\n"
