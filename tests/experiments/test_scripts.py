"""Every script runs with small settings, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metarl

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def run_script(folder: Path, name: str, *options: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXPERIMENTS / name), *options],
        cwd=folder,
        # One thread, because other tests may run at the same time.
        env=os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_rl2_bandit_trains_evaluates_and_plots(tmp_path):
    options = ["--arms", "3", "--pulls", "4", "--iterations", "2", "--num-tasks", "8"]
    out = run_script(tmp_path, "rl2_bandit.py", *options, "--test-tasks", "50")
    assert "exact Bayes optimum" in out
    assert (tmp_path / "runs" / "rl2-BernoulliBandit-v0-seed0" / "adaptation.svg").exists()


def test_time_to_return_names_targets_that_were_reached_and_those_that_were_not(tmp_path):
    small = ["--iterations", "5", "--num-tasks", "200", "--targets", "1.0", "9.9", "--seeds", "3"]
    out = run_script(tmp_path, "time_to_return.py", *small)
    assert re.match(r"seed 3: 1\.0: \d+\.\d s \(5 iterations\); 9\.9: not reached; last ", out)


def test_benchmark_gradient_prints_a_row_for_each_number_of_tasks(tmp_path):
    out = run_script(tmp_path, "benchmark_gradient.py", "--tasks", "2", "3", "--repeats", "2")
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["2", "3"]


def test_maml_trains_adapts_and_plots(tmp_path):
    small = ["--iterations", "2", "--num-tasks", "3", "--goals", "4", "--trajectories", "3"]
    out = run_script(tmp_path, "maml_point_navigation.py", *small, "--steps", "2", "--out", "run")
    assert "MAML" in out
    assert "oracle (knows the goal)" in out
    assert (tmp_path / "run" / "adaptation.svg").exists()
    assert (tmp_path / "run" / "paths.png").exists()


def test_two_step_trains_and_plots_stay_probabilities(tmp_path):
    small = ["--rounds", "6", "--iterations", "2", "--test-tasks", "30"]
    out = run_script(tmp_path, "two_step.py", *small, "--out", "run")
    assert "oracle, reversals known            reward of a round, exactly 0.7400" in out
    # This policy stays exactly when paid.
    expected = "paid, common 1.000; paid, rare 1.000; not paid, common 0.000; not paid, rare 0.000"
    assert f"(model-free)  stay probability           {expected}" in out
    assert (tmp_path / "run" / "stay.svg").exists()
    assert (tmp_path / "run" / "stay.png").stat().st_size > 10_000


def test_few_shot_trains_and_classifies_images_of_unseen_classes(tmp_path):
    pytest.importorskip("sklearn")
    small = ["--iterations", "1", "--test-tasks", "200", "--threads", "1", "--out", "run"]
    out = run_script(tmp_path, "few_shot.py", *small)
    accuracy = {
        (line[:8].strip(), line[8:49].strip()): float(line.split("accuracy ")[1].split()[0])
        for line in out.splitlines()
        if "query accuracy" in line
    }
    for images in ("glyphs", "digits"):
        assert accuracy[images, "perfect memory (recognises every class)"] == 1.0
        assert accuracy[images, "random"] == pytest.approx(0.2, abs=0.06)
        assert accuracy[images, "RL²"] < 0.4  # after one iteration
    assert (tmp_path / "run" / "few-shot.png").stat().st_size > 10_000


def test_few_shot_memories_are_compared_with_a_supervised_network(tmp_path):
    small = ["--iterations", "1", "--test-tasks", "300", "--supervised-steps", "60"]
    options = ["--agents", "prototypical_networks", *small, "--threads", "1", "--out", "out"]
    out = run_script(tmp_path, "few_shot_memories.py", *options)
    accuracy = {
        line[:36].strip(): float(line.split("all queries ")[1].split()[0])
        for line in out.splitlines()
        if "all queries" in line
    }
    assert accuracy["supervised prototypical network"] > 0.7
    assert accuracy["nearest prototype (pixels)"] > 0.8
    assert accuracy["Prototypical Networks"] < 0.4  # after one iteration
    assert "prototypical_networks" in (tmp_path / "out" / "glyphs-1-shot.md").read_text()


def test_platipus_hypotheses_are_drawn_before_and_after(tmp_path):
    small = ["--iterations", "1", "--test-tasks", "20", "--threads", "1", "--out", "run"]
    out = run_script(tmp_path, "platipus_hypotheses.py", *small)
    rows = [line.split() for line in out.splitlines()[:5] if line.split()[0].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    apart, by_chance = float(rows[0][4]), float(rows[0][7])
    assert apart > by_chance > 0.0  # hypotheses differ by more than the noise of their rollouts
    assert (tmp_path / "run" / "hypotheses.png").stat().st_size > 10_000


def test_sinusoid_evaluates_rl2_by_point_and_gradient_agents_by_step(tmp_path):
    small = ["--iterations", "1", "--test-tasks", "30", "--threads", "1", "--out", "out"]
    out = run_script(tmp_path, "sinusoid.py", *small)
    (steps,) = (line for line in out.splitlines() if line.startswith("MAML  "))
    assert steps.count("/") == 5  # before and after each of five steps
    supervised = [line for line in out.splitlines() if "(supervised)" in line]
    assert [line.split()[0] for line in supervised] == ["MAML", "Meta-SGD", "Meta-LSTM"]
    assert all(line.count("/") == 3 for line in supervised)
    (fit,) = (line for line in out.splitlines() if line.startswith("Bayesian"))
    assert fit.split("queries")[1].strip().startswith("0.00 [")
    page = (tmp_path / "out" / "sinusoid.md").read_text(encoding="utf-8")
    assert "- `maml` on `metarl/Sinusoid-v0 (" in page
    assert "iterations=1, inner_lr" not in page  # .1 is the default
    assert "gamma=0.0" in page
    assert (tmp_path / "out" / "sinusoid.svg").exists()


def test_the_belief_of_varibad_is_drawn_at_each_step_of_the_first_episode(tmp_path):
    grid = metarl.make_family("metarl/GridNavigation-v0", steps=7)
    options = {"iterations": 1, "num_tasks": 8, "progress": False}
    metarl.train("varibad", grid, out=tmp_path / "run", **options)
    out = run_script(tmp_path, "varibad_belief.py", "--run", "run", "--samples", "20")
    heading, *steps = out.splitlines()[:8]
    assert heading.startswith("step  position")
    assert [line.split()[0] for line in steps] == [str(step) for step in range(7)]
    assert "(0, 0)" in steps[0]
    assert (tmp_path / "run" / "belief.png").stat().st_size > 10_000
    assert (tmp_path / "run" / "belief.svg").exists()
    metarl.train("rl2", grid, out=tmp_path / "other", **options)
    with pytest.raises(AssertionError, match="other is a run of rl2 on metarl/GridNavigation-v0; "):
        run_script(tmp_path, "varibad_belief.py", "--run", "other")


def test_agents_are_compared_in_the_same_tasks(tmp_path):
    small = ["--iterations", "1", "--tasks", "5", "--trajectories", "3", "--seeds", "1"]
    options = ["--only", "rl2", "maml", *small, "--threads", "1", "--out", "agents"]
    out = run_script(tmp_path, "compare_agents.py", *options)
    rows = [line.split(" | ") for line in out.splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows[1:3]] == ["RL²", "MAML"]
    assert [row[1] for row in rows[1:3]] == ["0, 1, 2", "0, 3, 6, 9"]
    assert (tmp_path / "agents.md").read_text(encoding="utf-8") in out
    assert (tmp_path / "agents.png").stat().st_size > 10_000
    assert (tmp_path / "agents-learning.svg").exists()


def test_reference_policies_are_measured_and_written(tmp_path):
    options = ["--tasks", "50", "--only", "bandit-5x10", "--out", "results"]
    assert "bandit-5x10: " in run_script(tmp_path, "reference_policies.py", *options)
    page = (tmp_path / "results" / "reference-policies.md").read_text(encoding="utf-8")
    assert "unseen tasks of each size" in page
    assert "P 6.7" in page


@pytest.mark.learning
def test_sb3_baselines_are_compared_with_rl2(tmp_path):
    small = ["--tasks", "2", "--steps", "640", "--rl2-iterations", "1", "--out", "out"]
    bandit = ["--task", "metarl/GoalBandit-v0", "--experience", "0", "80"]
    out = run_script(tmp_path, "sb3_baselines.py", *small, *bandit)
    labels = ("PPO from scratch", "PPO on all tasks, fine-tuned", "PPO with the task as input")
    for label in ("RL²", *labels):
        assert label in out
    assert (tmp_path / "out" / "adaptation.png").stat().st_size > 10_000


@pytest.mark.learning
def test_recurrent_ppo_is_compared_with_rl2(tmp_path):
    small = ["--steps", "80", "--lanes", "8", "--rl2-iterations", "1", "--test-tasks", "20"]
    out = run_script(tmp_path, "sb3_recurrent.py", *small, "--out", "out")
    labels = [line[:28].strip() for line in out.splitlines()]
    assert {"RL²", "PPO", "RL² by RecurrentPPO", "exact Bayes optimum"} <= set(labels)
    assert (tmp_path / "out" / "adaptation.png").stat().st_size > 10_000


@pytest.mark.learning
def test_the_demo_comes_close_to_the_exact_optimum(tmp_path):
    out = run_script(tmp_path, "demo.py")
    reward = {line[2:32].strip(): line.split()[-3] for line in out.splitlines() if "±" in line}
    # The optimum is 6.660; 10,000 tasks have a standard error of .022.
    assert 6.58 <= float(reward["RL²"]) <= 6.73
    assert (
        float(reward["Thompson sampling"]) < 6.0 < 8.2 < float(reward["best arm (knows the task)"])
    )
    assert "6.65999" in out
    assert (tmp_path / "runs" / "demo" / "adaptation.png").stat().st_size > 10_000


def test_tabular_references_are_measured_and_written(tmp_path):
    out = run_script(tmp_path, "tabular_references.py", "--tasks", "20", "--out", str(tmp_path))
    page = (tmp_path / "tabular-references.md").read_text(encoding="utf-8")
    assert page.strip() in out
    for policy in ("random", "greedy", "PSRL", "oracle, MDP known", "greedy (prior mean 0, flat)"):
        assert f"\n| {policy} | " in page


def test_benchmark_growth_measures_each_size_and_draws_it(tmp_path):
    small = ["--smallest", "2", "--rounds", "1", "--seconds", "0", "--results", "growth"]
    out = run_script(tmp_path, "benchmark_growth.py", *small)
    for name, sizes in {"lanes": (64, 128), "pulls": (5, 10), "tasks": (5, 10)}.items():
        assert f"| {name} (" in out
        assert all(re.search(rf"^\| {size} \| [\d,]+ \(", out, re.M) for size in sizes)
    assert "| 256 |" not in out
    assert (tmp_path / "growth.md").exists()
    assert (tmp_path / "growth.png").exists()


def test_adaptation_controls_measures_agents_beside_their_controls(tmp_path):
    small = ["--only", "versa", "--iterations", "2", "--test-tasks", "20", "--results", "found"]
    out = run_script(tmp_path, "adaptation_controls.py", *small)
    rows = [line.split("|")[1:3] for line in (tmp_path / "found.md").read_text().splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows if row and "VERSA" in row[0]]
    assert cells == [["VERSA", "BernoulliBandit"], ["VERSA", "GridNavigation"]]
    assert "memory=none" in out
    controls = sorted(path.name for path in (tmp_path / "runs" / "adaptation-controls").iterdir())
    assert controls == [
        "versa-BernoulliBandit-control-seed0",
        "versa-BernoulliBandit-seed0",
        "versa-GridNavigation-control-seed0",
        "versa-GridNavigation-seed0",
    ]
    assert (tmp_path / "found.png").exists()
