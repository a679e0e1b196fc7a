import re
import subprocess
import sys
from dataclasses import asdict, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import metarl.evaluation.agents
import metarl.training.loop
import metarl.training.seeds
from metarl.cli import main as cli
from metarl.cli import results
from metarl.errors import NonFiniteError, RunFolderError, SeedsError
from metarl.evaluation.options import EvaluationOptions
from metarl.plots.options import PlotOptions
from metarl.registry import all_presets
from metarl.results.adaptation_curves import write_curves
from metarl.training.interruption import StoppedBySignal as Stop
from metarl.training.run_folder import RunConfig, create_run
from metarl.video.options import VideoOptions
from tests.results.test_adaptation_curves import make_curve
from tests.simple_agents import SteeringConfig

BANDIT = "metarl/BernoulliBandit-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Runs every test in an empty folder, with a terminal wide enough not to break lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """Replaces training: records its arguments and writes a run folder."""
    calls = []

    def train(agent, task, *, task_options, config, run, callbacks):
        calls.append((agent, task, task_options, config, run))
        settings = RunConfig(
            agent=agent, agent_options={}, task=task, task_options=task_options, seed=run.seed
        )
        folder = create_run(run.out, settings)
        (folder.path / "metrics.csv").write_text(
            "iteration,env_steps,seconds,first_episode_return,last_episode_return\n"
            "1,10,1.0,0.1,0.2\n20,20480,3.0,0.5,0.75\n"
        )
        return folder

    monkeypatch.setattr(metarl.training.loop, "train", train)
    return calls


def run(capsys, *arguments):
    code = cli.main(arguments)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_help_lists_the_commands(capsys):
    code, out, err = run(capsys, "--help")
    assert (code, err) == (0, "")
    for command in cli.COMMANDS:
        assert f"metarl {command} " in out


def test_no_command_is_wrong_usage(capsys):
    assert run(capsys)[0] == 2


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"metarl {metarl.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "rl2", BANDIT], "no command 'trian'. Did you mean 'train'?"),
        (["train", "rl3", BANDIT], "No agent is called 'rl3'. Did you mean 'rl2'?"),
        (["train", "rl2", "metarl/BernouliBandit-v0"], f"Did you mean '{BANDIT}'?"),
        (["train", "rl2", "nowhere:lab/Lever-v0"], "The module 'nowhere' of the task"),
        (["train", "rl2", BANDIT, "--num-taks", "3"], "--num-tasks INT"),
        (["train", "rl2", BANDIT, "--task.pull", "3"], "--task.pulls INT"),
        (["train", "rl2", BANDIT, "--num-tasks", "three"], "invalid literal for int()"),
        (["train", "rl2", BANDIT, "--num-tasks", "0"], "num_tasks=0 must be greater than zero"),
        (["train", "rl2"], "TASK is missing: metarl train rl2 TASK"),
        (["train"], "AGENT is missing"),
        (["train", "--seed", "3", "rl2", BANDIT], "the names first"),
        (["evaluate"], "PATH"),
        (["evaluate", "a", "--split", "exam"], "train"),
        (["plot"], "name at least one run folder"),
        (["plot", "a", "--formats", "bmp"], "'bmp' is no format"),
        (["plot", "a", "--kind", "pie"], "regret"),
        (["evaluate", "a", "--num-tasks", "0"], "num_tasks=0 must be greater than zero"),
        (["record", "a", "--fps", "0"], "fps=0.0 must lie between"),
        (["plot", "--paths", "a", "--kind", "regret"], "Got --kind regret and --paths"),
        (["plot", "--paths", "a", "--kind=adaptation"], "Omit one of them"),
        (
            ["evaluate", "--agent.rollouts-per-task", "3", "a"],
            "no run is named: metarl evaluate RUN --agent",
        ),
        (["compare"], "name at least one run folder"),
        (["record"], "PATH"),
        (["list", "everything"], "everything"),
    ],
)
def test_wrong_usage_is_refused_with_the_right_usage(capsys, arguments, message):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere"], "nowhere is not a run folder"),
        (["evaluate", "nowhere", "--agent.rollouts-per-task", "3"], "nowhere is not a run folder"),
        (["plot", "nowhere"], "There is no nowhere"),
        (["plot", "nowhere", "--kind", "paths"], "There is no nowhere"),
        (["compare", "nowhere"], "There is no nowhere"),
        (["record", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_failure_is_one_line_on_stderr(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_list_describes_tasks_and_agents(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    for text in (BANDIT, "rl2", "RL^2: adapts in the memory"):
        assert text in out
    assert "prototypical  Distances" in out
    (line,) = (line for line in out.splitlines() if BANDIT in line)
    assert line.startswith(f"  {BANDIT} ")
    assert line.endswith("A task is the vector of probabilities.")


def test_list_shows_options_spaces_and_presets_of_families_that_are_named(capsys):
    code, out, _ = run(capsys, "list", BANDIT, "metarl/GoalBandit-v0")
    assert code == 0
    assert out.startswith(f"{BANDIT}\n    Each arm pays 1 with")
    assert "    --task.pulls 10" in out
    assert out.count("    action       Discrete(5)\n") == 2
    assert "    task         Box(0.0, 1.0, (5,), float32)\n" in out
    preset = f"metarl train rl2 {BANDIT} --preset pulls-10\n        task.pulls=10 num_tasks=512"
    assert f"    {preset} iterations=600\n        (6.55 to" in out


def test_list_shows_options_and_presets_of_agents_and_memories(capsys):
    code, out, _ = run(capsys, "list", "rl2", "attention")
    assert code == 0
    assert "    --iterations 300" in out
    assert f"    metarl train rl2 {BANDIT} --preset pulls-100\n" in out
    assert "train dpt" not in out
    assert "    --memory-options heads 4" in out


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("rl3", " Did you mean 'rl2'?"),
        ("lsmt", " Did you mean 'lstm'"),
        ("BernouliBandit-v0", f" Did you mean {BANDIT!r}"),
        ("Grid", " Did you mean 'metarl/GridNavigation-v0'?"),
        ("qqqqq", ""),
    ],
)
def test_list_of_an_unknown_name_suggests_those_that_are_near(capsys, name, near):
    code, out, err = run(capsys, "list", name)
    assert (code, out) == (2, "")
    assert err.startswith(f"metarl: No agent, memory or task family is called {name!r}.{near}")
    assert err.endswith("`metarl list` names them all.\n")
    assert ("Did you mean" in err) == bool(near)
    code, _, err = run(capsys, "list", "lab/Gone-v0")
    assert code == 2
    assert "For a task of your own" in err


def test_presets_are_listed_in_the_order_of_the_numbers_in_their_names(capsys):
    _, out, _ = run(capsys, "list", "rl2")
    names = [line.split()[-1] for line in out.splitlines() if f"train rl2 {BANDIT} " in line]
    expected = ["pulls-10", "pulls-100", "pulls-100-arms-10", "pulls-100-arms-50"]
    assert names == [*expected, "pulls-100-transformer"]
    assert list(metarl.presets("rl2", BANDIT)) == names


def test_every_preset_says_how_many_minutes_it_takes_on_how_many_cores():
    for preset in all_presets():
        assert re.search(r"\d minutes?\b.* on (one|two)( \w+)? cores?\b", preset.note), preset


def test_help_shows_the_values_of_presets(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(capsys, "train", "rl2", BANDIT, "--help")
    assert code == 0
    assert "--preset pulls-10\n    task.pulls=10 num_tasks=512 iterations=600\n" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_broken_family_does_not_hide_the_others(capsys):
    metarl.register_family("lab/Broken-v0", "no_such_module:Broken")
    try:
        code, out, _ = run(capsys, "list")
    finally:
        del gymnasium.registry["lab/Broken-v0"]
    assert code == 0
    assert "  cannot be imported: lab/Broken-v0: ModuleNotFoundError" in out
    assert f"  {BANDIT} " in out


def test_help_of_train_lists_task_families_and_agents(capsys):
    code, out, _ = run(capsys, "train", "--help")
    assert code == 0
    for text in ("metarl train AGENT TASK", BANDIT, "rl2", "your_module:namespace/Name-v0"):
        assert text in out


def test_help_of_an_agent_explains_its_options(capsys):
    code, out, _ = run(capsys, "train", "rl2", "--help")
    assert code == 0
    assert BANDIT in out
    assert "--learning-rate FLOAT" in out


def test_help_of_agent_and_task_explains_every_option_with_its_default(capsys):
    code, out, _ = run(capsys, "train", "rl2", BANDIT, "--help")
    assert code == 0
    for option, explained in [
        ("--learning-rate FLOAT", "of Adam at the start (default: 0.003)"),
        ("--seed INT", "root of all randomness of the run (default: 0)"),
        ("--task.pulls INT", "(default: 10)"),
    ]:
        assert option in out
        assert explained in out


def test_options_reach_the_agent_the_family_and_the_run(capsys, trained):
    code, out, _ = run(
        capsys,
        *("train", "rl2", BANDIT, "--num-tasks", "128", "--task.pulls", "100"),
        *("--seed", "3", "--no-progress", "--memory", "lstm"),
    )
    assert code == 0
    ((agent, task, task_options, config, options),) = trained
    assert (agent, task) == ("rl2", BANDIT)
    assert task_options == {"arms": 5, "pulls": 100}
    assert (config.num_tasks, config.memory) == (128, "lstm")
    assert (options.seed, options.progress) == (3, False)
    assert "0.500 in the first episode of a task, 0.750 in the last" in out
    assert "  metarl evaluate runs/rl2-BernoulliBandit-v0-seed3\n" in out


def test_an_id_may_set_other_defaults(capsys, trained):
    metarl.register_family(
        "lab/Long-v0", "metarl.envs.bandits.multi_armed:BernoulliBandit", pulls=77
    )
    try:
        _, out, _ = run(capsys, "train", "rl2", "lab/Long-v0", "--help")
        code, _, _ = run(capsys, "train", "rl2", "lab/Long-v0", "--task.arms", "3")
    finally:
        del gymnasium.registry["lab/Long-v0"]
    assert "(default: 77)" in out
    assert code == 0
    assert trained[0][2] == {"arms": 3, "pulls": 77}


def test_a_module_in_the_current_folder_is_found(capsys, trained, folder):
    (folder / "lever_lab.py").write_text(
        "import metarl\n"
        "home = 'metarl.envs.bandits.multi_armed:BernoulliBandit'\n"
        "metarl.register_family('lab/Lever-v0', home)\n"
    )
    try:
        code, _, err = run(capsys, "train", "rl2", "lever_lab:lab/Lever-v0")
    finally:
        gymnasium.registry.pop("lab/Lever-v0", None)
        sys.modules.pop("lever_lab", None)
    assert (code, err) == (0, "")
    assert trained[0][1] == "lever_lab:lab/Lever-v0"


def test_an_agent_whose_option_every_run_has_is_refused(capsys, monkeypatch):
    config = make_dataclass(
        "Clash", [("seed", int, 0)], bases=(metarl.AgentConfig,), kw_only=True, frozen=True
    )
    monkeypatch.setattr(cli.registry, "agent_config", lambda name: config)
    code, _, err = run(capsys, "train", "rl2", BANDIT)
    assert code == 2
    assert "Clash has options that every run has already: seed" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NonFiniteError("The loss is NaN."), 1),
        (RunFolderError("The run folder exists."), 1),
        (metarl.registry.ConfigError("Options contradict."), 2),
    ],
)
def test_errors_of_training_become_exit_codes(capsys, monkeypatch, error, code):
    def train(*_, **__):
        raise error

    monkeypatch.setattr(metarl.training.loop, "train", train)
    found, _, err = run(capsys, "train", "rl2", BANDIT)
    assert found == code
    assert err == f"metarl: {error}\n"


def test_ctrl_c_in_training_prints_the_command_that_continues_it(capsys, monkeypatch):
    def train(*_, run, **__):
        run.out.mkdir()
        (run.out / "checkpoint.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(metarl.training.loop, "train", train)
    code, _, err = run(capsys, "train", "rl2", BANDIT, "--out", "my run", "--seed", "3")
    assert code == 130
    assert "is saved in my run;" in err
    assert f"  metarl train rl2 {BANDIT} --out 'my run' --seed 3 --resume\n" in err


def test_ctrl_c_in_a_run_that_goes_on_prints_the_same_command(capsys, monkeypatch):
    words = ["train", "--resume", "my run", "--iterations", "3", "--no-progress"]
    small = ["--num-tasks", "8", "--iterations", "1", "--no-progress"]
    assert run(capsys, "train", "rl2", BANDIT, "--out", "my run", *small)[0] == 0
    monkeypatch.setattr(metarl.training.loop, "train", raise_interrupt)
    code, _, err = run(capsys, *words)
    assert code == 130
    assert "  metarl train --resume 'my run' --iterations 3 --no-progress\n" in err


def raise_interrupt(*_, **__):
    raise KeyboardInterrupt


def test_ctrl_c_before_the_first_checkpoint_reports_that_nothing_was_saved(capsys, monkeypatch):
    def train(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(metarl.training.loop, "train", train)
    code, _, err = run(capsys, "train", "rl2", BANDIT)
    assert (code, err) == (130, "metarl: Interrupted; nothing new was saved.\n")


@pytest.fixture
def trained_seeds(monkeypatch):
    """Replaces the training of several seeds: records the jobs, writes run folders, may raise."""
    calls: dict[str, Any] = {"jobs": [], "error": None}

    def train_jobs(jobs):
        calls["jobs"] = jobs
        for job in jobs:
            folder = create_run(job.path, job.description)
            (folder.path / "metrics.csv").write_text(
                "iteration,env_steps,seconds,first_episode_return,last_episode_return\n"
                "20,20480,3.0,0.5,0.75\n"
            )
            folder.checkpoint.touch()
        if calls["error"]:
            raise calls["error"]

    monkeypatch.setattr(metarl.training.seeds, "train_jobs", train_jobs)
    return calls


SEEDS = ("train", "rl2", BANDIT, "--num-tasks", "16", "--seeds", "2", "0")


def test_several_seeds_are_trained_with_the_options_of_one(capsys, trained_seeds):
    code, out, _ = run(capsys, *SEEDS, "--threads", "2")
    assert code == 0
    for job, seed in zip(trained_seeds["jobs"], (2, 0), strict=True):
        assert (job.config.num_tasks, job.options.threads, job.options.seed) == (16, 2, seed)
        assert str(job.path) == f"runs/rl2-BernoulliBandit-v0-seed{seed}"
        assert f"Trained rl2 on {BANDIT}, seed {seed}: 20 iterations" in out
        assert f"\n  metarl evaluate {job.path}\n" in out
    run(capsys, *SEEDS, "--out", "a")
    assert [str(job.path) for job in trained_seeds["jobs"]] == ["a/seed2", "a/seed0"]


def test_one_seed_and_several_are_a_contradiction(capsys, trained_seeds):
    for seed in (["--seed", "3"], ["--seed=0"]):
        code, _, err = run(capsys, *SEEDS, *seed)
        assert code == 2
        assert "Got --seed and --seeds." in err
    assert not trained_seeds["jobs"]


def test_a_failed_seed_is_an_error_after_the_summary_of_the_others(capsys, trained_seeds):
    trained = [Path("runs/rl2-BernoulliBandit-v0-seed0")]
    trained_seeds["error"] = SeedsError("1 of 2 seeds failed.\nSeed 2: NaN", trained=trained)
    code, out, err = run(capsys, *SEEDS)
    assert code == 1
    assert "seed 0: 20 iterations" in out
    assert "seed 2" not in out
    assert "Seed 2: NaN" in err


@pytest.mark.parametrize(("stop", "exit_code"), [(KeyboardInterrupt(), 130), (Stop(143), 143)])
def test_the_command_that_continues_several_seeds_is_printed(
    capsys, trained_seeds, stop, exit_code
):
    trained_seeds["error"] = stop
    code, _, err = run(capsys, *SEEDS, "--out", "a", "--resume")
    assert code == exit_code
    assert "2 of 2 runs are saved in a/seed2, a/seed0; continue with" in err
    assert f"  metarl {' '.join(SEEDS)} --out a --resume\n" in err


def test_evaluate_prints_the_table_and_the_next_command(capsys, monkeypatch):
    calls = []
    ceiling = make_curve(agent="best_arm", label="best arm", role="ceiling", run="")
    curves = [replace(c, returns=c.returns * 0 + 0.25) for c in (ceiling, make_curve())]

    def evaluate(run, **arguments):
        calls.append((run, arguments))
        return curves

    monkeypatch.setattr(metarl.evaluation.agents, "evaluate", evaluate)
    code, out, err = run(capsys, "evaluate", "runs/a", "--num-tasks", "5000", "--no-progress")
    assert (code, err) == (0, "")
    assert calls == [(Path("runs/a"), {"options": EvaluationOptions(num_tasks=5000)})]
    agent, best = (line for line in out.splitlines() if " .25 " in line)
    assert "RL^2" in agent
    assert "best arm" in best
    assert " .75 " in agent
    assert "  metarl plot runs/a\n" in out


@pytest.mark.parametrize(
    ("command", "options", "differing"),
    [
        (results.EvaluateCommand, EvaluationOptions, {"progress"}),
        (results.PlotCommand, PlotOptions, set()),
        (results.RecordCommand, VideoOptions, {"progress"}),
    ],
)
def test_a_command_has_the_defaults_of_the_function(command, options, differing):
    (given,) = (f.default for f in fields(command) if isinstance(f.default, options))
    assert {name for name, value in vars(options()).items() if getattr(given, name) != value} == (
        differing
    )


@pytest.mark.parametrize("options", [EvaluationOptions, PlotOptions, VideoOptions])
def test_every_option_is_explained_in_the_help(capsys, options):
    command = {EvaluationOptions: "evaluate", PlotOptions: "plot", VideoOptions: "record"}[options]
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    help_text = " ".join(re.sub("[│╭╰─╮╯]", " ", out).split())
    parts = re.split(r"\(default: .*?\)", help_text)  # one for each option
    for field in fields(options):
        option = f"--{field.name.replace('_', '-')}"
        assert [part for part in parts if re.search(rf"{option},? .*[a-z]+ [a-z]+", part)]


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "list",
        "check --help",
        "check metarl/KrazyWorld-v0 --help",
        "train --help",
        "train rl2 --help",
        "train maml metarl/PointNavigation-v0 --help",
        f"train rl2 {BANDIT} --preset pulls-100 --help",
        "train rl2 metarl/AntDir-v0 --help",
        "evaluate --help",
        "compare --help",
        "plot --help",
        "record --help",
    ],
)
def test_lists_and_help_load_no_torch_and_no_matplotlib(command):
    code = (
        "import sys; from metarl.cli.main import main\n"
        f"assert main({command.split()!r}) == 0\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'stable_baselines3', 'tensorboard', 'PIL'}\n"
        "heavy |= {'metarl.training.run_folder', 'metarl.plots.plot', 'metarl.video.record'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)


@pytest.fixture
def steering_run(folder, monkeypatch):
    """The folder of a run whose agent was trained with two options that are not the defaults."""
    config = "tests.simple_agents:SteeringConfig"
    monkeypatch.setitem(metarl.registry._agents, "steering", config)
    options = {**asdict(SteeringConfig()), "rollouts_per_task": 7, "rate": 0.5}
    settings = RunConfig(
        agent="steering", agent_options=options, task=BANDIT, task_options={}, seed=0
    )
    return create_run(folder / "run", settings)


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], {}),
        (
            ["--agent.rollouts-per-task", "40", "--agent.evaluation-steps", "5"],
            {"rollouts_per_task": 40, "evaluation_steps": 5},
        ),
        (["--agent.rollouts-per-task=7", "--agent.hidden-sizes", "8", "8"], {}),
        (["--agent.hidden-sizes", "9"], {"hidden_sizes": (9,)}),
    ],
)
def test_options_of_the_agent_of_a_run_may_be_changed(
    capsys, monkeypatch, steering_run, arguments, passed
):
    found = changed_options(capsys, monkeypatch, *arguments)
    assert found == {"agent_options": passed, "task_options": {}}


def test_options_of_the_tasks_of_a_run_may_be_changed(capsys, monkeypatch, steering_run):
    arguments = ["--task.pulls", "20", "--task.arms", "5"]  # five arms were in training
    passed = {"agent_options": {}, "task_options": {"pulls": 20}}
    assert changed_options(capsys, monkeypatch, *arguments) == passed


def changed_options(capsys, monkeypatch, *arguments: str) -> dict[str, Any]:
    """The options of agent and tasks that `metarl evaluate run` passes on."""
    calls = []

    def evaluate(run, *, agent_options, task_options, **_):
        assert run == Path("run")
        calls.append({"agent_options": agent_options, "task_options": task_options})
        return [make_curve()]

    monkeypatch.setattr(metarl.evaluation.agents, "evaluate", evaluate)
    code, _, err = run(capsys, "evaluate", "--num-tasks", "5", "run", *arguments)
    assert (code, err) == (0, "")
    (found,) = calls
    return found


def test_help_of_a_run_lists_the_options_with_which_its_agent_was_trained(capsys, steering_run):
    code, out, _ = run(capsys, "evaluate", "run", "--help")
    assert code == 0
    for option, explained in [
        ("--agent.rollouts-per-task INT", "in parallel in each task (B) (default: 7)"),
        ("--agent.rate FLOAT", "by which the point moves (default: 0.5)"),
        ("--task.pulls INT", "(default: 10)"),
        ("--num-tasks INT", "tasks drawn from the split (default: 1000)"),
    ]:
        assert option in out
        assert explained in out
    code, out, _ = run(capsys, "evaluate", "--help")
    assert code == 0
    assert "--agent.rollouts-per-task" not in out
    assert "--agent.NAME VALUE" in out
    code, _, err = run(capsys, "evaluate", "run", "--agent.rollouts", "3")
    assert code == 2
    assert "--agent.rollouts-per-task INT" in err


def test_plot_prints_the_files_it_wrote(capsys, folder):
    (folder / "a").mkdir()
    write_curves("a/adaptation.csv", [make_curve()])
    assert run(capsys, "plot", "a", "--formats", "svg") == (0, "a/adaptation.svg\n", "")
    assert run(capsys, "plot", "a", "--out", "curve.png") == (0, "curve.png\n", "")
    assert Path("curve.png").stat().st_size > 1000


def test_the_installed_command_returns_its_exit_code(folder):
    command = [
        sys.executable,
        "-c",
        "import sys; from metarl.cli.main import main; sys.exit(main())",
    ]
    finished = subprocess.run([*command, "plot", "nowhere"], capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr.startswith("metarl: There is no nowhere")


def test_compare_shows_scores_and_differences_and_writes_them(capsys, folder):
    floor = make_curve(agent="random", label="random", role="floor", run="")
    ceiling = make_curve(agent="best_arm", label="best arm", role="ceiling", run="")
    heights = {"a": 2.0, "b": 4.0}
    for name, height in heights.items():
        (folder / name).mkdir()
        agent = make_curve(run=name, agent=name, label=f"agent {name}")
        parts = [(agent, height), (floor, 0.0), (ceiling, 8.0)]
        write_curves(
            f"{name}/adaptation.csv", [replace(c, returns=c.returns * 0 + h) for c, h in parts]
        )
    code, out, err = run(capsys, "compare", "a", "b", "--csv", "table.csv")
    text = " ".join(out.split())
    assert (code, err) == (0, "")
    (line,) = (line for line in out.splitlines() if "agent b" in line)
    # 3 episodes of 4 each; half of 24, the ceiling; 6 more than agent a
    assert line.split()[2:] == ["agent", "1", "4.00", "4.00", "12.00", ".50", "6.00"]
    assert "score of the whole trial: 0 random, 1 best arm" in text
    assert "difference of the whole trial to agent a" in text
    assert Path("table.csv").read_text().count("\n") == 5
    _, out, _ = run(capsys, "compare", "a", "b", "--references", "none", "--by-seed")
    assert "agent a, a" in out
    assert "best arm" not in out.replace("1 best arm", "")


def test_compare_shows_numbers_of_episodes_that_differ(capsys, folder):
    heights = {"short": 2.0, "long": 4.0}
    for name, height in heights.items():
        (folder / name).mkdir()
        agent = make_curve(run=name, agent=name, label=f"{name} agent")
        best = make_curve(agent="oracle", label="oracle", role="ceiling", run="")
        curves = [replace(agent, returns=agent.returns * 0 + height), best]
        if name == "long":
            curves = [replace(curve, episode=np.array([1, 21, 41])) for curve in curves]
        write_curves(f"{name}/adaptation.csv", curves)
    code, out, _ = run(capsys, "compare", "short", "long")
    assert code == 0
    assert "seeds  episodes" in out
    short, long, oracle = (
        next(line for line in out.splitlines() if f" {name}" in line)
        for name in ("short agent", "long agent", "oracle")
    )
    assert short.split()[:5] == ["short", "agent", "agent", "1", "3"]
    assert long.split()[:5] == ["long", "agent", "agent", "1", "41"]
    assert oracle.split()[:3] == ["oracle", "ceiling", "41"]
    assert "no regret where not every episode was measured" in " ".join(out.split())
    code, out, _ = run(capsys, "compare", "short")
    assert "episodes" not in out
    assert "no regret" not in out
    code, _, err = run(capsys, "plot", "short", "long", "--kind", "regret")
    assert code == 2
    assert "was measured at the episodes 1, 21, 41: regret adds up all" in err


def test_evaluate_writes_its_table(capsys, monkeypatch):
    monkeypatch.setattr(metarl.evaluation.agents, "evaluate", lambda run, **_: [make_curve()])
    code, out, _ = run(capsys, "evaluate", "a", "--csv", "table.csv")
    assert code == 0
    assert "The table is in table.csv." in out
    assert Path("table.csv").read_text().startswith("agent,label,role,num_runs,first,first_low")


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "--paths"),
        ("--paths", "a"),
        ("--paths", "a", "--kind", "paths"),
        ("a", "--kind=paths"),
    ],
)
def test_paths_is_short_for_its_kind(capsys, plotted, arguments):
    assert run(capsys, "plot", *arguments)[0] == 0
    assert plotted == [((Path("a"),), PlotOptions(kind="paths"))]


@pytest.fixture
def plotted(monkeypatch):
    """Replaces plotting: records the arguments."""
    calls = []
    monkeypatch.setattr(
        "metarl.plots.plot.plot", lambda runs, *, options: calls.append((runs, options)) or []
    )
    return calls


def test_options_of_a_figure_are_passed_on(capsys, plotted):
    assert run(capsys, "plot", "a")[0] == 0
    learning = ("--kind", "learning", "--metric", "entropy", "--smooth", "5")
    assert run(capsys, "plot", "a", *learning, "--references", "all")[0] == 0
    paths = ("--kind", "paths", "--tasks", "3", "--references", "random")
    assert run(capsys, "plot", "a", *paths, "--out", "b.pdf", "--formats", "svg")[0] == 0
    assert [options for _, options in plotted] == [
        PlotOptions(),
        PlotOptions(kind="learning", metric="entropy", smooth=5, references=["all"]),
        PlotOptions(
            kind="paths", tasks=3, references=["random"], out=Path("b.pdf"), formats=["svg"]
        ),
    ]
