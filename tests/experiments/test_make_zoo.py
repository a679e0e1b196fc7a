"""The script that makes the zoo describes what is in it."""

import json

import make_zoo
import pytest

import metarl
from metarl.training.zoo import zoo_names


def test_the_script_makes_exactly_the_agents_of_the_zoo():
    assert sorted(make_zoo.AGENTS) == zoo_names()


@pytest.mark.parametrize("name", make_zoo.AGENTS)
def test_an_agent_has_the_settings_of_the_script(name):
    item, config = make_zoo.AGENTS[name], metarl.load_run(f"zoo:{name}").config
    agent_options, task_options = {}, {}
    if item.preset is not None:
        preset = metarl.presets(item.agent, item.task)[item.preset]
        agent_options, task_options = preset.agent_options, preset.task_options
    assert (config.agent, config.task, config.seed) == (item.agent, item.task, item.seed)
    expected = metarl.agent_config(item.agent)(**{**agent_options, **item.options})
    assert config.make_agent_config() == expected
    family = metarl.make_family(item.task, **{**task_options, **item.task_options})
    assert config.make_family() == family
    content = json.loads((make_zoo.ZOO / name / "config.json").read_text())
    assert content["weights_only"] is True
