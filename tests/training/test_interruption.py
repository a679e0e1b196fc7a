"""Signals end a training after its iteration; a second one ends it at once."""

import os
import signal
import sys
import threading
import time

import pytest
import torch

import metarl
from metarl.training.interruption import SIGNALS, StoppedBySignal, stop_between_iterations
from metarl.training.loop import train
from metarl.training.run_folder import load_run
from tests.training.test_loop import SMALL, TASK, Interrupting, assert_equal_runs

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_run_resumed_after_a_signal_is_bit_equal_to_an_uninterrupted_run(
    tmp_path, monkeypatch, name
):
    whole = train("rl2", TASK, iterations=6, out=tmp_path / "whole", **SMALL)
    with monkeypatch.context() as patch:
        Interrupting(patch, at=3, number=getattr(signal, name))
        with pytest.raises(StoppedBySignal) as stopped:
            train("rl2", TASK, iterations=6, out=tmp_path / "cut", **SMALL)
    assert stopped.value.code == CODES[name]
    cut = load_run(tmp_path / "cut")
    assert cut.load(cut.make_agent(cut.config.make_family())).iteration == 3
    resumed = train("rl2", TASK, iterations=6, out=tmp_path / "cut", resume=True, **SMALL)
    assert_equal_runs(whole, resumed)


def test_a_signal_in_the_last_iteration_is_not_lost(tmp_path, monkeypatch):
    Interrupting(monkeypatch, at=2, number=signal.SIGTERM)
    with pytest.raises(StoppedBySignal):
        train("rl2", TASK, iterations=2, out=tmp_path / "run", **SMALL)
    run = load_run(tmp_path / "run")
    assert run.load(run.make_agent(run.config.make_family())).iteration == 2


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_has_its_usual_effect(number):
    caught = []
    before = {one: signal.signal(one, lambda n, _: caught.append(n)) for one in SIGNALS}
    try:
        with stop_between_iterations() as stop:
            assert not stop
            os.kill(os.getpid(), number)
            assert stop
            assert caught == []
            for other in SIGNALS:
                os.kill(os.getpid(), other)
            assert caught == list(SIGNALS)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_an_ignored_signal_stays_ignored_and_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_between_iterations() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
            assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_in_another_thread_no_handler_is_changed():
    found = []

    def look():
        with stop_between_iterations():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize("name", CODES)
def test_the_command_saves_and_ends_with_the_code_of_the_signal(tmp_path, start_process, name):
    code = "import sys; from metarl.cli.main import main; sys.exit(main())"
    options = ["--num-tasks", "8", "--hidden-size", "8", "--iterations", "100000"]
    command = [sys.executable, "-c", code, "train", "rl2", TASK, *options, "--out", "run"]
    process = start_process([*command, "--threads", "1"], cwd=tmp_path)
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == CODES[name]
    assert "Interrupted. The run is saved in run; continue with\n  metarl train rl2" in err
    run = load_run(tmp_path / "run")
    rows = metarl.read_metrics(run.path / "metrics.csv")
    assert run.load(run.make_agent(run.config.make_family())).iteration == len(rows)


def test_global_settings_of_torch_do_not_matter_and_are_restored(tmp_path):
    usual = train("rl2", TASK, iterations=2, out=tmp_path / "usual", **SMALL)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        with torch.inference_mode():
            unusual = train("rl2", TASK, iterations=2, out=tmp_path / "unusual", **SMALL)
            assert torch.is_inference_mode_enabled()
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device() == torch.device("meta")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert_equal_runs(usual, unusual)
