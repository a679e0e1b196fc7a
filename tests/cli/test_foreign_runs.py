"""Opening somebody's run executes, overwrites and prints nothing that its files ask for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import metarl
from metarl.cli.main import main
from metarl.errors import RunFolderError
from metarl.results.adaptation_curves import read_curves, write_curves
from tests.foreign_runs import change_config, copy_of, train_tiny

ROOT = Path(__file__).parents[2]
BANDIT = "metarl/BernoulliBandit-v0"
NAME = "rl2-BernoulliBandit-v0-seed0"
LOG = "EXECUTED"
"""file in the current folder in which planted modules write their names"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("runs") / NAME)


@pytest.fixture
def foreign(tiny, tmp_path, monkeypatch):
    """A run folder in runs/ below an empty current folder."""
    run = copy_of(tiny, tmp_path / "runs" / NAME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield run
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mine", "planted", "evil", "runs", NAME, "metarl_planted"):
            del sys.modules[name]
    sys.path_importer_cache.clear()


def plant(folder: Path, *names: str) -> Path:
    """Modules that log their names where they are executed; returns the log."""
    log = Path.cwd() / LOG
    for name in names:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"with open({str(log)!r}, 'a') as log:\n    log.write({name!r} + '\\n')\n")
    return log


def script(commands: str) -> list[str]:
    """Runs commands as the installed script: the current folder is not on the import path."""
    program = "import json, sys; from metarl.cli.main import main; "
    program += "print(json.dumps([main(words) for words in json.loads(sys.argv[1])]))"
    return [sys.executable, "-P", "-c", program, commands]


def environment() -> dict[str, str]:
    others = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    path = os.pathsep.join([str(ROOT), *others])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


COMMANDS = {
    "evaluate": ["evaluate", "RUN", "--num-tasks", "5", "--no-progress"],
    "evaluate --help": ["evaluate", "RUN", "--help"],
    "evaluate --task.arms": ["evaluate", "RUN", "--task.arms", "3", "--num-tasks", "5"],
    "record": ["record", "RUN", "--no-progress"],
    "plot": ["plot", "RUN"],
    "plot --kind learning": ["plot", "RUN", "--kind", "learning"],
    "plot --kind pulls": ["plot", "RUN", "--kind", "pulls"],
    "compare": ["compare", "RUN"],
    "train --resume": ["train", "rl2", BANDIT, "--out", "RUN", "--resume", "--no-progress"],
}
"""every command that opens a run"""
MAKES_THE_FAMILY = ("evaluate", "evaluate --help", "evaluate --task.arms", "record")


def run_command(name: str, run: str) -> int:
    return main([run if word == "RUN" else word for word in COMMANDS[name]])


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("field", ["task", "agent"])
@pytest.mark.parametrize("place", ["run folder", "parent", "two up"])
def test_no_command_executes_a_module_that_the_run_names(
    foreign, monkeypatch, capsys, name, field, place
):
    # The module lies in the run folder, which is importable from all three.
    module, opened = {
        "run folder": ("evil", "."),
        "parent": (f"{NAME}.evil", NAME),
        "two up": (f"runs.{NAME}.evil", f"runs/{NAME}"),
    }[place]
    monkeypatch.chdir({"run folder": foreign, "parent": foreign.parent}.get(place, Path.cwd()))
    monkeypatch.syspath_prepend(Path.cwd())  # as in a notebook
    log = plant(foreign, "evil")
    named = {"task": f"{module}:{BANDIT}", "agent": f"{module}:rl2"}
    change_config(foreign, **{field: named[field]})
    code = run_command(name, opened)
    assert not log.exists()
    if name in MAKES_THE_FAMILY:
        assert code == 1
        assert f"The {field} of this run is '{named[field]}'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("module", ["planted.evil", "this", "planted.deep.er", "metarl_planted"])
def test_no_command_executes_a_module_next_to_the_run_or_an_installed_one(
    foreign, monkeypatch, capsys, name, module
):
    monkeypatch.syspath_prepend(Path.cwd())
    log = plant(Path.cwd(), "planted/evil", "planted/deep/er", "metarl_planted", "planted/__init__")
    change_config(foreign, task=f"{module}:{BANDIT}")
    code = run_command(name, str(foreign))
    assert not log.exists()
    assert "The Zen of Python" not in capsys.readouterr().out
    assert "this" not in sys.modules
    assert code == 1 or name not in MAKES_THE_FAMILY


@pytest.mark.parametrize("function", [metarl.evaluate, metarl.record])
def test_the_library_executes_no_module_that_the_run_names(foreign, monkeypatch, function):
    monkeypatch.syspath_prepend(Path.cwd())
    log = plant(Path.cwd(), "planted/evil")
    change_config(foreign, task=f"planted.evil:{BANDIT}")
    with pytest.raises(RunFolderError, match=r"modules=\['planted.evil'\] in Python") as caught:
        function(foreign)
    assert str(Path.cwd() / "planted" / "evil.py") in str(caught.value)
    assert not log.exists()


def test_a_trusted_module_is_imported(foreign, capsys):
    log = plant(Path.cwd(), "mine")
    change_config(foreign, task=f"mine:{BANDIT}")
    arguments = ["evaluate", str(foreign), "--num-tasks", "5", "--no-progress"]
    assert main(arguments) == 1
    assert "--module mine" in capsys.readouterr().err
    assert main([*arguments, "--module", "mine"]) == 0
    assert log.read_text() == "mine\n"


@pytest.mark.parametrize("function", [metarl.evaluate, metarl.record, metarl.load_run])
def test_the_library_imports_a_trusted_module(foreign, monkeypatch, function):
    monkeypatch.syspath_prepend(Path.cwd())
    log = plant(Path.cwd(), "mine")
    change_config(foreign, task=f"mine:{BANDIT}")
    function(foreign, modules=["mine"])
    assert log.read_text() == "mine\n"


@pytest.mark.parametrize("name", ["evaluate", "record"])
def test_a_module_in_the_run_folder_is_refused_even_if_it_is_named(
    foreign, monkeypatch, capsys, name
):
    log = plant(foreign, "evil")
    change_config(foreign, task=f"evil:{BANDIT}")
    monkeypatch.chdir(foreign)
    assert main([name, ".", "--module", "evil", "--no-progress"]) == 1
    assert "lies in the run folder" in capsys.readouterr().err
    assert not log.exists()


def test_a_module_that_is_imported_already_needs_no_further_trust(foreign, monkeypatch):
    monkeypatch.syspath_prepend(Path.cwd())
    plant(Path.cwd(), "mine")
    change_config(foreign, task=f"mine:{BANDIT}")
    __import__("mine")
    metarl.evaluate(foreign, num_tasks=5)


PLANTED = [
    "triton",
    "gmpy2",
    "tensorflow",
    "botocore",
    "metaworld",
    "evil",
    "sitecustomize_",
    "cupy",
]
"""optional packages that torch, sympy, TensorBoard and families try to import"""


TRAIN = ["train", "rl2", BANDIT, "--num-tasks", "4", "--num-minibatches", "2", "--iterations", "1"]


def test_no_command_imports_packages_from_the_current_folder(foreign, monkeypatch):
    monkeypatch.chdir(foreign)
    log = plant(foreign, *PLANTED)
    commands = [["." if word == "RUN" else word for word in words] for words in COMMANDS.values()]
    commands += [["list"], [*TRAIN, "--threads", "1", "--no-progress", "--out", "other"]]
    ended = subprocess.run(
        script(json.dumps(commands)),
        cwd=foreign,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(ended.stdout.splitlines()[-1]) == [
        int(words[-2:] == ["--resume", "--no-progress"]) for words in commands
    ]
    assert not log.exists()


def test_python_dash_m_imports_no_package_from_the_current_folder(foreign):
    log = plant(foreign, *PLANTED, "lazy_loader", "numpy", "tyro")
    arguments = ["evaluate", ".", "--num-tasks", "5", "--no-progress"]
    subprocess.run(
        [sys.executable, "-m", "metarl", *arguments],
        cwd=foreign,
        env=environment(),
        capture_output=True,
        check=True,
    )
    assert not log.exists()


ENVIRONMENT = """
import subprocess, sys
from pathlib import Path
import gymnasium
import numpy as np

class Lever(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = task_space = gymnasium.spaces.Discrete(2)
    splits_share_tasks = True
    def __init__(self):
        # A program of the environment finds its own modules, in every process.
        subprocess.run([sys.executable, Path(__file__).with_name("server.py")], check=True)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}
    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}

gymnasium.register("lab/Lever-v0", Lever, max_episode_steps=5)
"""
SWEEP = f"""
agent = "rl2"
task = "{BANDIT}"
seeds = [0]
agent_options = {{ num_tasks = 4, num_minibatches = 2, iterations = 1 }}
evaluate = {{ num_tasks = 4 }}
sweep = {{ learning_rate = [0.01] }}
"""
SCRIPT = """
import sys
from metarl.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""
WITH_CHILDREN = {
    "seeds": [*TRAIN, "--seeds", "0", "1", "--no-progress", "--out", "new"],
    "sweep": ["sweep", "sweep.toml", "--processes", "1", "--no-progress", "--out", "new"],
    "workers": [*TRAIN[:2], "lab:lab/Lever-v0", *TRAIN[3:], "--workers", "1", "--out", "new"],
}


@pytest.mark.parametrize("kind", WITH_CHILDREN)
def test_no_process_imports_modules_from_the_current_folder(tmp_path, monkeypatch, kind):
    here, trusted = tmp_path / "here", tmp_path / "trusted"
    here.mkdir()
    monkeypatch.chdir(here)
    log = plant(here, *(name for name in sys.stdlib_module_names if name[0] != "_"), "numpy")
    plant(trusted, "part")
    (trusted / "server.py").write_text("import part\n")
    (trusted / "lab.py").write_text(ENVIRONMENT)
    (tmp_path / "script").write_text(SCRIPT)
    (here / "sweep.toml").write_text(SWEEP)
    path = os.pathsep.join((environment()["PYTHONPATH"], str(trusted)))
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "script"), *WITH_CHILDREN[kind]],
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    executed = set(log.read_text().split()) if log.exists() else set()
    assert executed == ({"part"} if kind == "workers" else set())


LINKS = {
    "adaptation.png": "plot",
    "adaptation.svg": "plot",
    "learning.svg": "plot --kind learning",
    "adaptation.csv": "evaluate",
    "trials.csv": "evaluate",
    "trial.gif": "record",
    "metrics.csv": "resume",
    "checkpoint.safetensors": "resume",
    "config.json": "resume",
    "training.lock": "resume",
    "pulls.png": "plot --kind pulls",
}


@pytest.mark.parametrize("link", LINKS)
def test_nothing_is_written_through_a_link_in_a_run_folder(foreign, link):
    victim = Path.cwd() / "victim"
    path = foreign / link
    victim.write_bytes(path.read_bytes() if path.exists() else b"mine")
    before = victim.read_bytes()
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    if LINKS[link] == "resume":
        settings = ["--task.arms", "3", "--task.pulls", "5", "--num-tasks", "8"]
        settings += ["--num-minibatches", "2", "--hidden-size", "8", "--iterations", "2"]
        arguments = ["train", "rl2", BANDIT, *settings, "--threads", "1", "--no-progress"]
        assert main([*arguments, "--out", str(foreign), "--resume"]) == 1
    else:
        assert run_command(LINKS[link], str(foreign)) == 0
        assert not path.is_symlink()
    assert victim.read_bytes() == before
    assert victim.stat().st_nlink == 1


ESCAPE = "\x1b]0;owned\x07\x1b[31mred\u202etxt"


def relabel(run: Path, label: str) -> None:
    curves = read_curves(run / "adaptation.csv")
    text = (run / "adaptation.csv").read_text().replace(curves[0].label, label)
    (run / "adaptation.csv").write_text(text, newline="")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("where", ["label", "metric", "task", "option", "agent", "option name"])
def test_no_control_character_of_a_file_reaches_the_terminal(foreign, capfd, name, where):
    if where == "label":
        relabel(foreign, ESCAPE)
    elif where == "metric":
        path = foreign / "metrics.csv"
        path.write_text(path.read_text().replace("steps_per_second", ESCAPE, 1))
    else:
        config = json.loads((foreign / "config.json").read_text())
        options = {"option": {"memory": ESCAPE}, "option name": {ESCAPE: 1}}
        changes = {"agent": {"agent": ESCAPE}, "task": {"task": f"{ESCAPE}:{BANDIT}"}}
        changed = {**config["agent_options"], **options.get(where, {})}
        change_config(foreign, **changes.get(where, {"agent_options": changed}))
    run_command(name, str(foreign))
    printed = "".join(capfd.readouterr())
    assert not [one for one in printed if one in "\x1b\x07\u202e"]


def test_the_name_of_a_folder_cannot_steer_the_terminal(foreign, capfd):
    renamed = foreign.rename(foreign.with_name("a\x1b]0;owned\x07[bold]b"))
    for name in COMMANDS:
        run_command(name, str(renamed))
        main(["plot", str(renamed / "nowhere")])
    printed = "".join(capfd.readouterr())
    assert not [one for one in printed if one in "\x1b\x07"]
    assert "[bold]" in printed


LABELS = [
    "$\\frac{$",
    "$x$ and $y$",
    "_mine",
    "_",
    "a_b^c",
    "<script>&",
    "%s{0}",
    "\\alpha",
    "100%",
    " $",
]


@pytest.mark.parametrize("kind", ["adaptation", "learning", "pulls", "regret"])
@pytest.mark.parametrize("label", LABELS)
def test_labels_are_drawn_as_they_are(foreign, label, kind):
    path = foreign / "adaptation.csv"
    curves = read_curves(path)
    named = [
        type(curve)(**{**vars(curve), "label": label}) if curve.role == "agent" else curve
        for curve in curves
    ]
    write_curves(path, named)
    steps = foreign / "trials.csv"
    steps.write_text(steps.read_text().replace(curves[0].label, label))
    (figure,) = metarl.plot([foreign], kind=kind, formats=["svg"])
    text = figure.read_text()
    shown = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").strip()
    assert shown in text or kind == "pulls"
