import subprocess
import sys
from dataclasses import asdict, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import gymnasium
import numpy as np
import pytest

import metarl.evaluation.agents
import metarl.training.loop
from metarl.cli import main as cli
from metarl.cli.results import PlotOptions
from metarl.errors import NonFiniteError, RunFolderError
from metarl.plots.plot import PictureKind
from metarl.results.curves import write_curves
from metarl.training.run_folder import RunConfig, create_run
from tests.results.test_curves import make_curve
from tests.simple_agents import SteeringConfig

BANDIT = "metarl/BernoulliBandit-v0"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test stands in an empty folder, at a terminal wide enough not to break lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """Stands in for training: keeps what it was called with, and leaves a run folder."""
    calls = []

    def train(agent, task, *, task_options, config, run):
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


def run(capsys, *words):
    code = cli.main(words)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


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
    ("words", "complaint"),
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
        (["plot", "a", "--kind", "film"], "regret"),
        (["plot", "--paths", "a", "--kind", "regret"], "but --kind regret was given, too"),
        (["plot", "--paths", "a", "--kind", "adaptation"], "leave one of them out"),
        (
            ["evaluate", "--agent.rollouts-per-task", "3", "a"],
            "no run is named: metarl evaluate RUN --agent",
        ),
        (["compare"], "name at least one run folder"),
        (["record"], "PATH"),
        (["list", "everything"], "everything"),
    ],
)
def test_wrong_usage_says_what_is_right(capsys, words, complaint):
    code, _, err = run(capsys, *words)
    assert code == 2
    assert complaint in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["evaluate", "nowhere"], "nowhere is not a run folder"),
        (["evaluate", "nowhere", "--agent.rollouts-per-task", "3"], "nowhere is not a run folder"),
        (["plot", "nowhere"], "There is no nowhere"),
        (["plot", "nowhere", "--kind", "paths"], "There is no nowhere"),
        (["compare", "nowhere"], "There is no nowhere"),
        (["record", "nowhere"], "nowhere is not a run folder"),
    ],
)
def test_failure_is_one_line_on_stderr(capsys, words, complaint):
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert complaint in err
    assert err.count("\n") == 1


def test_list_describes_tasks_and_agents(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    for text in (BANDIT, "--task.pulls 10", "Discrete(5)", "rl2", "RL^2: adapts in the memory"):
        assert text in out


def test_a_broken_family_does_not_hide_the_others(capsys):
    metarl.register_family("lab/Broken-v0", "no_such_module:Broken")
    try:
        code, out, _ = run(capsys, "list")
    finally:
        del gymnasium.registry["lab/Broken-v0"]
    assert code == 0
    assert "lab/Broken-v0\n    cannot be made: ModuleNotFoundError" in out
    assert "--task.pulls 10" in out


def test_help_of_train_lists_what_can_be_trained(capsys):
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


def test_ctrl_c_in_training_says_how_to_go_on(capsys, monkeypatch):
    def train(*_, run, **__):
        run.out.mkdir()
        (run.out / "checkpoint.safetensors").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(metarl.training.loop, "train", train)
    words = ("train", "rl2", BANDIT, "--out", "my run", "--seed", "3")
    code, _, err = run(capsys, *words)
    assert code == 130
    assert "is kept in my run;" in err
    assert f"  metarl train rl2 {BANDIT} --out 'my run' --seed 3 --resume\n" in err


def test_ctrl_c_before_the_first_checkpoint_promises_nothing(capsys, monkeypatch):
    def train(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(metarl.training.loop, "train", train)
    code, _, err = run(capsys, "train", "rl2", BANDIT)
    assert (code, err) == (130, "metarl: Interrupted; nothing new was kept.\n")


def test_evaluate_shows_the_table_and_the_next_command(capsys, monkeypatch):
    calls = []
    ceiling = make_curve(agent="best_arm", label="best arm", role="ceiling", run="")
    curves = [replace(c, returns=c.returns * 0 + 0.25) for c in (ceiling, make_curve())]

    def evaluate(run, **options):
        calls.append((run, options))
        return curves

    monkeypatch.setattr(metarl.evaluation.agents, "evaluate", evaluate)
    code, out, err = run(capsys, "evaluate", "runs/a", "--num-tasks", "5000", "--no-progress")
    assert (code, err) == (0, "")
    assert calls == [
        (
            Path("runs/a"),
            {
                "num_tasks": 5000,
                "seed": 0,
                "episodes": None,
                "split": "test",
                "references": True,
                "label": None,
                "device": "cpu",
                "workers": None,
                "progress": False,
            },
        )
    ]
    agent, best = (line for line in out.splitlines() if "0.250 [0.250,0.250]" in line)
    assert "RL^2" in agent
    assert "best arm" in best
    assert "0.750 [0.750,0.750]" in agent
    assert "  metarl plot runs/a\n" in out


@pytest.mark.parametrize(
    ("words", "passed"),
    [([], True), (["none"], []), (["random", "best_arm"], ["random", "best_arm"])],
)
def test_references_of_an_evaluation_are_all_none_or_named(capsys, monkeypatch, words, passed):
    asked = []

    def evaluate(run, *, references, **_):
        asked.append(references)
        return [make_curve()]

    monkeypatch.setattr(metarl.evaluation.agents, "evaluate", evaluate)
    assert run(capsys, "evaluate", "a", *(["--references", *words] if words else []))[0] == 0
    assert asked == [passed]


@pytest.fixture
def steering_run(folder, monkeypatch):
    """The folder of a run whose agent was trained with two options of its own."""
    where = "tests.simple_agents:SteeringConfig"
    monkeypatch.setitem(metarl.registry._agents, "steering", where)
    options = {**asdict(SteeringConfig()), "rollouts_per_task": 7, "rate": 0.5}
    settings = RunConfig(
        agent="steering", agent_options=options, task=BANDIT, task_options={}, seed=0
    )
    return create_run(folder / "run", settings)


@pytest.mark.parametrize(
    ("words", "passed"),
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
    capsys, monkeypatch, steering_run, words, passed
):
    assert asked_for(capsys, monkeypatch, *words) == {"agent_options": passed, "task_options": {}}


def test_options_of_the_tasks_of_a_run_may_be_changed(capsys, monkeypatch, steering_run):
    words = ["--task.pulls", "20", "--task.arms", "5"]  # five arms were in training
    passed = {"agent_options": {}, "task_options": {"pulls": 20}}
    assert asked_for(capsys, monkeypatch, *words) == passed


def asked_for(capsys, monkeypatch, *words: str) -> dict[str, Any]:
    """The options that `metarl evaluate run` passes on."""
    asked = []

    def evaluate(run, *, agent_options, task_options, **_):
        assert run == Path("run")
        asked.append({"agent_options": agent_options, "task_options": task_options})
        return [make_curve()]

    monkeypatch.setattr(metarl.evaluation.agents, "evaluate", evaluate)
    code, _, err = run(capsys, "evaluate", "--num-tasks", "5", "run", *words)
    assert (code, err) == (0, "")
    (found,) = asked
    return found


def test_help_of_a_run_lists_the_options_of_its_agent_as_they_were(capsys, steering_run):
    code, out, _ = run(capsys, "evaluate", "run", "--help")
    assert code == 0
    for option, explained in [
        ("--agent.rollouts-per-task INT", "each task at once (B) (default: 7)"),
        ("--agent.rate FLOAT", "of the way (default: 0.5)"),
        ("--task.pulls INT", "(default: 10)"),
        ("--num-tasks INT", "tasks to live in (default: 1000)"),
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
    assert (code, err) == (0, "")
    (line,) = (line for line in out.splitlines() if "agent b" in line)
    # 3 episodes of 4 each; half of the way from 0 to 24; 6 more than agent a
    for cell in ("4.000", "12.000 [12.000,12.000]", "0.500 [0.500,0.500]", "6.000 [6.000,6.000]"):
        assert cell in line
    assert "score of the whole trial: 0 random, 1 best arm" in out
    assert "difference of the whole trial to agent a" in out
    assert Path("table.csv").read_text().count("\n") == 5
    _, out, _ = run(capsys, "compare", "a", "b", "--references", "none", "--by-seed")
    assert "agent a, a" in out
    assert "best arm" not in out.replace("1 best arm", "")


def test_compare_says_how_long_each_has_lived_where_that_differs(capsys, folder):
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
    assert "seeds   episodes" in out
    short, long, oracle = (
        next(line for line in out.splitlines() if f"  {name}" in line)
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


def test_evaluate_writes_its_table_too(capsys, monkeypatch):
    monkeypatch.setattr(metarl.evaluation.agents, "evaluate", lambda run, **_: [make_curve()])
    code, out, _ = run(capsys, "evaluate", "a", "--csv", "table.csv")
    assert code == 0
    assert "The table is in table.csv." in out
    assert Path("table.csv").read_text().startswith("agent,label,role,num_runs,first,first_low")


def test_the_command_knows_every_kind_of_picture():
    (kinds,) = (f.type for f in fields(PlotOptions) if f.name == "kind")
    assert get_args(get_args(kinds)[0]) == get_args(PictureKind)


@pytest.mark.parametrize(
    "words", [("a", "--paths"), ("--paths", "a"), ("--paths", "a", "--kind", "paths")]
)
def test_paths_is_short_for_its_kind(capsys, monkeypatch, words):
    asked = []
    monkeypatch.setattr(
        "metarl.plots.plot.plot",
        lambda runs, **options: asked.append((runs, options["kind"])) or [],
    )
    assert run(capsys, "plot", *words)[0] == 0
    assert asked == [((Path("a"),), "paths")]


def test_options_of_a_picture_reach_it(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "metarl.plots.plot.plot", lambda runs, **options: asked.append(options) or []
    )
    assert run(capsys, "plot", "a")[0] == 0
    words = ("--kind", "learning", "--metric", "entropy", "--smooth", "5", "--references", "all")
    assert run(capsys, "plot", "a", *words)[0] == 0
    words = ("--kind", "paths", "--tasks", "3", "--references", "random")
    assert run(capsys, "plot", "a", *words)[0] == 0
    assert [options["kind"] for options in asked] == ["adaptation", "learning", "paths"]
    assert [options["reference"] for options in asked] == [None, None, ["random"]]
    assert (asked[1]["metric"], asked[1]["smooth"]) == ("entropy", 5)
    assert (asked[2]["tasks"], asked[0]["tasks"]) == (3, None)
