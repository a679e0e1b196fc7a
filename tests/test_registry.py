import subprocess
import sys
import types

import gymnasium
import pytest

import metarl
from metarl import plugins, registry
from metarl.agents.memory.rl2 import RL2Config
from metarl.envs.bandits.multi_armed import BernoulliBandit, GoalBandit
from metarl.errors import ConfigError, TaskContractError, UnknownNameError
from metarl.registry import Preset
from tests.simple_families import Countdown

TASK = "metarl/BernoulliBandit-v0"


@pytest.fixture
def countdown():
    """Countdown, registered during a test."""
    metarl.register_family("glass/Countdown-v0", Countdown, limit=7)
    yield "glass/Countdown-v0"
    del gymnasium.registry["glass/Countdown-v0"]


def test_options_given_by_the_user_override_those_of_the_id(countdown):
    assert metarl.make_family(countdown) == Countdown(limit=7)
    assert metarl.make_family(countdown, limit=2) == Countdown(limit=2)


def test_gymnasium_makes_a_registered_class(countdown):
    env = gymnasium.make(countdown, limit=3)
    assert env.unwrapped.family == Countdown(limit=3)


def test_a_taken_id_is_refused(countdown):
    with pytest.raises(ConfigError, match="'glass/Countdown-v0' is already registered"):
        metarl.register_family(countdown, Countdown)
    with pytest.raises(ConfigError, match="'CartPole-v1' is already registered"):
        metarl.register_family("CartPole-v1", Countdown)


class Outer:
    class Nested(Countdown):
        pass


def test_a_class_that_cannot_be_imported_by_name_is_refused():
    class Local(Countdown):
        pass

    for family in (Local, Outer.Nested):
        message = rf"{family.__qualname__} of tests\.test_registry is defined inside .* top level"
        with pytest.raises(ConfigError, match=message):
            metarl.register_family("glass/Local-v0", family)
        assert "glass/Local-v0" not in gymnasium.registry


def test_options_are_for_a_family_that_is_given_by_its_id():
    family = BernoulliBandit(arms=3)
    assert registry.resolve_family(family) is family
    assert registry.resolve_family(TASK, {"arms": 3}) == family
    assert registry.resolve_family(TASK) == BernoulliBandit()
    message = "options arms, pulls and a BernoulliBandit that is already built.*by its id"
    with pytest.raises(ConfigError, match=message):
        registry.resolve_family(family, {"arms": 2, "pulls": 3})


def test_a_taken_agent_is_refused():
    with pytest.raises(ConfigError, match="agent called 'rl2' is already registered"):
        metarl.register_agent("rl2", "metarl.agents.memory.rl2:RL2Config")


def test_the_error_for_an_unknown_id_suggests_the_nearest_and_a_remedy():
    with pytest.raises(
        UnknownNameError, match=r"Did you mean 'metarl/GoalBandit-v0'.*your_module:"
    ):
        metarl.make_family("metarl/GoalBandits-v0")
    with pytest.raises(
        TaskContractError, match=r"CartPole-v1 has no task_space, .*register_varied"
    ):
        _ = metarl.make_family("CartPole-v1").task_space
    with pytest.raises(UnknownNameError, match=r"module 'no_such_module' .* cannot be imported"):
        metarl.make_family("no_such_module:lab/Lever-v0")
    with pytest.raises(ConfigError, match=r"has no option 'arm'. Did you mean 'arms'"):
        metarl.make_family(TASK, arm=3)


def test_a_module_in_the_id_is_imported_first(monkeypatch):
    source = "import metarl; from tests.simple_families import Countdown;"
    source += "metarl.register_family('glass/Late-v0', Countdown)"

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name != "late_module":
                return None
            from importlib.machinery import ModuleSpec

            return ModuleSpec(name, self)

        def create_module(self, spec):
            return types.ModuleType(spec.name)

        def exec_module(self, module):
            exec(source, module.__dict__)

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert metarl.make_family("late_module:glass/Late-v0") == Countdown()
    del gymnasium.registry["glass/Late-v0"]


def test_the_id_of_a_family_names_the_module_that_another_process_must_import(countdown):
    assert registry.name_of(BernoulliBandit(arms=3)) == (TASK, {"arms": 3, "pulls": 10})
    assert registry.name_of(GoalBandit())[0] == "metarl/GoalBandit-v0"
    task, options = registry.name_of(Countdown(limit=5))
    assert task == "tests.simple_families:glass/Countdown-v0"
    assert metarl.make_family(task, **options) == Countdown(limit=5)


def test_a_broken_plugin_is_skipped_with_a_warning(monkeypatch):
    class Broken:
        name, value = "broken", "package_that_breaks"

        def load(self):
            raise ImportError("no")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Broken()])
    with pytest.warns(RuntimeWarning, match="plugin broken = package_that_breaks could not"):
        plugins.load_plugins()
    plugins.load_plugins()  # warns once


def test_built_in_plugins_come_before_those_of_other_packages(monkeypatch):
    loaded = []

    class Plugin:
        def __init__(self, value):
            self.name, self.value = value, value

        def load(self):
            loaded.append(self.value)

    monkeypatch.setattr(plugins, "loaded", set())
    found = [Plugin("takes_the_name_rl2"), Plugin("metarl.agents")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)
    plugins.load_plugins([Plugin("metarl.envs")])
    assert loaded == ["metarl.agents", "metarl.envs", "takes_the_name_rl2"]


@pytest.mark.parametrize(
    "preset", [preset for known in registry._presets.values() for preset in known.values()]
)
def test_every_preset_fits_its_agent_and_family(preset):
    registry.agent_config(preset.agent)(**preset.agent_options)
    metarl.make_family(preset.task, **preset.task_options)
    assert preset.note
    for word in ("to be", "TODO", "pending"):
        assert word not in preset.note  # results must have been measured


def test_presets_are_found_by_name_and_registered_once():
    preset = registry.find_preset("rl2", TASK, "pulls-100")
    assert preset.task_options == {"pulls": 100}
    with pytest.raises(UnknownNameError, match=r"no preset 'puls-100'. Did you mean 'pulls-100'"):
        registry.find_preset("rl2", TASK, "puls-100")
    with pytest.raises(ConfigError, match="has a preset 'pulls-100' already"):
        metarl.register_preset(
            Preset(agent="rl2", task=TASK, name="pulls-100", agent_options={}, note="again")
        )


def test_options_given_by_the_user_override_a_preset(tmp_path):
    small = {"hidden_size": 8, "iterations": 1, "num_tasks": 8, "progress": False}
    run = metarl.train(
        "rl2", TASK, preset="pulls-100", out=tmp_path / "a", task_options={"arms": 2}, **small
    )
    assert run.config.task_options == {"arms": 2, "pulls": 100}
    assert run.config.agent_options["num_tasks"] == 8
    assert run.config.agent_options["gae_lambda"] == RL2Config().gae_lambda


def test_a_cell_of_a_notebook_may_run_twice(monkeypatch):
    script = (
        "import metarl, torch\n"
        "from dataclasses import dataclass\n"
        "from gymnasium import spaces\n"
        "for scale in (1, 2):\n"
        "    @dataclass(frozen=True, kw_only=True)\n"
        "    class Cell(metarl.TaskFamily):\n"
        "        scale: int = scale\n"
        "        def observation_space(self): ...\n"
        "        action_space = task_space = observation_space\n"
        "        sample_tasks = reset = observe = step = episode_steps = observation_space\n"
        "    metarl.register_family('lab/Cell-v0', Cell)\n"
        "    metarl.register_agent('cell', '__main__:Config')\n"
        "    metarl.register_varied_env('lab/C-v0', 'CartPole-v1', attributes={'length': (1, 2)})\n"
        "assert metarl.make_family('lab/Cell-v0').scale == 2\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=120)


def test_a_class_of_another_module_does_not_take_a_name():
    with pytest.raises(ConfigError, match="is already registered with Gymnasium"):
        metarl.register_family("metarl/BernoulliBandit-v0", "__main__:Mine")
    with pytest.raises(ConfigError, match="An agent called 'rl2' is already registered"):
        metarl.register_agent("rl2", "__main__:Mine")


def test_an_environment_that_is_registered_again_is_made_again():
    class Sized(gymnasium.Env):
        action_space = observation_space = gymnasium.spaces.Discrete(2)

        def __init__(self, levers: int = 2):
            self.task_space = gymnasium.spaces.Discrete(levers)

    try:
        for levers in (3, 8):
            gymnasium.registry.pop("lab/Sized-v0", None)
            kwargs = {"levers": levers}
            gymnasium.register("lab/Sized-v0", Sized, max_episode_steps=4, kwargs=kwargs)
            assert metarl.make_family("lab/Sized-v0").task_space.n == levers
    finally:
        del gymnasium.registry["lab/Sized-v0"]
