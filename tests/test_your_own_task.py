"""Pages about own tasks and agents run as printed; an installed package of tasks is found."""

import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import gymnasium
import pytest

from metarl import registry
from metarl.cli import main as cli

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "tests" / "example_plugin"


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language on a page of the documentation."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """An empty working directory; tasks registered in it are removed afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for names in ("_agents", "_memories"):
        monkeypatch.setattr(registry, names, dict(getattr(registry, names)))
    before = set(gymnasium.registry)
    yield tmp_path
    for name in set(gymnasium.registry) - before:
        del gymnasium.registry[name]
    for name in ("my_module", "poles", "knowing", "my_memory", "my_agents"):
        sys.modules.pop(name, None)


def shortened(command: str) -> list[str]:
    """The arguments of a command, with small numbers of iterations and tasks."""
    command = re.sub(r"--iterations \d+", "--iterations 2", command)
    command = re.sub(r"--num-tasks \d+", "--num-tasks 8", command)
    words = shlex.split(command)
    if words[1:3] == ["train", "maml"]:
        words += ["--num-tasks", "4", "--rollouts-per-task", "4"]
    return [*words, "--no-progress"] if words[1] in ("train", "evaluate") else words


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.utils.tensorboard")
@pytest.mark.parametrize(
    ("page", "figure"), [("your_own_task.md", "lever.png"), ("your_own_agent.md", "own.png")]
)
def test_the_page_runs_as_printed(empty_folder, capsys, page, figure):
    files = [re.match(r"# (\w+\.py)\n", block) for block in blocks(page, "python")]
    assert all(files)
    for name, block in zip(files, blocks(page, "python"), strict=True):
        (empty_folder / name[1]).write_text(block, encoding="utf-8")

    commands = [line for block in blocks(page, "bash") for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        words = shortened(command)
        assert words[0] == "metarl"
        assert cli.main(words[1:]) == 0, (command, capsys.readouterr())
    assert (empty_folder / figure).stat().st_size > 10_000


@pytest.fixture(scope="module")
def clean_environment(tmp_path_factory):
    """A new virtual environment with the dependencies, metarl and the example package."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    # It uses the packages of this environment, including metarl.
    installed = sysconfig.get_path("purelib")
    (site / "dependencies.pth").write_text(
        f"import site; site.addsitedir({installed!r})\n", encoding="utf-8"
    )
    source = folder / "source"
    shutil.copytree(PLUGIN, source)
    install = "install --quiet --no-deps --no-build-isolation --disable-pip-version-check"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, *install.split(), str(source)], check=True)
    return python


def test_an_installed_package_of_tasks_is_found(clean_environment, tmp_path):
    listed = subprocess.run(
        f"{clean_environment} -m metarl list && "
        f"{clean_environment} -m metarl list lab/Docking-v0 min_gru",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        shell=True,
    ).stdout
    for name in ("lab/Docking-v0", "lab/Poles-v0", "lab/TwoDoors-v0", "metarl/PointNavigation-v0"):
        assert f"\n  {name} " in listed
    assert "cannot be imported" not in listed
    assert "A boat steers" in listed
    assert "--task.strength 0.03" in listed
    for name, first_line in (
        ("momentum_maml", "MAML whose inner loop has momentum"),
        ("predicting_rl2", "RL^2 with an auxiliary loss"),
        ("hedge", "Exponential weights over arms"),
        ("min_gru", "Minimal gated recurrent unit"),
    ):
        assert re.search(rf"\n  {name} +{re.escape(first_line)}", listed)
    assert "--memory-options forget 1.0" in listed


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.utils.tensorboard")
def test_tasks_of_an_installed_package_train_without_a_module_prefix(clean_environment, tmp_path):
    words = (
        "train rl2 lab/Docking-v0 --num-tasks 4 --iterations 1 --num-minibatches 1 --no-progress"
    )
    subprocess.run([clean_environment, "-m", "metarl", *words.split()], cwd=tmp_path, check=True)
    assert (tmp_path / "runs" / "rl2-Docking-v0-seed0" / "checkpoint.safetensors").exists()


BANDIT = "metarl/BernoulliBandit-v0 --task.arms 3 --task.pulls 6"


@pytest.mark.parametrize(
    "command",
    [
        f"rl2 {BANDIT} --memory min_gru --memory-options forget 0.5 --num-tasks 8",
        f"predicting_rl2 {BANDIT} --reward-coef 0.1 --num-tasks 8",
        f"hedge {BANDIT} --num-tasks 8 --episodes 6 --rollouts-per-task 4",
        "momentum_maml metarl/PointNavigation-v0 --task.steps 10 --num-tasks 4 "
        "--rollouts-per-task 4 --momentum 0.3",
    ],
    ids=["memory", "auxiliary loss", "agent", "inner rule"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.utils.tensorboard")
def test_agents_and_memories_of_an_installed_package_train_and_are_evaluated(
    clean_environment, tmp_path, command
):
    def metarl(words: str) -> str:
        arguments = [clean_environment, "-m", "metarl", *words.split()]
        result = subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, text=True)
        return result.stdout

    metarl(f"train {command} --iterations 2 --out run --threads 1 --no-progress")
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3
    # A run that goes on from its checkpoint is the run that was never stopped.
    metarl(f"train {command} --iterations 2 --out run --threads 1 --no-progress --resume")
    assert "random" in metarl("evaluate run --num-tasks 5 --no-progress")


def test_extensions_of_the_example_package_are_short():
    for name in ("momentum", "min_gru", "reward_prediction", "hedge"):
        lines = (PLUGIN / "lab_tasks" / f"{name}.py").read_text(encoding="utf-8").splitlines()
        assert len(lines) < 80, name
