"""The order of the runs of a sweep, without training any."""

import pytest

from metarl.errors import RunFolderError
from metarl.results.sweeps import read_record
from metarl.sweeps import queue as queues
from metarl.sweeps import sweep as sweeps
from metarl.sweeps.queue import SweepQueue
from metarl.sweeps.sweep_file import read_sweep
from metarl.training.executor import TRAINED, Ended
from metarl.training.progress import TrainingProgress

TOML = """
agent = "rl2"
task = "metarl/BernoulliBandit-v0"
seeds = [0, 1]
"""
GRID = TOML + "[sweep]\nlearning_rate = [1e-3, 1e-2]\n"


@pytest.fixture
def make(tmp_path):
    def make(text, retries=1):
        path = tmp_path / "x.toml"
        path.write_text(text)
        sweep = read_sweep(path)
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        display = TrainingProgress([], 0, enabled=False)
        return SweepQueue(sweep, out, sweeps._record(sweep, out), display, retries=retries)

    return make


def names(queue, count=100):
    """The next runs, and the lines of their displays."""
    found = {}
    while len(found) < count and (job := queue.next_job()) is not None:
        folder = job[1].path
        found[f"{folder.parent.name} {folder.name}"] = job[0]
    return found


def test_every_setting_is_trained_with_every_seed(make):
    queue = make(GRID)
    assert list(names(queue)) == [
        f"learning_rate={rate} seed{seed}" for rate in (0.001, 0.01) for seed in (0, 1)
    ]


def test_a_job_has_the_value_the_seed_and_a_folder_of_its_own(make, tmp_path):
    queue = make(GRID)
    jobs = [queue.next_job()[1] for _ in range(4)]
    assert [(job.config.learning_rate, job.options.seed) for job in jobs] == [
        *((1e-3, 0), (1e-3, 1), (1e-2, 0), (1e-2, 1))
    ]
    assert all(job.options.resume for job in jobs)
    assert jobs[3].path == tmp_path / "out" / "learning_rate=0.01" / "seed1"


def test_a_run_that_fails_waits_behind_all_others_until_its_attempts_are_used(make):
    queue = make(GRID, retries=2)
    ((first, line),) = names(queue, 1).items()
    queue.end(line, Ended("no memory"))
    others = names(queue)
    assert list(others)[-1] == first
    queue.end(others[first], Ended("no memory"))
    queue.end(names(queue)[first], Ended("still no memory"))
    assert names(queue) == {}
    assert list(queue.failed_folders.values()) == ["still no memory"]
    for name in list(others)[:-1]:
        queue.end(others[name], TRAINED)
    assert queue.counts == "3 of 4 runs are trained, 1 has failed"


def test_a_run_that_was_stopped_is_neither_trained_nor_failed(make):
    queue = make(GRID)
    for line in names(queue).values():
        queue.end(line, Ended(None, stopped=True))
    assert queue.counts == "0 of 4 runs are trained"
    assert not queue.failures


TPE = TOML + (
    'search = "tpe"\ntrials = 3\n[sweep]\nlearning_rate = { min = 1e-4, max = 1e-2, log = true }\n'
    'memory = ["gru", "lstm"]\n'
)


@pytest.fixture
def suggested(monkeypatch):
    """Replaces the search: records the trials, and suggests the first rates that are left."""
    calls = []

    def suggest(space, trials, seed):
        calls.append([(trial.score, trial.is_running) for trial in trials])
        return {"learning_rate": 0.001 * (len(trials) + 1), "memory": "gru"}

    monkeypatch.setattr(queues, "suggest", suggest)
    monkeypatch.setattr("metarl.sweeps.sweep_file.require_optuna", lambda: None)
    return calls


def test_a_search_asks_for_the_next_setting_where_no_run_waits(make, suggested, tmp_path):
    queue = make(TPE)
    assert suggested == []
    names(queue, 2)
    assert suggested == [[]]
    names(queue, 1)
    assert suggested[1:] == [[(None, True)]]
    assert len(names(queue)) == 3  # the search ends after three settings
    assert [one.options["learning_rate"] for one in queue.record.settings] == [0.001, 0.002, 0.003]


def test_a_search_goes_on_with_the_settings_that_it_had(make, suggested, tmp_path):
    names(make(TPE), 3)
    known = read_record(tmp_path / "out").settings
    assert len(known) == 2
    again = make(TPE)
    assert list(names(again, 4)) == [f"{one.name} seed{seed}" for one in known for seed in (0, 1)]
    assert len(suggested) == 2
    names(again)
    assert suggested[2] == [(None, True), (None, True)]


def test_a_search_learns_from_the_scores_of_settings_that_have_ended(make, suggested, monkeypatch):
    queue = make(TPE)
    lines = names(queue, 2)
    scores = {"seed0": 1.0, "seed1": 3.0}
    monkeypatch.setattr(
        "metarl.results.sweeps.read_score", lambda out, record, one, seed: scores[f"seed{seed}"]
    )
    first, second = lines.values()
    queue.end(first, TRAINED)
    names(queue, 1)
    assert suggested[1] == [(None, True)]  # one of its seeds is still trained
    queue.end(second, TRAINED)
    names(queue, 2)
    assert suggested[2][0] == (2.0, False)


def test_a_search_with_other_ranges_is_not_continued(make, suggested):
    names(make(TPE), 1)
    with pytest.raises(RunFolderError, match=r"holds a search with space = .* instead of"):
        make(TPE.replace("1e-4", "1e-5"))
