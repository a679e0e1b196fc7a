"""The table of an evaluation as CSV or Parquet: a folder has one, and every command reads it."""

import shutil
import sys
from pathlib import Path

import pytest

import metarl
from metarl.cli.main import main
from metarl.errors import ConfigError, MissingPackageError, RunFolderError
from metarl.results.adaptation_curves import agent_label, require_form
from metarl.results.evaluation_files import adaptation_file
from tests.foreign_runs import copy_of, train_tiny

STORED = Path(__file__).parents[1] / "data" / "evaluations"
"""evaluations that earlier versions wrote; they are never written again"""
TASK = "metarl/BernoulliBandit-v0"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("runs") / "a")


@pytest.fixture
def run(tiny, tmp_path):
    return copy_of(tiny, tmp_path / "a")


@pytest.fixture
def needs_pyarrow():
    pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")


@pytest.fixture
def without_pyarrow(monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)


def tables(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("adaptation*"))


def test_the_other_form_of_equal_settings_replaces_the_table(needs_pyarrow, run):
    before = (run / "adaptation.csv").read_bytes()
    metarl.evaluate(run, num_tasks=10, table="parquet")
    assert tables(run) == ["adaptation.parquet"]
    assert not (run / "evaluations").exists()
    metarl.write_curves(run.parent / "export.csv", metarl.read_curves(run / "adaptation.parquet"))
    assert (run.parent / "export.csv").read_bytes() == before
    metarl.evaluate(run, num_tasks=10)
    assert tables(run) == ["adaptation.csv"]


def test_an_earlier_evaluation_is_kept_in_its_form(needs_pyarrow, run):
    metarl.evaluate(run, num_tasks=10, table="parquet")
    metarl.evaluate(run, num_tasks=10, seed=1)
    (kept,) = (run / "evaluations").iterdir()
    assert tables(kept) == ["adaptation.parquet"]
    metarl.evaluate(run, num_tasks=10)  # moves that of seed 1, and is moved over the kept one
    metarl.evaluate(run, num_tasks=10, seed=1, table="parquet")
    assert tables(kept) == ["adaptation.csv"]
    assert tables(run) == ["adaptation.parquet"]


def test_evaluations_of_any_policy_replace_the_other_form(needs_pyarrow, tmp_path):
    build = metarl.make_family(TASK, arms=3, pulls=5).references(5)["random"].build
    for table, name in (("csv", "adaptation.csv"), ("parquet", "adaptation.parquet")):
        wanted = {"agent": "mine", "out": tmp_path, "num_tasks": 3, "table": table}
        metarl.evaluate_policy(build, TASK, **wanted, arms=3, pulls=5)
        assert tables(tmp_path) == [name]


def test_two_tables_are_refused_until_the_next_evaluation(run):
    shutil.copy(run / "adaptation.csv", run / "adaptation.parquet")
    for read in (metarl.compare, metarl.plot, metarl.report):
        with pytest.raises(
            RunFolderError, match=r"csv and adaptation\.parquet, which may disagree"
        ):
            read([run])
    metarl.evaluate(run, num_tasks=10)
    assert tables(run) == ["adaptation.csv"]


def test_every_command_reads_parquet(needs_pyarrow, run, tmp_path, capsys):
    def shown(name):
        assert main(["compare", str(run)]) == 0
        printed = capsys.readouterr().out
        for kind in ("adaptation", "regret", "learning"):
            metarl.plot([run], kind=kind, out=tmp_path / f"{name}-{kind}.svg")
        metarl.report([run], out=tmp_path / f"{name}.html", films=False)
        metarl.write_card(run)
        files = sorted(tmp_path.glob(f"{name}*"))
        return printed, (run / "README.md").read_text(), [file.read_bytes() for file in files]

    before = shown("csv")
    command = ["evaluate", str(run), "--num-tasks", "10", "--no-progress", "--table", "parquet"]
    assert main(command) == 0
    assert "The rows are in" in (printed := capsys.readouterr().out)
    assert "adaptation.parquet" in printed
    assert shown("parquet") == before


def test_the_rows_of_an_agent_name_its_training_seed(run):
    metarl.evaluate(run, num_tasks=3, seed=5, references=["random", "best_arm"])
    curves = metarl.read_curves(run / "adaptation.csv")
    assert [(curve.seed, curve.training_seed) for curve in curves] == [(5, 0), (5, None), (5, None)]
    header, first, *_, last = (run / "adaptation.csv").read_text().splitlines()
    assert header.startswith("run,agent,role,label,family,split,seed,training_seed,task,")
    assert ",test,5,0,0,1," in first
    assert ",test,5,," in last


@pytest.mark.parametrize("name", ["without_training_seed", "parquet"])
def test_evaluations_of_earlier_versions_are_read_for_ever(name, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    folder = shutil.copytree(STORED / name, tmp_path / name)
    curves = metarl.read_curves(adaptation_file(folder))
    assert [(c.agent, c.seed) for c in curves] == [("rl2", 0), ("random", 0), ("best_arm", 0)]
    assert curves[0].training_seed == (3 if name == "parquet" else None)
    assert curves[0].returns.shape == (5, 6)
    assert agent_label(folder) == "RL²"
    assert [row.label for row in metarl.compare([folder]).rows][1] == "RL²"
    for kind in ("adaptation", "regret"):
        metarl.plot([folder], kind=kind, formats=["svg"])
    metarl.report([folder], films=False)


def test_reading_parquet_without_pyarrow_names_the_extra(without_pyarrow, tmp_path, capsys):
    folder = shutil.copytree(STORED / "parquet", tmp_path / "a")
    for read in (metarl.compare, metarl.plot, metarl.report):
        with pytest.raises(MissingPackageError, match=r"pip install 'metarl-suite\[parquet\]'"):
            read([folder])
    assert main(["plot", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"metarl: {folder}/adaptation.parquet needs pyarrow, which is not installed: pip install "
        "'metarl-suite[parquet]'.\n"
    )


def test_writing_parquet_without_pyarrow_is_refused_before_the_evaluation(
    without_pyarrow, run, monkeypatch
):
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    monkeypatch.setattr(
        "metarl.evaluation.protocol.EvaluationProtocol._measure",
        lambda *_: pytest.fail("the agent was evaluated"),
    )
    with pytest.raises(MissingPackageError, match=r"needs pyarrow, which is not installed"):
        metarl.evaluate(run, num_tasks=10, table="parquet")
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(("rows", "seed"), [(50_000_001, 0), (1, 2**63)])
def test_a_table_that_parquet_cannot_hold_is_refused_before_the_evaluation(
    needs_pyarrow, rows, seed
):
    require_form("csv", rows=rows, seeds=[seed])
    with pytest.raises(ConfigError, match=r"up to 50,000,000 rows .* Choose --table csv"):
        require_form("parquet", rows=rows, seeds=[seed])


def test_an_unknown_form_is_refused(run):
    with pytest.raises(ConfigError, match="table"):
        metarl.evaluate(run, table="feather")
