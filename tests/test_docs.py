"""Documentation pages: their Python runs as printed, and the commands in them exist."""

import importlib
import re
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import gymnasium
import matplotlib
import pytest

import metarl
from metarl import registry
from metarl.cli import listing, results
from metarl.cli import main as cli
from metarl.cli.sweep import SweepCommand
from metarl.cli.terminal import parse
from tests.test_readme import ROOT, code_blocks

PAGES = sorted((ROOT / "docs").glob("*.md"))
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
CELL = r"\{code-cell\} python"
"""what opens a cell of a tutorial, as a regular expression"""
PAGES_WITH_COMMANDS = [
    *PAGES,
    *TUTORIALS,
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "experiments/README.md",
]
TINY = {"num_tasks": 8, "iterations": 2, "rollouts_per_task": 2, "evaluation_steps": 1}
"""options of each training and evaluation, replacing those of the page"""
OPTIONS = {
    "list": listing.ListOptions,
    "evaluate": results.EvaluateCommand,
    "compare": results.CompareCommand,
    "plot": results.PlotCommand,
    "sweep": SweepCommand,
}
"""options classes of commands; those of `train` depend on the agent and the task"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """An empty working directory, training of two iterations, evaluation in eight tasks."""
    train, evaluate = metarl.train, metarl.evaluate

    def train_briefly(agent, task, **options):
        names = {field.name for field in fields(metarl.agent_config(agent))}
        tiny = {name: value for name, value in TINY.items() if name in names}
        return train(agent, task, **{"progress": False, **options, **tiny})

    def evaluate_briefly(run, *, agent_options=None, **options):
        tiny = {name: TINY.get(name, value) for name, value in (agent_options or {}).items()}
        return evaluate(run, **{**options, "num_tasks": 8}, agent_options=tiny)

    monkeypatch.setattr(metarl, "train", train_briefly, raising=False)
    monkeypatch.setattr(metarl, "evaluate", evaluate_briefly, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for names in ("_agents", "_memories"):
        monkeypatch.setattr(registry, names, dict(getattr(registry, names)))
    known = set(gymnasium.registry)
    yield
    for task_id in set(gymnasium.registry) - known:
        del gymnasium.registry[task_id]


def run_blocks(text: str, name: str, language: str = "python") -> ModuleType:
    """Runs the Python blocks of a page in order, as one module.

    A block whose first line is a file name, `# my_module.py` or `%%writefile my_module.py`, is
    written there and imported.
    """
    page = ModuleType(name)
    before = set(sys.modules)
    sys.modules[name] = page  # pickling and dataclasses look classes up by module
    try:
        for block in code_blocks(text, language):
            if file := re.match(r"(?:# |%%writefile )(\w+)\.py\n", block):
                content = block.removeprefix(f"%%writefile {file[1]}.py\n")
                Path(f"{file[1]}.py").write_text(content, encoding="utf-8")
                importlib.import_module(file[1])
            else:
                exec(compile(block, name, "exec"), vars(page))
    finally:
        for module in set(sys.modules) - before:
            if module == name or Path(f"{module}.py").exists():
                del sys.modules[module]
    return page


def commands(text: str) -> list[str]:
    """The lines of a page's bash blocks, without comments and placeholders."""
    lines = [line for block in code_blocks(text, "bash") for line in block.splitlines()]
    return [line.strip() for line in lines if line.split("#")[0].strip()]


def check_command(line: str) -> None:
    """Fails unless the program, its commands and options exist; does not run it."""
    words = [word for word in shlex.split(line, comments=True) if word != "--help"]
    while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
        del words[0]
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program.endswith("python") and not rest[0].startswith("-"):
        assert (ROOT / rest[0]).is_file()
    elif program == "metarl":
        check_metarl(rest)


def check_metarl(words: list[str]) -> None:
    """Parses the arguments as the command line does."""
    command, *rest = words
    assert command in cli.COMMANDS
    if command == "train":
        agent, task, *rest = rest
        if agent.partition(":")[0].isidentifier() and ":" in agent:  # likewise
            agent = "rl2"
            rest = re.sub(r"--memory \S+", "", " ".join(rest)).split()
        if task.partition(":")[0].isidentifier():  # of a module that the page defines
            task = "metarl/BernoulliBandit-v0"
            rest = re.sub(r"--task\.\S+ \S+", "", " ".join(rest)).split()
        preset, rest = cli._take_preset(agent, task, rest)
        parse(cli._train_options(agent, task, preset), rest, "train")
        return
    agent_options = re.findall(r"--agent\.(\S+) \S+", " ".join(rest))
    known = {
        field.name for name in metarl.agent_names() for field in fields(registry.agent_config(name))
    }
    assert {name.replace("-", "_") for name in agent_options} <= known
    if command in OPTIONS:
        parse(OPTIONS[command], re.sub(r"--agent\.\S+ \S+", "", " ".join(rest)).split(), command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_as_printed(page, small):
    with matplotlib.rc_context():
        run_blocks(page.read_text(encoding="utf-8"), "page")


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.name)
def test_cells_of_tutorials_run_as_printed(page, small):
    pytest.importorskip("IPython")
    text = page.read_text(encoding="utf-8")
    assert f"{{nb-download}}`{page.stem}.ipynb`" in text
    with matplotlib.rc_context():
        assert run_blocks(text, "page", CELL).metarl is metarl


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    for line in commands(page.read_text(encoding="utf-8")):
        check_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "make tests",
        "python experiments/gone.py",
        "metarl trian rl2 metarl/GoalBandit-v0",
        "metarl train rl3 metarl/GoalBandit-v0",
        "metarl train rl2 metarl/GoalBandit-v0 --task.legs 3",
        "metarl train rl2 metarl/GoalBandit-v0 --preset unheard-of",
        "metarl train rl2 my_module:lab/Own-v0 --rate 3",
        "metarl evaluate RUN --num-tasks few",
        "metarl evaluate RUN --agent.legs 3",
        "metarl plot RUN --kind pie",
    ],
)
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises((AssertionError, SystemExit, metarl.errors.MetaRLError)):
        check_command(line)


def test_blocks_of_a_page_share_their_names(small):
    blocks = ["x = 1\n", "# levers.py\nlong = 3\n", "import levers\ny = x + levers.long\n"]
    page = run_blocks("and\n".join(f"```python\n{block}```\n" for block in blocks), "page")
    assert page.y == 4
    assert "levers" not in sys.modules
