import csv
from dataclasses import replace

import numpy as np
import pytest

from metarl.errors import RunFolderError, ShapeError
from metarl.results.adaptation_curves import COLUMNS, Curve, read_curves, write_curves


def make_curve(*, points=3, tasks=4, seed=0, **names):
    rng = np.random.default_rng(seed)
    success = rng.random((points, tasks))
    success[0, 1] = np.nan
    described = {
        "run": "rl2-bandit-3",
        "agent": "rl2",
        "role": "agent",
        "label": 'RL^2, "GRU"',
        "family": "metarl/BernoulliBandit-v0",
        "split": "test",
        "seed": 7,
    }
    return Curve(
        **{**described, **names},
        episode=np.arange(1, points + 1),
        env_steps=rng.integers(1, 100, (points, tasks)) / 3,
        returns=1e6 * rng.standard_normal((points, tasks)),
        success=success,
    )


def assert_equal(one, other):
    for name in ("run", "agent", "role", "label", "family", "split", "seed"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("episode", "env_steps", "returns", "success"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_written_curves_are_read_back_bit_for_bit(tmp_path):
    curves = [make_curve(), make_curve(agent="random", run="", role="floor", points=5, seed=1)]
    write_curves(tmp_path / "a.csv", curves)
    for one, other in zip(curves, read_curves(tmp_path / "a.csv"), strict=True):
        assert_equal(one, other)


def test_rows_are_tidy_and_undefined_success_is_empty(tmp_path):
    write_curves(tmp_path / "a.csv", [make_curve(points=2, tasks=3)])
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == 2 * 3
    assert [row["success"] == "" for row in rows] == [False, True, False, False, False, False]
    assert [(row["episode"], row["task"]) for row in rows[:4]] == [
        ("1", "0"),
        ("1", "1"),
        ("1", "2"),
        ("2", "0"),
    ]


def test_rows_and_columns_may_come_in_any_order(tmp_path):
    curves = [make_curve(), make_curve(agent="random", seed=1)]
    path = tmp_path / "a.csv"
    write_curves(path, curves)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    body = [rows[i] for i in np.random.default_rng(0).permutation(np.arange(1, len(rows)))]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*row[::-1], "more"] for row in [rows[0], *body]])
    back = {curve.agent: curve for curve in read_curves(path)}
    assert_equal(back["rl2"], curves[0])
    assert_equal(back["random"], curves[1])


def edit(path, line, change):
    lines = path.read_text().splitlines(keepends=True)
    lines[line - 1] = change(lines[line - 1])
    path.write_text("".join(lines))


@pytest.mark.parametrize(
    ("line", "change", "complaint"),
    [
        (1, lambda text: text.replace("return,", ""), "names no column return"),
        (4, lambda text: text[: text.rindex(",")] + "\n", r"Line 4 .* 12 cells .* header has 13"),
        (5, lambda text: text.replace(",3,1,", ",3,1,x", 1), r"Line 5 .*'x.*column 'env_steps'"),
        (5, lambda text: ",".join([*text.split(",")[:-2], "nan,0\n"]), r"Line 5 .*'return'"),
        (6, lambda text: text.replace(",0,2,", ",0,2.5,", 1), r"Line 6 .*'2.5'.*whole number"),
        (6, lambda text: "", "11 rows .* 12 in all"),
        (6, lambda text: text + text, "13 rows .* 12 in all"),
        (6, lambda text: text.replace(",0,2,", ",3,2,", 1), "12 rows .* must have one row"),
        (13, lambda text: text[:-3], "last line .* has no end"),
    ],
)
def test_the_error_names_the_damaged_line(tmp_path, line, change, complaint):
    path = tmp_path / "a.csv"
    write_curves(path, [make_curve()])
    edit(path, line, change)
    with pytest.raises(RunFolderError, match=complaint):
        read_curves(path)


def test_the_training_seed_is_empty_where_nothing_was_trained(tmp_path):
    path = tmp_path / "a.csv"
    write_curves(path, [make_curve(training_seed=11), make_curve(agent="random")])
    assert [curve.training_seed for curve in read_curves(path)] == [11, None]
    with path.open(newline="") as file:
        cells = [row["training_seed"] for row in csv.DictReader(file)]
    assert cells == ["11"] * 12 + [""] * 12


def test_a_table_of_an_earlier_version_has_no_training_seed(tmp_path):
    path = tmp_path / "a.csv"
    write_curves(path, [make_curve(training_seed=11)])
    path.write_text(path.read_text().replace("training_seed,", "", 1).replace(",7,11,", ",7,"))
    (curve,) = read_curves(path)
    assert_equal(curve, make_curve())
    assert curve.training_seed is None


@pytest.mark.parametrize("cell", ["eleven", "1.5", "-"])
def test_a_training_seed_that_is_not_a_number_is_refused(tmp_path, cell):
    write_curves(tmp_path / "a.csv", [make_curve(training_seed=cell)])
    with pytest.raises(RunFolderError, match=f"'{cell}' in column 'training_seed'"):
        read_curves(tmp_path / "a.csv")


def test_a_seed_that_is_not_a_number_is_refused(tmp_path):
    write_curves(tmp_path / "a.csv", [replace(make_curve(), seed="seven")])
    with pytest.raises(RunFolderError, match="'seven' in column 'seed'"):
        read_curves(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "names no column run"), (b"\xff\xfe\x00", "cannot be read"), (None, "There is no")],
)
def test_a_missing_or_unreadable_file_is_refused(tmp_path, content, complaint):
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunFolderError, match=complaint):
        read_curves(path)


def test_a_file_without_rows_is_refused(tmp_path):
    write_curves(tmp_path / "a.csv", [])
    with pytest.raises(RunFolderError, match=r"holds no rows; .*metarl evaluate"):
        read_curves(tmp_path / "a.csv")


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    def interrupted():
        yield make_curve(seed=1)
        raise KeyboardInterrupt

    path = tmp_path / "a.csv"
    write_curves(path, [make_curve()])
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_curves(path, interrupted())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_names_a_missing_folder(tmp_path):
    with pytest.raises(RunFolderError, match=r"nowhere.a\.csv cannot be written \(No such file"):
        write_curves(tmp_path / "nowhere" / "a.csv", [make_curve()])


@pytest.mark.parametrize(
    ("field", "shape", "complaint"),
    [
        ("episode", (3, 1), r"must be \[P\]"),
        ("episode", (0,), r"P >= 1"),
        ("returns", (2, 4), "Curve.returns must be .* P = 3"),
        ("success", (3,), "Curve.success must be"),
        (
            "env_steps",
            (3, 5),
            r"Curve.env_steps has shape \[3, 5\], but Curve.returns has \[3, 4\]",
        ),
    ],
)
def test_a_curve_with_wrong_axes_is_refused(field, shape, complaint):
    with pytest.raises(ShapeError, match=complaint):
        replace(make_curve(), **{field: np.zeros(shape)})
