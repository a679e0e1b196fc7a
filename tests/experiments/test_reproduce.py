"""Reproductions: what is beside what in one file."""

import json
import sys

import pytest

from tests.test_readme import ROOT

sys.path.insert(0, str(ROOT / "experiments"))
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
