"""Small sweeps from the file to the table; each run is a process of its own."""

import pytest

import metarl
from metarl.errors import ConfigError, RunFolderError
from metarl.results.learning_curves import read_metrics
from metarl.results.sweeps import SELECTION, run_folder
from metarl.sweeps import sweep as sweeps
from metarl.training.children import Children
from metarl.training.loop import train
from tests.fragile_agents import AGENT
from tests.training.test_loop import SMALL, TASK, assert_equal_runs

TOML = f"""
agent = "{AGENT}"
task = "{TASK}"
seeds = [0, 1]
metric = "total"
[agent_options]
num_tasks = 8
hidden_size = 8
iterations = 3
[sweep]
learning_rate = [1e-3, 1e-2]
[evaluate]
num_tasks = 5
"""
FAILING = TOML.replace("iterations = 3", "iterations = 3\nfailing_seed = 1")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rates.toml"
    path.write_text(TOML)
    return path


@pytest.fixture
def never_started(monkeypatch):
    monkeypatch.setattr(Children, "start", None)


@pytest.mark.learning
def test_a_sweep_trains_every_setting_and_goes_on_where_it_has_ended(tmp_path, file, monkeypatch):
    out = tmp_path / "out"
    first = metarl.sweep(file, out=out, progress=False)
    assert [len(row.scores) for row in first.rows] == [2, 2]
    assert {path.name for path in out.iterdir()} >= {"sweep.csv", "sweep.png", "sweep.svg"}
    best = next(one for one in first.record.settings if one.name == first.rows[0].name)
    for seed, score in first.rows[0].scores.items():
        folder = run_folder(out, best, seed)
        alone = train(
            AGENT,
            TASK,
            seed=seed,
            iterations=3,
            out=tmp_path / f"alone{seed}",
            **best.options,
            **SMALL,
        )
        assert_equal_runs(metarl.load_run(folder), alone)
        curve, *_ = metarl.evaluate(alone, num_tasks=5, split="train", seed=1, references=["none"])
        assert curve.returns.sum(0).mean() == score
        assert not (folder / "adaptation.csv").exists()  # that of the final evaluation
        assert (folder / SELECTION / "adaptation.csv").exists()

    monkeypatch.setattr(Children, "start", None)
    again = metarl.sweep(file, out=out, progress=False)  # starts no process
    assert again == first
    file.write_text(TOML.replace("num_tasks = 8", "num_tasks = 16"))
    with pytest.raises(RunFolderError, match="num_tasks = 8 instead of 16"):
        metarl.sweep(file, out=out, progress=False)


@pytest.mark.learning
def test_a_run_that_fails_is_repeated_then_named_and_the_others_go_on(tmp_path, file, capfd):
    file.write_text(FAILING)
    out = tmp_path / "out"
    table = metarl.sweep(file, out=out, retries=0)
    assert "learning_rate=0.01 seed 1 failed: the loss is NaN" in capfd.readouterr().err
    assert list(table.failures) == [str(out / f"learning_rate={r}" / "seed1") for r in (1e-3, 1e-2)]
    assert set(table.failures.values()) == {"the loss is NaN"}
    assert [list(row.scores) for row in table.rows] == [[0], [0]]
    # A process counts its updates from the start: each attempt is one iteration further.
    table = metarl.sweep(file, out=out, retries=1, progress=False)
    assert not table.failures
    assert [list(row.scores) for row in table.rows] == [[0, 1], [0, 1]]
    for rate in (0.001, 0.01):
        rows = read_metrics(out / f"learning_rate={rate}" / "seed1" / "metrics.csv")
        assert [row["iteration"] for row in rows] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[1e-3, 1e-2]", "[1e-3, -1]"), "learning_rate=-1 must be greater"),
        (("learning_rate = [1e-3, 1e-2]", "memory = ['gru', 'disk']"), "memory='disk' is not one"),
    ],
)
@pytest.mark.usefixtures("never_started")
def test_a_setting_that_cannot_be_trained_is_refused_before_any_is(tmp_path, file, change, message):
    file.write_text(TOML.replace(*change))
    with pytest.raises(ConfigError, match=message):
        metarl.sweep(file, out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("never_started")
def test_agents_that_are_not_measured_in_every_episode_have_no_whole_trial(tmp_path, file):
    file.write_text(
        'agent = "maml"\ntask = "metarl/PointNavigation-v0"\nseeds = [0]\nmetric = "total"\n'
        "[sweep]\ninner_lr = [0.1]\n"
    )
    with pytest.raises(ConfigError, match="maml is measured between its adaptation steps only"):
        metarl.sweep(file, out=tmp_path / "out", progress=False)


@pytest.mark.usefixtures("never_started")
def test_two_processes_cannot_sweep_in_one_folder(tmp_path, file):
    with sweeps._locked(tmp_path / "out"):
        with pytest.raises(RunFolderError, match="Another process sweeps in"):
            metarl.sweep(file, out=tmp_path / "out", progress=False)
        assert not (tmp_path / "out" / "sweep.json").exists()


@pytest.mark.usefixtures("never_started")
def test_a_folder_with_other_files_is_refused(tmp_path, file):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="exists, and is not the folder of a sweep"):
        metarl.sweep(file, out=tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"processes": 0}, "processes=0 must be greater"), ({"retries": -1}, "retries=-1 must be 0")],
)
def test_numbers_out_of_range_are_refused(file, options, message):
    with pytest.raises(ConfigError, match=message):
        metarl.sweep(file, **options)
