"""The table of reference policies: its numbers match an evaluation, its text the numbers."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import metarl
from metarl.envs.bandits.gittins_index import GittinsIndex
from metarl.envs.bandits.multi_armed import BernoulliBandit
from metarl.envs.bandits.references import PullsHighest
from tests.bandit_rollouts import exact_return

SCRIPT = Path(__file__).parents[2] / "experiments" / "reference_policies.py"
SPEC = importlib.util.spec_from_file_location("reference_policies", SCRIPT)
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)

RESULTS = SCRIPT.parent / "results"
COMMITTED = json.loads((RESULTS / "reference-policies.json").read_text())


def run_script(out, *only, tasks=40):
    script.main(script.Options(tasks=tasks, only=only, out=out))
    return json.loads((out / "reference-policies.json").read_text())


def test_tasks_and_noise_are_those_of_an_evaluation_with_the_same_seed(tmp_path):
    family = BernoulliBandit(arms=3, pulls=4)
    run = metarl.train("rl2", family, iterations=1, num_tasks=8, out=tmp_path / "run")
    # More tasks than one batch.
    curves = metarl.evaluate(run, num_tasks=2600, seed=9, references=["thompson", "best_arm"])
    for curve in curves[1:]:
        reference = family.references(4)[curve.agent]
        found = script.total_rewards(family, reference, num_tasks=2600, seed=9)
        np.testing.assert_array_equal(found, curve.returns.sum(0))


def test_sizes_measured_one_by_one_share_one_table_and_one_sample(tmp_path):
    run_script(tmp_path, "bandit-10x10")
    both = run_script(tmp_path, "bandit-5x10")
    assert list(both["bandits"]) == ["bandit-5x10", "bandit-10x10"]  # in the order of the table
    sizes, optima = (tmp_path / "reference-policies.md").read_text().split("## The exact")
    rows = [line.split("|")[1:3] for line in sizes.splitlines() if line.startswith("| 10 |")]
    assert rows == [[" 10 ", " 5 "], [" 10 ", " 10 "]]
    assert "| 5 | 10 | 6.659988 | 6.65999 |" in optima
    with pytest.raises(SystemExit, match=r"40 tasks of seed 1000000, not of 50 tasks"):
        run_script(tmp_path, "bandit-5x10", tasks=50)
    with pytest.raises(SystemExit, match=r"Unknown: bandit-5x11\. Known: bandit-5x10"):
        run_script(tmp_path, "bandit-5x11")


def differences(mean, tasks):
    """The text for one policy whose published mean is 5."""
    policy = {"mean": mean, "interval": 0.1, "published": 5.0}
    bandits = {"a": {"arms": 5, "pulls": 10, "policies": {"random": policy}}}
    return script.differences(bandits, tasks)


def test_the_joint_error_includes_both_samples_and_rounding():
    # As many tasks as in the published sample: .1 sqrt(2) + .05 = .191.
    assert differences(5.19, 1000).startswith("Of 1 published means, 0 differ")
    assert "random, 5 arms, 10 pulls (+0.20, joint 0.19)" in differences(5.20, 1000)
    assert "(-0.20, joint 0.19)" in differences(4.80, 1000)
    # Ten times as many: .1 sqrt(11) + .05 = .382.
    assert "Of 1 published means, 0" in differences(5.38, 10_000)
    assert "joint 0.38" in differences(5.39, 10_000)


def test_computed_and_published_means_are_looked_up():
    assert script.computed("bandit-5x10", "random") == {"value": 5.0, "error": 0.0}
    assert script.computed("bandit-10x100", "best_arm") == {"value": 90.9091, "error": 0.0}
    assert script.computed("bandit-5x10", "bayes_optimal") == {"value": 6.65999, "error": 0.0}
    assert script.computed("bandit-5x10", "thompson") is None
    assert script.published("bandit-50x100", "thompson") == 64.5
    assert script.published("bandit-50x100", "best_arm") is None


def test_the_page_shows_the_numbers_of_the_json_file():
    assert (RESULTS / "reference-policies.md").read_text(encoding="utf-8") == script.page(COMMITTED)
    assert list(COMMITTED["bandits"]) == list(script.SIZES)


def test_measured_means_agree_with_computed_means():
    for bandit in COMMITTED["bandits"].values():
        for policy in bandit["policies"].values():
            if known := policy["computed"]:
                error = (policy["interval"] / 1.96, known["error"])
                assert abs(policy["mean"] - known["value"]) < 3.5 * np.hypot(*error)
    for optimum in COMMITTED["optima"]:
        assert optimum["value"] == pytest.approx(optimum["expected"], abs=5e-5)


def test_the_reproductions_used_the_same_tasks():
    paths = {name: RESULTS / f"{name}.json" for name in script.SIZES}
    results = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    # Those of the former run format met other noise.
    results = {
        name: each for name, each in results.items() if each["settings"]["format"] != "metarl-run-1"
    }
    assert results
    for name, result in results.items():
        ceiling = result["ceiling"]
        policies = COMMITTED["bandits"][name]["policies"].values()
        means = {policy["label"]: policy["mean"] for policy in policies}
        assert means[ceiling["name"]] == pytest.approx(ceiling["mean"], abs=1e-4)


def test_the_page_states_the_exact_return_of_the_gittins_index():
    expected = exact_return(PullsHighest(5, GittinsIndex(10)), 5, 10)
    assert f"{expected:.5f}" == "6.65999"
    assert "6.65999" in script.NOTES
