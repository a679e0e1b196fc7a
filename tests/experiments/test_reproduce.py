"""Reproductions: checks of recorded settings, and the cells of the table."""

import json

import pytest
import reproduce

ITEMS = {
    item.name: item
    for item in reproduce.REPRODUCTIONS
    if (reproduce.RESULTS / f"{item.name}.json").exists()
}


@pytest.mark.parametrize("name", ITEMS)
def test_results_have_the_settings_of_their_preset_and_others_are_rejected(name):
    path = reproduce.RESULTS / f"{name}.json"
    recorded = json.loads(path.read_text())["settings"]["agent_options"]
    reproduce.require_same(ITEMS[name], recorded, path)
    with pytest.raises(SystemExit, match="num_tasks"):
        reproduce.require_same(ITEMS[name], recorded | {"num_tasks": 7}, path)


@pytest.mark.parametrize(
    ("measure", "seed", "text"),
    [
        ("trial", {}, "4.00 ± 0.50"),
        ("last", {"episodes": [{"mean": 1.0, "interval": 0.2}]}, "4.00 ± 0.50"),
        ("success", {"episodes": [{"mean": 1.0, "interval": 0.2}]}, "1.00 ± 0.20 / 4.00 ± 0.50"),
        ("steps", {"steps": [{"mean": 0.0}, {"mean": 2.0, "interval": 0.1}]}, "2.00 ± 0.10"),
    ],
)
def test_a_cell_of_the_table_shows_the_points_of_its_measure(measure, seed, text):
    points = reproduce.table_points(measure, seed | {"mean": 4.0, "interval": 0.5})
    assert reproduce.cell(points) == text
