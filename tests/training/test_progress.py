"""Tests of progress output, with a terminal and without."""

import io
import sys

import pytest

from metarl.training import progress
from metarl.training.progress import TrainingProgress

ROW = {"first_episode_return": 0.5, "last_episode_return": 0.75, "steps_per_second": 20_000.0}


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _compiled(monkeypatch):
    """As where the compiled library is there, whether or not there is a compiler here."""
    monkeypatch.setattr(progress, "is_missed", lambda: False)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_missing_compiled_library_is_said_where_progress_is_shown(monkeypatch, capsys, enabled):
    monkeypatch.setattr(progress, "is_missed", lambda: True)
    show_three_iterations(10, enabled=enabled)
    printed = " ".join(capsys.readouterr().err.split())
    assert (progress.MISSED in printed) == enabled


def show_three_iterations(iterations, *, enabled=True):
    """Shows three iterations of a run of `iterations`."""
    with TrainingProgress(["seed0"], iterations, enabled=enabled) as bar:
        for iteration in (1.0, 2.0, 3.0):
            bar.show({**ROW, "iteration": iteration})


def test_without_a_terminal_the_last_iteration_is_a_log_line(capsys):
    show_three_iterations(3)
    line = "seed0 3/3 episode return 0.5 first, 0.75 last; 20k steps/s\n"
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, 3), (60.0, 0)])
def test_without_a_terminal_there_is_a_log_line_per_interval(monkeypatch, capsys, seconds, lines):
    monkeypatch.setattr(progress, "LOG_SECONDS", seconds)
    show_three_iterations(10)
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_terminal_shows_a_bar_and_no_log(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    show_three_iterations(10)
    printed = capsys.readouterr().err
    assert "━" in printed
    assert "seed0 3/10" not in printed


def test_a_notebook_shows_a_bar(monkeypatch):
    # In a notebook rich does not print to stderr, so the bar itself is checked.
    assert TrainingProgress(["seed0"], 3, enabled=True)._bar.disable
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert not TrainingProgress(["seed0"], 3, enabled=True)._bar.disable


def test_progress_can_be_switched_off(capsys):
    show_three_iterations(3, enabled=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), SystemExit(1)])
@pytest.mark.parametrize("terminal", ["0", "1"])
def test_a_terminal_that_was_closed_ends_no_training(monkeypatch, terminal, error):
    class Closed(io.StringIO):
        def write(self, text):
            raise error

    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    if terminal == "1":
        monkeypatch.setenv("FORCE_COLOR", "1")
    with TrainingProgress("seed0", 3, enabled=True) as bar:
        monkeypatch.setattr(sys, "stderr", Closed())
        bar.show({**ROW, "iteration": 3.0})
