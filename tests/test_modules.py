"""Modules of users: what imports them, and what does not."""

import sys
from pathlib import Path

import pytest

import metarl
from metarl import plugins
from metarl.cli.main import main
from metarl.cli.modules import find_module
from metarl.errors import RunFolderError, UnknownNameError
from metarl.modules import import_module_of, module_path, require_imported

BANDIT = "metarl/BernoulliBandit-v0"
AGENT = """\
import metarl

if "hedge_of_mine" not in metarl.agent_names():
    metarl.register_agent("hedge_of_mine", "metarl.agents.memory.rl2:RL2Config")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder that is not on the import path; its modules are forgotten later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]
    sys.path_importer_cache.clear()


def test_a_missing_module_and_one_that_fails_have_different_messages(folder):
    (folder / "failing.py").write_text("import numpyy\n")
    find_module("failing")
    with pytest.raises(UnknownNameError, match=r"failing fails .* No module named 'numpyy'"):
        import_module_of("failing:lab/Lever-v0", "task")
    for name in ("nowhere", "nowhere.deeper", ".relative", "a..b"):
        with pytest.raises(UnknownNameError, match=f"The module '{name}' of the task '{name}:x'"):
            import_module_of(f"{name}:x", "task")


@pytest.mark.parametrize("module", ["a.b", "a.b.c", "a-b.c", "x", "json.tool"])
def test_the_place_of_a_module_is_found_without_importing_it(folder, monkeypatch, module):
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c.py").write_text("raise SystemExit")
    (folder / "a-b").mkdir()
    (folder / "a-b" / "c.py").write_text("raise SystemExit")
    path = module_path(module)
    monkeypatch.syspath_prepend(folder)
    expected = {"a.b": folder / "a" / "b", "a.b.c": folder / "a" / "b" / "c.py"}
    expected |= {"a-b.c": folder / "a-b" / "c.py", "x": None}
    assert path == expected.get(module, path)
    assert module in ("x", "json.tool") or module not in sys.modules
    assert module_path("json.tool") == Path(sys.modules["json"].__file__).parent / "tool.py"


def test_modules_of_plugins_need_no_trust(monkeypatch):
    monkeypatch.setattr(plugins, "loaded", {"lab_tasks"})
    require_imported("lab_tasks.sub:lab/Lever-v0", "task")
    for name in ("lab_tasks2:lab/Lever-v0", "lab:lab/Lever-v0"):
        with pytest.raises(RunFolderError, match="is found nowhere"):
            require_imported(name, "task")


@pytest.mark.parametrize("name", ["a-b:x", "a b:x", "1:x", ".:x", "a.:x", ":x:y"])
def test_a_name_that_is_no_module_is_refused(name):
    with pytest.raises(RunFolderError, match="is no module"):
        require_imported(name, "agent")


def test_the_current_folder_is_searched_only_for_a_module_that_it_holds(folder):
    (folder / "mine.py").touch()
    (folder / "json.py").write_text("raise SystemExit")
    for module in ("", "json", "nowhere", "json.tool"):
        find_module(module)
        assert str(folder) not in sys.path
    find_module("mine.part")
    assert sys.path[-1] == str(folder)


def test_an_agent_of_a_module_is_trained_evaluated_and_recorded(folder, capsys):
    (folder / "my_agents.py").write_text(AGENT)
    arguments = ["train", "my_agents:hedge_of_mine", BANDIT, "--num-tasks", "8", "--iterations"]
    arguments += ["1", "--num-minibatches", "2", "--hidden-size", "8", "--no-progress"]
    assert main([*arguments, "--threads", "1"]) == 0
    run = metarl.load_run("runs/hedge_of_mine-BernoulliBandit-v0-seed0")
    assert run.config.agent == "my_agents:hedge_of_mine"
    del sys.modules["my_agents"]
    for command in ("evaluate", "record"):
        assert main([command, str(run.path), "--no-progress"]) == 1
        assert "The agent of this run is 'my_agents:hedge_of_mine'" in capsys.readouterr().err
        assert main([command, str(run.path), "--no-progress", "--module", "my_agents"]) == 0
        del sys.modules["my_agents"]
    assert {curve.agent for curve in metarl.evaluate(run, modules="my_agents", num_tasks=5)} >= {
        "hedge_of_mine"
    }


def test_help_of_training_names_the_options_of_an_agent_by_module(folder, capsys):
    (folder / "my_agents.py").write_text(AGENT)
    assert main(["train", "my_agents:hedge_of_mine", "--help"]) == 0
    assert "--hidden-size" in capsys.readouterr().out
