import csv
from dataclasses import replace

import numpy as np
import pytest

from metarl.errors import ConfigError, RunFolderError, UnknownNameError
from metarl.results.adaptation_curves import write_curves
from metarl.results.bootstrap import bootstrap_mean, estimate_from_means
from metarl.results.comparison import ESTIMATES, compare, compare_curves, write_comparison
from metarl.results.scores import normalised_score
from tests.results.test_adaptation_curves import make_curve

TASKS = 50


def noisy_curve(means, *, seed=0, run="", **names):
    """A curve with these mean returns and a noise that is small compared to their differences."""
    noise = 0.1 * np.random.default_rng(seed).standard_normal((len(means), TASKS))
    curve = make_curve(points=len(means), tasks=TASKS, run=run, **names)
    return replace(curve, returns=np.array(means)[:, None] + noise)


def example_curves():
    """Two seeds of one agent, one of another, a floor and two ceilings."""
    return [
        noisy_curve([1, 2, 3], seed=1, run="a0"),
        noisy_curve([1, 2, 5], seed=2, run="a1"),
        noisy_curve([1, 3, 6], seed=3, run="b0", agent="maml", label="MAML"),
        noisy_curve([0, 0, 0], seed=4, agent="random", label="random", role="floor"),
        noisy_curve([5, 5, 5], seed=5, agent="bayes", label="Bayes optimum", role="ceiling"),
        noisy_curve([8, 8, 8], seed=6, agent="oracle", label="oracle", role="ceiling"),
    ]


def by_label(comparison):
    return {row.label: row for row in comparison.rows}


def test_rows_are_ordered_from_floor_to_ceiling_and_seeds_are_joined():
    comparison = compare_curves(example_curves())
    assert [(row.label, row.num_runs) for row in comparison.rows] == [
        ("random", 1),
        ('RL^2, "GRU"', 2),
        ("MAML", 1),
        ("Bayes optimum", 1),
        ("oracle", 1),
    ]
    assert (comparison.floor, comparison.ceiling) == ("random", "Bayes optimum")
    assert (comparison.base, comparison.measure) == ('RL^2, "GRU"', "total")
    assert comparison.num_tasks == TASKS


def test_every_estimate_matches_its_definition():
    curves = example_curves()
    joined = np.stack([curves[0].returns, curves[1].returns])
    other, floor, ceiling, oracle = (curve.returns[None] for curve in curves[2:])
    total = [part.sum(1, keepdims=True) for part in (joined, other, floor, ceiling, oracle)]
    expected = {
        "first": bootstrap_mean(other[:, :1]),
        "last": bootstrap_mean(other[:, -1:]),
        "total": bootstrap_mean(total[1]),
        "score": estimate_from_means(normalised_score, total[1], total[2], total[3]),
        "difference": estimate_from_means(np.subtract, total[1], total[0]),
        "regret": estimate_from_means(np.subtract, total[4], total[1]),
    }
    row = by_label(compare_curves(curves))["MAML"]
    for name, estimate in expected.items():
        actual = getattr(row, name)
        np.testing.assert_allclose(actual.mean, estimate.mean[0], rtol=1e-12)
        # The resamples differ, so the ends agree up to bootstrap noise.
        width = float(estimate.high[0] - estimate.low[0])
        np.testing.assert_allclose(actual.low, estimate.low[0], atol=0.15 * width)
        np.testing.assert_allclose(actual.high, estimate.high[0], atol=0.15 * width)


def test_the_first_agent_has_no_difference():
    rows = by_label(compare_curves(example_curves()))
    assert rows['RL^2, "GRU"'].difference is None
    assert rows["random"].difference is not None
    rows = by_label(compare_curves(example_curves()[2:] + example_curves()[:2]))
    assert rows["MAML"].difference is None
    np.testing.assert_allclose(rows['RL^2, "GRU"'].difference.mean, -3.0, atol=0.1)


def test_the_interval_of_a_total_is_computed_from_totals_per_task():
    # Two tasks whose first and last returns differ and whose totals are both 6: the interval of
    # the total has zero width, unlike a sum of intervals.
    returns = np.array([[0.0, 2.0], [2.0, 2.0], [4.0, 2.0]])
    zeros = np.zeros((3, 2))
    curve = replace(make_curve(), returns=returns, env_steps=zeros, success=zeros)
    (row,) = compare_curves([curve]).rows
    assert (row.first.mean, row.last.mean) == (1.0, 3.0)
    assert (row.first.low, row.first.high) == (0.0, 2.0)
    np.testing.assert_allclose(row.total, [6.0, 6.0, 6.0])
    assert (row.score, row.difference, row.regret) == (None, None, None)


def curves_of_unequal_length():
    """An agent measured up to episode 3 and one up to 41, each with its run's references."""
    curves = example_curves()
    sparse = {"episode": np.array([1, 21, 41])}
    others = [
        noisy_curve([1, 2, 2], seed=7, agent="random", label="random", role="floor"),
        noisy_curve([5, 7, 7], seed=8, agent="oracle", label="oracle", role="ceiling"),
    ]
    return [*curves, replace(curves[2], **sparse), *(replace(curve, **sparse) for curve in others)]


def test_success_is_reported_where_it_is_defined():
    curve = make_curve(tasks=2)
    solved = np.array([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    (row,) = compare_curves([replace(curve, success=solved)]).rows
    np.testing.assert_allclose(row.first_success, [0.5, 0.0, 1.0])
    np.testing.assert_allclose(row.last_success, [1.0, 1.0, 1.0])
    (row,) = compare_curves([replace(curve, success=np.full((3, 2), np.nan))]).rows
    assert (row.first_success, row.last_success) == (None, None)


def test_the_last_episode_is_compared_where_episodes_are_skipped():
    curves = curves_of_unequal_length()
    del curves[2]
    comparison = compare_curves(curves)
    rows = by_label(comparison)
    assert comparison.measure == "last"
    assert rows["MAML"].total is None
    assert rows["MAML"].regret is None
    assert rows['RL^2, "GRU"'].total is not None
    assert {label: row.episodes for label, row in rows.items()} == {
        "random": 41,
        'RL^2, "GRU"': 3,
        "MAML": 41,
        "Bayes optimum": 3,
        "oracle": 41,
    }
    # The floor at 2 and the ceiling at 7 have as many episodes as MAML; the Bayes optimum has 3.
    assert (comparison.floor, comparison.ceiling) == ("random", "oracle")
    np.testing.assert_allclose(rows["MAML"].score.mean, 4 / 5, atol=0.05)
    np.testing.assert_allclose(rows['RL^2, "GRU"'].score.mean, 2 / 5, atol=0.05)
    np.testing.assert_allclose(rows["MAML"].difference.mean, 2.0, atol=0.1)


def test_without_references_of_equal_length_there_is_no_score():
    curves = example_curves()
    curves[2] = replace(curves[2], episode=np.array([1, 21, 41]))
    comparison = compare_curves(curves)
    assert (comparison.floor, comparison.ceiling) == (None, None)
    assert by_label(comparison)['RL^2, "GRU"'].score is None


def test_each_seed_has_a_separate_row_on_request():
    curves = example_curves()
    curves.append(replace(curves[0]))  # another folder of the same name
    labels = [row.label for row in compare_curves(curves, by_seed=True).rows]
    assert labels[1:5] == [
        'RL^2, "GRU", a0',
        'RL^2, "GRU", a1',
        "MAML, b0",
        'RL^2, "GRU", a0 (2)',
    ]


def test_references_that_are_not_shown_still_define_scores():
    comparison = compare_curves(example_curves(), reference=["oracle"])
    assert [row.role for row in comparison.rows] == ["agent", "agent", "ceiling"]
    assert comparison.ceiling == "Bayes optimum"
    assert by_label(comparison)["MAML"].score is not None
    with pytest.raises(UnknownNameError, match="'thompson'"):
        compare_curves(example_curves(), reference=["thompson"])


def test_runs_in_different_tasks_are_refused(tmp_path):
    write_runs(tmp_path, [make_curve(run="a")], [replace(make_curve(run="b"), seed=8)])
    with pytest.raises(ConfigError, match="only curves from the same tasks can be compared"):
        compare([tmp_path / "0", tmp_path / "1"])
    with pytest.raises(RunFolderError, match=r"`metarl evaluate .*2` writes it"):
        compare([tmp_path / "2"])
    with pytest.raises(ConfigError, match="name at least one run folder"):
        compare([])


def write_runs(folder, *runs):
    for number, curves in enumerate(runs):
        (folder / str(number)).mkdir()
        write_curves(folder / str(number) / "adaptation.csv", curves)


def test_run_folders_are_compared_and_the_table_is_written(tmp_path):
    *agents, floor, ceiling, oracle = example_curves()
    write_runs(tmp_path, *([agent, floor, ceiling, oracle] for agent in agents))
    comparison = compare([tmp_path / name for name in "012"])
    write_comparison(tmp_path / "table.csv", comparison)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [row.label for row in comparison.rows]
    assert {row["ceiling"] for row in rows} == {"Bayes optimum"}
    assert {row["episodes"] for row in rows} == {"3"}
    for written, row in zip(rows, comparison.rows, strict=True):
        for name in ESTIMATES:
            estimate = getattr(row, name)
            cells = [written[name + end] for end in ("", "_low", "_high")]
            assert cells == (
                ["", "", ""] if estimate is None else [str(float(x)) for x in estimate]
            )


def test_at_compares_after_equal_experience():
    floor, best = (make_curve(role=role, agent=role, label=role) for role in ("floor", "ceiling"))
    short = make_curve(agent="short", label="short")  # episodes 1, 2, 3
    long = replace(make_curve(agent="long", label="long"), episode=np.array([1, 3, 41]))
    low, high = (replace(c, returns=c.returns * 0 + h) for c, h in ((floor, 0.0), (best, 8.0)))
    rising = np.array([[1.0], [2.0], [4.0]]) + np.zeros((3, short.num_tasks))
    curves = [low, high, replace(short, returns=rising), replace(long, returns=rising)]
    row = {row.label: row for row in compare_curves(curves, at=2).rows}
    assert [float(row[name].last.mean) for name in ("short", "long")] == [2.0, 1.0]
    assert [row[name].episodes for name in ("short", "long", "ceiling")] == [2, 1, 2]
    assert float(row["short"].score.mean) == 0.25
    assert compare_curves(curves, at=3).at == 3
    with pytest.raises(ConfigError, match="at=41: short was measured from episode 1 to 3"):
        compare_curves(curves, at=41)
    with pytest.raises(ConfigError, match="at=0: "):
        compare_curves(curves, at=0)
