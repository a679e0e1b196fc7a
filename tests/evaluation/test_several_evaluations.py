"""Evaluations of one run side by side; runs that are not trained alike are told apart."""

import csv
import json
from pathlib import Path

import pytest

import metarl
from metarl.cli.main import main
from metarl.errors import ConfigError, RunFolderError
from metarl.results.adaptation_curves import read_curves
from metarl.results.evaluation_settings import read_settings
from tests.foreign_runs import TINY, copy_of, train_tiny

RUN = Path("runs/a")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    return copy_of(tiny, tmp_path / RUN)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


ROWS = {"adaptation.csv", "trials.csv", "evaluation.json"}


@pytest.mark.parametrize(
    "options",
    [
        {"split": "train"},
        {"seed": 1},
        {"num_tasks": 8},
        {"episodes": 4},
        {"references": ("none",)},
        {"label": "mine"},
        {"task_options": {"pulls": 4}},
        {"agent_options": {"rollouts_per_task": 2}},
    ],
)
def test_an_evaluation_with_other_settings_keeps_the_earlier_one(run, options):
    before = {name: (run / name).read_bytes() for name in ROWS}
    metarl.evaluate(run, **{"num_tasks": 10, **options})
    (kept,) = (run / "evaluations").iterdir()
    assert {name: (kept / name).read_bytes() for name in files(kept)} == before
    assert kept.name.startswith("test-10-tasks-seed0-")
    metarl.evaluate(run, num_tasks=10)  # again as at first: the other one is kept, too
    assert len(list((run / "evaluations").iterdir())) == 2
    assert {name: (run / name).read_bytes() for name in ROWS} == before


def test_an_evaluation_with_equal_settings_replaces_the_earlier_one(run):
    before = (run / "adaptation.csv").read_bytes()
    metarl.evaluate(run, num_tasks=10)
    assert (run / "adaptation.csv").read_bytes() == before
    assert "evaluations" not in files(run)


def test_rows_without_settings_are_kept_as_well(run):
    before = (run / "adaptation.csv").read_bytes()
    for number in (1, 2):
        (run / "evaluation.json").unlink()
        metarl.evaluate(run, num_tasks=10, seed=number)
    kept = run / "evaluations"
    assert (kept / "earlier-1" / "adaptation.csv").read_bytes() == before
    assert files(kept) == {"earlier-1", "earlier-2"}


def test_results_are_written_to_out(run, capsys):
    before = (run / "adaptation.csv").read_bytes()
    command = ["evaluate", str(RUN), "--split", "train", "--num-tasks", "10", "--no-progress"]
    assert main([*command, "--out", "train"]) == 0
    assert "The rows are in train/adaptation.csv" in capsys.readouterr().out
    assert files(Path("train")) == ROWS
    assert (run / "adaptation.csv").read_bytes() == before
    assert {curve.split for curve in read_curves("train/adaptation.csv")} == {"train"}


def test_out_is_no_other_run(run):
    other = copy_of(run, Path("runs/b"))
    with pytest.raises(RunFolderError, match=r"runs/b is the folder of a run"):
        metarl.evaluate(run, num_tasks=10, out=other)


def test_a_folder_that_cannot_be_written_is_refused_before_the_evaluation(run, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr(metarl.Run, "load", lambda *_: pytest.fail("the agent was evaluated"))
    with pytest.raises(RunFolderError, match="Nothing can be written to"):
        metarl.evaluate(run, num_tasks=10)
    Path("file").touch()
    monkeypatch.setattr("os.access", lambda path, mode: True)
    with pytest.raises(RunFolderError, match="Nothing can be written to"):
        metarl.evaluate(run, num_tasks=10, out="file/deeper")


@pytest.mark.parametrize("link", ["evaluations", "evaluations/NAME"])
def test_no_evaluation_is_moved_through_a_link(run, tmp_path, link):
    victim = tmp_path / "victim"
    victim.mkdir()
    path = run / link.replace("NAME", read_settings(run).folder_name)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(victim)
    with pytest.raises(RunFolderError, match="is a symbolic link"):
        metarl.evaluate(run, num_tasks=10, seed=1)
    assert not files(victim)


def test_evaluations_of_one_run_share_a_table_and_a_figure(run, capsys):
    for arguments in (["--split", "train"], ["--seed", "1", "--num-tasks", "8"]):
        command = ["evaluate", str(RUN), "--num-tasks", "10", "--no-progress"]
        assert main([*command, *arguments, "--out", arguments[0].strip("-")]) == 0
    folders = [str(RUN), "split", "seed"]
    capsys.readouterr()
    assert main(["compare", *folders, "--csv", "table.csv"]) == 0
    assert "Evaluations of one run" in capsys.readouterr().out
    rows = metarl.compare(folders).rows
    agents = [row.label for row in rows if row.role == "agent"]
    floors = [row.label for row in rows if row.agent == "random"]
    for text in (
        "split=test, task_seed=0, tasks=10",
        "split=train",
        "task_seed=1, tasks=8",
    ):
        assert sum(text in label for label in agents) == 1
        assert sum(text in label for label in floors) == 1
    assert (len(agents), len(floors)) == (3, 3)
    (picture,) = metarl.plot(folders, formats=["svg"], out="figure")
    assert all(f"({text}" in picture.read_text() for text in ("split=test", "split=train"))
    with open("table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {""}
    with pytest.raises(ConfigError, match="same --num-tasks, --seed and --split"):
        metarl.plot(folders, kind="regret")


def test_evaluations_in_the_same_tasks_are_labelled_by_the_options_that_differ(run):
    metarl.evaluate(run, num_tasks=10, agent_options={"rollouts_per_task": 3}, out="three")
    rows = metarl.compare([run, "three"]).rows
    labels = [row.label for row in rows if row.role == "agent"]
    assert [label.partition("(")[2] for label in labels] == [
        "rollouts_per_task=1)",
        "rollouts_per_task=3)",
    ]
    assert [row.difference is None for row in rows if row.role == "agent"] == [True, False]


def test_the_same_evaluation_twice_is_refused(run):
    metarl.evaluate(run, num_tasks=10, out="again")
    with pytest.raises(ConfigError, match="are the same training"):
        metarl.compare([run, "again"])


def test_runs_in_different_tasks_are_refused_as_before(run):
    settings = json.loads((run / "config.json").read_text())
    other = train_tiny(Path("runs/b"), seed=1)
    metarl.evaluate(other, num_tasks=8)
    assert settings["seed"] == 0
    with pytest.raises(ConfigError, match="only curves from the same tasks"):
        metarl.compare([run, other])


@pytest.fixture
def unfinished(run):
    """A run of which one of two iterations was trained."""
    other = train_tiny(Path("runs/b"), seed=1, iterations=4)
    for name in ("config.json", "evaluation.json"):
        path = other / name
        path.write_text(path.read_text().replace('"iterations": 4', '"iterations": 2'))
    path = other / "metrics.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    settings = json.loads((other / "evaluation.json").read_text())
    (other / "evaluation.json").write_text(json.dumps({**settings, "iteration": 1}))
    return other


def test_unfinished_runs_are_named_and_not_joined(run, unfinished, capsys):
    rows = metarl.compare([run, unfinished]).rows
    agents = [(row.label, row.num_runs) for row in rows if row.role == "agent"]
    assert [count for _, count in agents] == [1, 1]
    assert [label.endswith("(trained 1 of 2 iterations)") for label, _ in agents] == [False, True]
    for kind in ("adaptation", "learning"):
        (picture,) = metarl.plot([run, unfinished], kind=kind, formats=["svg"], out="figure")
        assert "trained 1 of 2 iterations" in picture.read_text()
    assert main(["compare", str(run), str(unfinished)]) == 0
    assert "trained 1 of 2 iterations" in capsys.readouterr().out


def test_unfinished_runs_are_joined_on_request(run, unfinished, capsys):
    rows = metarl.compare([run, unfinished], join_unfinished=True).rows
    assert [row.num_runs for row in rows if row.role == "agent"] == [2]
    for kind in ("adaptation", "learning"):
        options = {"kind": kind, "formats": ["svg"], "out": "figure", "join_unfinished": True}
        (picture,) = metarl.plot([run, unfinished], **options)
        assert "trained 1" not in picture.read_text()
    assert main(["compare", str(run), str(unfinished), "--join-unfinished"]) == 0
    assert "trained 1" not in capsys.readouterr().out


def test_runs_of_different_lengths_are_not_joined(run):
    longer = train_tiny(Path("runs/b"), seed=1, iterations=3)
    rows = metarl.compare([run, longer]).rows
    labels = [row.label.partition("(")[2] for row in rows if row.role == "agent"]
    assert labels == ["iterations=2)", "iterations=3)"]


@pytest.mark.learning
def test_evaluate_says_that_a_run_is_unfinished(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from metarl.training import loop

    def interrupted(self, progress):
        if progress.iteration == 3:
            raise KeyboardInterrupt
        return original(self, progress)

    original = loop._Training._iteration
    monkeypatch.setattr(loop._Training, "_iteration", interrupted)
    options = {**TINY, "iterations": 5, "num_minibatches": 2, "hidden_size": 8}
    with pytest.raises(KeyboardInterrupt):
        metarl.train("rl2", "metarl/BernoulliBandit-v0", out="run", **options)
    assert main(["evaluate", "run", "--num-tasks", "5", "--no-progress"]) == 0
    assert "not finished: the agent was trained 3 of 5 iterations" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"format": "metarl-evaluation-1"}',
        "\x00",
        "[" * 100_000,
        '"\\ud800"',
    ],
)
def test_broken_settings_are_refused(run, content):
    (run / "evaluation.json").write_text(content)
    for function in (lambda: metarl.compare([run]), lambda: metarl.evaluate(run, num_tasks=4)):
        with pytest.raises(RunFolderError, match=r"evaluation\.json"):
            function()
