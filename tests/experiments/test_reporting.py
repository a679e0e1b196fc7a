"""A file that a script cannot write ends it with one line, and old files stay whole."""

import re
from pathlib import Path

import make_zoo
import pytest
import reporting
from matplotlib.figure import Figure

import metarl
from tests.file_limits import file_size_limit
from tests.foreign_runs import train_tiny

SCRIPTS = sorted(Path(reporting.__file__).parent.glob("*.py"))


def test_a_text_that_does_not_fit_ends_the_script_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["experiments/few_shot.py"])
    path = tmp_path / "page.md"
    reporting.write_text(path, "old ± 1\n")
    with file_size_limit(100), pytest.raises(SystemExit) as ended:
        reporting.write_text(path, "new " * 100)
    assert re.fullmatch(r"few_shot\.py: .*page\.md cannot be written .*: free .*", ended.value.code)
    assert path.read_text(encoding="utf-8") == "old ± 1\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_a_figure_that_does_not_fit_ends_the_script_and_leaves_the_one_before(tmp_path, ending):
    figure, out = Figure(), tmp_path / "figure"
    reporting.save_figure(figure, out)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.suffix for path in before} == {".png", ".svg"}
    figure.subplots().plot([0, 1])
    with file_size_limit(1000), pytest.raises(SystemExit, match="free some space"):
        reporting.save_figure(figure, out.with_suffix(ending))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_equal_figures_give_equal_files(tmp_path):
    figure = Figure()
    figure.subplots().plot([0, 1])
    with reporting.figure_style():
        one, other = (reporting.save_figure(figure, tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_an_agent_of_the_zoo_that_does_not_fit_leaves_the_one_before(tmp_path, monkeypatch):
    run = metarl.load_run(train_tiny(tmp_path / "run"))
    zoo = tmp_path / "zoo"
    (name, *_) = make_zoo.AGENTS
    monkeypatch.setattr(metarl, "train", lambda *_, **__: run)
    monkeypatch.setattr(metarl, "evaluate", lambda *_, **__: [])
    options = make_zoo.Options(only=(name,), zoo=zoo)
    zoo.mkdir()
    make_zoo.main(options)
    before = {path: path.read_bytes() for path in zoo.rglob("*.*")}
    assert [path.parent.name for path in before] == [name] * 3
    with file_size_limit(1500), pytest.raises(SystemExit, match="free some space"):
        make_zoo.main(options)
    assert {path: path.read_bytes() for path in zoo.rglob("*.*")} == before


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_write_files_through_the_helpers_alone(script):
    text = script.read_text(encoding="utf-8")
    written = re.findall(r"\.write_(?:text|bytes)\(|\.savefig\(|open\([^)]*[\"'][wax]", text)
    assert len(written) == (2 if script.name == "reporting.py" else 0)
