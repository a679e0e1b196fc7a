"""The comparison of speed: its arithmetic, its pages, turns of processes, and one short round."""

import json
import sys
from pathlib import Path

import pytest
import speed_report
import turns
from benchmark_peers import JOBS, Options, Worker, conditions, main
from speed_report import ALONE, Measurement, Report, Spread

TWO_JOBS = {"train": [10.0, 20.0, 60.0], "rollout": [200.0, 100.0, 300.0]}


@pytest.fixture
def report():
    """Two jobs: metarl, and JAX at half its rate in the first round, the same in the others."""
    measurements = []
    for job, rates in TWO_JOBS.items():
        halved = [rates[0] / 2, *rates[1:]]
        for worker, measured in (("metarl", rates), ("JAX", halved)):
            measurement = Measurement(job=job, worker=worker, condition=ALONE, rates=measured)
            measurements.append(measurement)
    busy = Measurement(job="train", worker="metarl", condition="busy", rates=[5.0, 5.0, 6.0])
    return Report(
        machine={"cores": "2"},
        settings={"rounds": 3},
        versions={"metarl": {"torch": "2"}},
        bases=["JAX"],
        left_out=["gymnax, without gymnax"],
        measurements=[*measurements, busy],
    )


def test_a_spread_is_median_lowest_and_highest():
    assert Spread.of([3.0, 1.0, 8.0, 4.0]) == Spread(median=3.5, low=1.0, high=8.0)
    assert Spread.of([3.0, 1.0, 8.0, 4.0]).text(".1f") == "3.5 (1.0 to 8.0)"


def test_ratios_are_formed_within_a_round():
    # The machine became ten times as fast in the second round: no ratio shows it.
    assert speed_report.ratios([4.0, 40.0], [2.0, 20.0]) == [2.0, 2.0]
    with pytest.raises(ValueError, match="zip"):
        speed_report.ratios([4.0, 40.0], [2.0])


def test_the_overview_has_medians_and_ratios_to_the_first_base(report):
    assert speed_report.overview(report) == [
        ["steps per second", "metarl", "JAX"],
        ["train", "20 (1.00)", "20"],
        ["rollout", "200 (1.00)", "100"],
    ]


def test_details_have_ranges_and_ratios_to_every_base(report):
    heading, first, *_ = speed_report.details(report, ALONE)
    assert heading == ["job", "worker", "steps per second", "ratio to JAX"]
    assert first == ["train", "metarl", "20 (10 to 60)", "1.00 (1.00 to 2.00)"]


def test_another_condition_is_compared_with_being_alone(report):
    heading, row = speed_report.details(report, "busy")
    assert heading[3:] == ["ratio to JAX", "ratio to its rate alone"]
    assert row[3:] == ["", "0.25 (0.10 to 0.50)"]  # JAX was not measured; 5/10, 5/20, 6/60


def test_the_page_names_what_was_left_out_and_every_condition(report):
    page = speed_report.page(report)
    assert "- left out: gymnax, without gymnax\n" in page
    assert "| train | 20 (1.00) | 20 |\n| rollout |" in page
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## Alone", "## Busy"]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_survives_the_command_line(job):
    assert turns.Job.from_arguments(job.arguments) == job


def test_a_turn_ends_after_the_call_that_reaches_its_seconds(monkeypatch):
    clock = iter([0.0, 2.0, 4.0, 6.0])
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(clock))
    assert turns.steps_per_second(lambda: 10, seconds=5.0) == 5.0  # 3 calls, 30 steps, 6 seconds


def test_copies_work_at_the_same_time_and_are_summed():
    code = "import turns; turns.serve(lambda: print('noise') or 100, {'x': '1'})"
    folder = {"PYTHONPATH": str(turns.__file__).rpartition("/")[0]}
    copies = [turns.WorkerProcess([sys.executable, "-c", code], folder) for _ in range(2)]
    try:
        assert copies[0].versions == {"x": "1"}
        one, both = (turns.take_turn(copies[:count], 0.05) for count in (1, 2))
        assert one > 0
        assert both > 0
    finally:
        for copy in copies:
            copy.close()


def test_a_worker_that_ends_is_an_error():
    with pytest.raises(SystemExit, match=r"ended with code 3.* Repeat it alone: .*exit\(3\)"):
        turns.WorkerProcess([sys.executable, "-c", "import sys; sys.exit(3)"], {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ("train-1-1-1",)}, "--only does not know train-1-1-1; it knows train-64-64-10"),
        ({"workers": ("jax", "tf")}, "--workers does not know tf; it knows metarl-1"),
        ({"peer_python": Path("no/python")}, "--peer-python no/python is not a program"),
        ({"rounds": 0}, "--rounds 0 is too small; 1 or more"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(SystemExit, match=message):
        Options(**options)


def test_missing_packages_are_named_also_where_a_package_needs_them(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import not_there_either\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    needs = ("json", "not_there", "half_installed")
    worker = Worker(name="x", label="X", script="x.py", needs=needs)
    assert worker.missing() == ["not_there", "not_there_either"]


def test_conditions_are_those_asked_for():
    names = [condition.name for condition in conditions(Options(busy=2, copies=3))]
    assert names == ["alone", "beside 2 busy processes", "3 copies at once"]


def test_a_short_round_of_metarl_alone(tmp_path, capsys):
    out = tmp_path / "speed"
    workers = ("metarl-1", "metarl-torch")
    job = "train-64-64-10"
    main(Options(only=(job,), workers=workers, rounds=2, seconds=0.01, out=out))
    measured = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    rows = {row["worker"]: row for row in measured["measurements"]}
    assert [*rows] == ["metarl, 1 thread", "metarl in torch, 1 thread"]
    assert all(len(row["rates"]) == 2 and row["low"] > 0 for row in rows.values())
    torch = rows["metarl in torch, 1 thread"]
    assert torch["ratios"]["metarl in torch, 1 thread"]["median"] == 1.0
    assert measured["versions"]["metarl in torch, 1 thread"]["compiled library"] == "none"
    assert f"| {job} |" in capsys.readouterr().out
