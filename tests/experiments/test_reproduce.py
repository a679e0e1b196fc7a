"""Reproductions: what is beside what in one file."""

import json

import pytest
import reproduce

ITEMS = {
    item.name: item
    for item in reproduce.REPRODUCTIONS
    if (reproduce.RESULTS / f"{item.name}.json").exists()
}


@pytest.mark.parametrize("name", ITEMS)
def test_results_were_lived_with_what_their_preset_says_and_others_are_refused(name):
    path = reproduce.RESULTS / f"{name}.json"
    lived = json.loads(path.read_text())["settings"]["agent_options"]
    reproduce.require_same(ITEMS[name], lived, path)
    with pytest.raises(SystemExit, match="num_tasks"):
        reproduce.require_same(ITEMS[name], lived | {"num_tasks": 7}, path)


@pytest.mark.parametrize(
    ("measure", "seed", "said"),
    [
        ("trial", {}, "4.00 ± 0.50"),
        ("last", {"episodes": [{"mean": 1.0, "interval": 0.2}]}, "4.00 ± 0.50"),
        ("success", {"episodes": [{"mean": 1.0, "interval": 0.2}]}, "1.00 ± 0.20 / 4.00 ± 0.50"),
        ("steps", {"steps": [{"mean": 0.0}, {"mean": 2.0, "interval": 0.1}]}, "2.00 ± 0.10"),
    ],
)
def test_the_table_says_what_each_measure_is_about(measure, seed, said):
    assert reproduce.cell(reproduce.shown(measure, seed | {"mean": 4.0, "interval": 0.5})) == said
