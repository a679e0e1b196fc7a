import numpy as np

from metarl.results.sweeps import SweepRow, SweepTable, sweep_table, write_sweep
from metarl.sweeps.figure import MAX_SHOWN, sweep_figure, write_figure
from tests.results.test_sweeps import RECORD, add_run


def test_the_best_setting_is_on_top_with_its_interval_and_its_seeds(tmp_path):
    write_sweep(tmp_path, RECORD)
    for seed, last in ((0, 1.0), (1, 2.0), (2, 6.0)):
        add_run(tmp_path, RECORD.settings[0], seed, [10.0, last])
    add_run(tmp_path, RECORD.settings[1], 0, [0.0, 5.0])
    table = sweep_table(tmp_path)
    (axes,) = sweep_figure(table).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["rate=0.2", "rate=0.1"]
    low, high = axes.get_ylim()
    assert low > high  # position 0 is on top
    points, interval, mean = axes.lines[3:]
    np.testing.assert_array_equal(points.get_xdata(), [1, 2, 6])
    np.testing.assert_array_equal(interval.get_xdata(), list(map(float, table.rows[1].score[1:])))
    np.testing.assert_array_equal(mean.get_xdata(), [3.0])
    assert [path.name for path in write_figure(tmp_path, table)] == ["sweep.png", "sweep.svg"]


def test_many_settings_are_cut_and_none_is_no_error():
    score = (np.array(1.0),) * 3
    row = SweepRow(name="a", options={}, scores={0: 1.0}, score=score)
    (axes,) = sweep_figure(SweepTable(record=RECORD, rows=[row] * 90)).axes
    assert len(axes.get_yticks()) == MAX_SHOWN
    (axes,) = sweep_figure(SweepTable(record=RECORD, rows=[])).axes
    assert len(axes.lines) == 0
