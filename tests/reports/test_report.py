import json
import os
import re
from io import BytesIO

import matplotlib
import pytest
from PIL import Image

import metarl
from metarl.cli.main import main
from metarl.errors import ConfigError, RunFolderError, UnknownNameError
from metarl.plots.plot import plot
from metarl.reports import films
from metarl.reports.films import MAX_FILMS, Film
from metarl.reports.runs import read_run, settings_of
from metarl.reports.vector_plot import LEFT, RIGHT
from metarl.results.comparison_table import columns
from tests.foreign_runs import change_config, copy_of, train_tiny
from tests.reports.pages import make_folder, read_page
from tests.results.test_learning_curves import EVALUATIONS

HOSTILE = '</title><script>alert("x")</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("runs") / "tiny")


def reported(*runs, **options):
    options = {"films": False, **options}
    return read_page(metarl.report(runs, **options))


def numbers_of_figures(page):
    """Cells of the tables below the figures, by curve and point."""
    found = [one for one in page.tables if one[0][0] == "curve"]
    return [{(label, point): text for label, point, text in rows} for _, *rows in found]


def test_the_table_is_that_of_compare(tmp_path):
    runs = [make_folder(tmp_path / "a"), make_folder(tmp_path / "b", label="MAML", level=2.0)]
    page = reported(*runs, out=tmp_path / "r.html")
    expected = list(columns(metarl.compare(runs), differences=True))
    (shown,) = (one for one in page.tables if one[0][0] == "agent")
    assert shown[0] == [column.heading for column in expected]
    assert shown[1:] == [list(row) for row in zip(*(c.cells for c in expected), strict=True)]


def test_runs_of_two_families_are_refused_evaluated_or_not(tmp_path, tiny):
    other = tmp_path / "other"
    metarl.train("rl2", "metarl/TMaze-v0", out=other, num_tasks=4, iterations=1, progress=False)
    with pytest.raises(ConfigError, match=r"different families \(metarl/.*TMaze-v0\)"):
        metarl.report([tiny, other], out=tmp_path / "r.html", films=False)
    assert not (tmp_path / "r.html").exists()


def test_the_note_on_learning_promises_no_lines_that_the_page_lacks(tmp_path):
    run = make_folder(tmp_path / "a", values=[float(i % 2) for i in range(300)])
    text = reported(run, out=tmp_path / "r.html").text
    assert "running mean over 7 iterations." in text
    assert "faint" not in text


def test_evaluations_in_the_course_of_training_stand_beside_the_curve(tmp_path):
    runs = [make_folder(tmp_path / name, label=name) for name in ("a", "b")]
    (runs[1] / "evaluation_curve.csv").write_text(EVALUATIONS)
    path = tmp_path / "r.html"
    _, learning = numbers_of_figures(reported(*runs, out=path))
    found = {key: text for key, text in learning.items() if "held-out" in key[0]}
    assert found == {
        ("b, held-out tasks", "0 steps, 0 s"): "3",
        ("b, held-out tasks", "200 steps, 20 s"): "6",
    }


@pytest.mark.parametrize("points", [3, 20])
def test_the_curves_are_those_of_plot(tmp_path, points):
    runs = [make_folder(tmp_path / "a", points=points), make_folder(tmp_path / "b", seed=1)]
    runs[1:] = [] if points == 20 else runs[1:]
    plot(runs, data=tmp_path / "adaptation.data", out=tmp_path / "a.svg")
    plot(runs, kind="learning", data=tmp_path / "learning.data", out=tmp_path / "l.svg")
    adaptation, learning = numbers_of_figures(reported(*runs, out=tmp_path / "r.html"))
    rows = metarl.read_metrics(tmp_path / "adaptation.data")
    assert len(adaptation) == len(rows) == 3 * points
    for row in rows:
        role = "" if row["role"] == "agent" else f"{row['role']}: "
        mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
        text = adaptation[f"{role}{row['label']}", f"episode {row['episode']}"]
        assert text == f"{mean:.4g} [{low:.4g}, {high:.4g}]"
    rows = metarl.read_metrics(tmp_path / "learning.data")
    assert len(learning) == len(rows) == 3
    for row in rows:
        steps, seconds = float(row["env_steps"]), float(row["seconds"])
        assert (
            learning["RL²", f"{steps:,.0f} steps, {seconds:,.0f} s"] == f"{float(row['mean']):.4g}"
        )


def test_settings_that_differ_are_a_table_and_the_others_are_folded(tmp_path):
    runs = [
        make_folder(tmp_path / "one", hidden_size=8, gamma=0.9),
        make_folder(tmp_path / "two", hidden_size=16, gamma=0.9, extra=[1, 2]),
    ]
    differing, shared = settings_of([read_run(run, "last_episode_return") for run in runs])
    assert differing == ["hidden_size", "extra"]
    assert {"agent", "task", "task.arms", "seed", "gamma", "memory"} <= set(shared)
    page = reported(*runs, out=tmp_path / "r.html")
    table, folded, others = (one for one in page.tables if one[0][0] == "setting")
    assert table == [["setting", "one", "two"], ["hidden_size", "8", "16"]]
    assert ["gamma", "0.9"] in folded
    assert others[1:] == [["extra", "-", "[1, 2]"]]
    assert page.text.index("Settings that all runs share") < page.text.index(
        "only some of the runs"
    )
    (single,) = (one for one in reported(runs[0]).tables if one[0][0] == "setting")
    assert ["hidden_size", "8"] in single


def test_text_of_a_run_folder_is_escaped(tmp_path):
    folder = tmp_path / "<b>run"
    make_folder(folder, label=HOSTILE, option=HOSTILE)
    page = reported(folder, out=tmp_path / "r.html", title=HOSTILE)
    names = {name for name, _ in page.elements}
    assert names.isdisjoint({"script", "img", "iframe", "object", "link", "b", "a", "base", "form"})
    assert not [key for _, attributes in page.elements for key in attributes if key[:2] == "on"]
    assert page.text.count(HOSTILE) >= 4


def test_the_page_allows_no_script_and_names_nothing_outside(tmp_path):
    path = metarl.report([make_folder(tmp_path / "a")], films=False, out=tmp_path / "r.html")
    page, text = read_page(path), path.read_text(encoding="utf-8")
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?://|@import|url\((?!#)|<script|<link", text)


def test_equal_runs_give_equal_pages(tmp_path):
    run = make_folder(tmp_path / "a")
    one, two = (metarl.report([run], films=False, out=tmp_path / f"{n}.html") for n in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_a_run_that_was_not_evaluated_is_shown_without_evaluating_it(tmp_path):
    runs = [make_folder(tmp_path / "a"), make_folder(tmp_path / "b", seed=1)]
    (runs[1] / "adaptation.csv").unlink()
    page = reported(*runs, out=tmp_path / "r.html")
    assert "b has not been evaluated" in page.text
    assert f"metarl evaluate {runs[1]}" in page.text
    assert len(numbers_of_figures(page)) == 2
    assert not (runs[1] / "adaptation.csv").exists()
    page = reported(runs[1], out=tmp_path / "r.html")
    assert page.text.count("No run was evaluated yet; run metarl evaluate") == 2
    assert len(numbers_of_figures(page)) == 1


def test_where_it_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runs = [make_folder(tmp_path / "runs" / name, seed=seed) for seed, name in enumerate("ab")]
    assert metarl.report(runs[0], films=False) == runs[0] / "report.html"
    assert metarl.report(runs, films=False) == tmp_path / "runs" / "report.html"
    out = ["--out", "new/page.html", "--no-films"]
    assert main(["report", *map(str, runs), *out]) == 0
    assert capsys.readouterr().out.split() == ["new/page.html"]
    assert (tmp_path / "new" / "page.html").is_file()


def test_a_link_is_replaced_and_not_followed(tmp_path):
    run = make_folder(tmp_path / "a")
    precious = tmp_path / "precious"
    precious.write_text("old")
    (tmp_path / "r.html").symlink_to(precious)
    path = metarl.report([run], films=False, out=tmp_path / "r.html")
    assert precious.read_text() == "old"
    assert path.is_file()
    assert not path.is_symlink()


def test_a_failure_leaves_the_old_page(tmp_path, monkeypatch):
    run = make_folder(tmp_path / "a")
    path = metarl.report([run], films=False)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(RunFolderError, match=r"report.html cannot be written"):
        metarl.report([run], films=False, title="new")
    assert path.read_bytes() == before
    assert sorted(p.name for p in run.iterdir() if "partial" in p.name) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"out": "page.pdf"}, ConfigError, r"out='page.pdf' must end in .html"),
        ({"films": "no"}, ConfigError, "films='no' of ReportOptions"),
        ({"smooth": 0}, ConfigError, "smooth=0 must be greater than zero"),
        ({"references": ["best"]}, UnknownNameError, "No reference is called 'best'"),
        ({"metric": "loss"}, UnknownNameError, "no metric 'loss'"),
        ({"colour": "red"}, ConfigError, "colour"),
        ({"modules": ["no_such_module"]}, UnknownNameError, "no_such_module"),
    ],
)
def test_wrong_options_write_nothing(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    run = make_folder(tmp_path / "a")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        metarl.report([run], **{"films": False, **options})
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_compared_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match="empty is not a run folder: it has neither"):
        metarl.report([tmp_path / "empty"])
    runs = [make_folder(tmp_path / "a"), make_folder(tmp_path / "b", seed=1, tasks=130)]
    with pytest.raises(ConfigError, match="only curves from the same tasks can be compared"):
        metarl.report(runs)


def test_trainings_on_other_tasks_have_no_common_learning_curve(tmp_path):
    runs = [make_folder(tmp_path / "a"), make_folder(tmp_path / "b", seed=1)]
    config = json.loads((runs[1] / "config.json").read_text())
    config["task_options"]["arms"] = 7
    (runs[1] / "config.json").write_text(json.dumps(config))
    page = reported(*runs, out=tmp_path / "r.html")
    assert "No learning curves: 'a' was trained on" in page.text
    assert len(numbers_of_figures(page)) == 1


def test_chosen_references(tmp_path):
    run = make_folder(tmp_path / "a")
    (none, _), (one, _) = (
        numbers_of_figures(reported(run, references=names)) for names in ([], ["random"])
    )
    assert {label for label, _ in none} == {"RL²"}
    assert {label for label, _ in one} == {"RL²", "floor: random"}


def test_the_style_of_the_caller_is_restored(tmp_path):
    before = dict(matplotlib.rcParams)
    reported(make_folder(tmp_path / "a"))
    assert dict(matplotlib.rcParams) == before


def test_a_film_shows_the_trial(tiny, tmp_path):
    page = reported(tiny, films=True, out=tmp_path / "r.html")
    (film,) = page.all("img")
    assert film["src"].startswith("data:image/gif;base64,R0lGOD")
    assert film["alt"].startswith("Film of the agent of tiny in one trial")
    (still,) = page.all("source")
    assert still["srcset"].startswith("data:image/png;base64,iVBOR")
    assert (tmp_path / "r.html").stat().st_size < 500_000
    assert not list(tiny.glob("*.gif"))


def test_the_page_says_why_there_is_no_film(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path / "evaluated")
    for name in ("config.json", "checkpoint.safetensors"):
        (folder / name).unlink()
    assert (
        "No film of evaluated: the folder holds an evaluation" in reported(folder, films=True).text
    )
    foreign = copy_of(tiny, tmp_path / "foreign")
    change_config(foreign, task="planted:lab/X-v0")
    text = reported(foreign, films=True).text
    assert re.search("No film of foreign: .*--module", text)
    assert re.search("Whether training and test tasks of planted:.*not known", text)


def test_no_more_films_than_there_is_room_for(tmp_path, monkeypatch):
    count = MAX_FILMS + 1
    runs = [make_folder(tmp_path / f"r{i}", hidden_size=i + 1) for i in range(count)]
    runs.append(make_folder(tmp_path / "seed", hidden_size=1, seed=1))
    wide = []

    def film(run, most, progress):
        wide.append((run.name, most))
        image = BytesIO()
        Image.new("P", (1, 1)).save(image, "GIF")
        return Film(image.getvalue(), b"")

    monkeypatch.setattr(films, "_film", film)
    page = reported(*runs, films=True, out=tmp_path / "r.html")
    assert [name for name, _ in wide] == [f"r{i}" for i in range(MAX_FILMS)]  # one seed of each
    assert sum(most for _, most in wide) <= films.MAX_BYTES
    assert f"No room for films of r{MAX_FILMS}." in page.text


def test_seconds_are_placed_in_the_unit_of_their_axis(tmp_path):
    run = make_folder(tmp_path / "a", seconds=200.0)  # the axis shows minutes
    page = reported(run)
    assert "Minutes of training" in page.text
    discs = [float(one["cx"]) for one in page.all("circle") if one["r"] == "6"][-3:]
    assert LEFT < discs[0] < discs[1] < discs[2] < RIGHT
