"""Tables of comparisons: cells, and which columns fit a width."""

from dataclasses import replace

import numpy as np
import pytest

from metarl.cli.table import fitted, print_comparison
from metarl.results.bootstrap import Estimate
from metarl.results.comparison import compare_curves
from metarl.results.comparison_table import Column, number_cells
from tests.plots.test_plot import make_curve

HEADINGS = ("role", "seeds", "first", "last", "whole", "score", "difference")


def estimate(mean, half):
    return Estimate(*map(np.float64, (mean, mean - half, mean + half)))


@pytest.mark.parametrize(
    ("numbers", "cells"),
    [
        ([(0.49, 0.07), None, (-0.05, 0.2)], [".49 ± .07", "-", "-.05 ± .20"]),
        ([(0.49, 0.07), (1.0, 0.0)], [".49 ± .07", "1.00"]),
        ([(0.4912, 0.0031)], [".491 ± .003"]),
        ([(-812.34, 21.7)], ["-812 ± 22"]),
        ([(78.24, 1.5)], ["78.2 ± 1.5"]),
        ([(-0.0001, 0.3)], [".00 ± .30"]),
        ([None], ["-"]),
    ],
)
def test_cells_are_a_mean_and_half_an_interval(numbers, cells):
    assert number_cells([one and estimate(*one) for one in numbers]) == cells


def test_the_least_important_columns_are_left_out_first():
    label = Column(heading="agent", cells=["a long label of many words", "b"])
    others = [
        Column(heading="one", cells=["12345678"], importance=2),
        Column(heading="two", cells=["12345678"], importance=1),
        Column(heading="three", cells=["12345678"], importance=3),
    ]
    assert fitted(label, others, 200) == (others, 26)
    shown, width = fitted(label, others, 2 + 24 + 2 + 2 * 10)
    assert ([column.heading for column in shown], width) == (["one", "three"], 24)
    assert [column.heading for column in fitted(label, others, 10)[0]] == ["three"]


@pytest.fixture
def comparison():
    random = np.random.default_rng(0)
    roles = {"floor": "random", "ceiling": "best arm (knows the task)", "agent": "RL²"}
    curves = [make_curve(agent=name, label=name, role=role, run="") for role, name in roles.items()]
    return compare_curves(
        [replace(c, returns=random.normal(size=c.returns.shape), run="r") for c in curves]
    )


@pytest.mark.parametrize("width", [50, 60, 80, 100, 133])
def test_a_table_fits_the_width_and_breaks_no_cell(capsys, monkeypatch, comparison, width):
    monkeypatch.setenv("COLUMNS", str(width))
    print_comparison(comparison, differences=True)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    cells = number_cells([row.total for row in comparison.rows])
    for label, cell in zip(("random", "best arm", "RL²"), cells, strict=False):
        assert any(label in line for line in out.splitlines())
        assert cell in out
    assert ("no room for" in out.replace("\n", " ")) == (width < 100)


def test_without_a_terminal_nothing_is_left_out(capsys, monkeypatch, comparison):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_comparison(comparison, differences=True)
    out = capsys.readouterr().out
    assert "no room" not in out
    assert "difference" in out
