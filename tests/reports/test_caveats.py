import json
from dataclasses import replace

import pytest

from metarl.reports.caveats import FEW_TASKS, caveats
from metarl.reports.runs import read_run
from metarl.results.comparison import compare
from metarl.results.evaluation_settings import EvaluationSettings, write_settings
from metarl.results.run_config import read_config
from tests.reports.pages import make_folder


def found(*folders):
    return caveats([read_run(one, "last_episode_return") for one in folders], compare(folders))


def settings(folder, iteration, **changes):
    """Writes the settings of an evaluation after so many iterations."""
    one = EvaluationSettings(
        training=read_config(folder),
        iteration=iteration,
        split="test",
        seed=7,
        num_tasks=120,
        episodes=1,
        references=[],
        label=None,
        agent_options={},
        task_options={},
    )
    write_settings(folder, replace(one, **changes))


@pytest.fixture
def seeds(tmp_path):
    """Two finished runs that differ in their seed, without a caveat."""
    return [make_folder(tmp_path / str(s), seed=s, iterations=3) for s in (0, 1)]


def test_sound_runs_have_none(seeds):
    assert found(*seeds) == []


def test_one_seed_only(seeds):
    (one,) = found(seeds[0])
    assert one.startswith("One training seed only: RL².")


def test_few_tasks(tmp_path):
    folders = [make_folder(tmp_path / str(s), seed=s, tasks=FEW_TASKS - 1) for s in (0, 1)]
    (one,) = found(*folders)
    assert one.startswith("Only 99 tasks were evaluated.")


def test_training_tasks(tmp_path):
    folders = [make_folder(tmp_path / str(s), seed=s, split="train") for s in (0, 1)]
    (one,) = found(*folders)
    assert one.startswith("Evaluated in tasks of the split 'train'")


def test_a_family_whose_splits_share_tasks(seeds):
    for folder in seeds:
        config = json.loads((folder / "config.json").read_text())
        config |= {"task": "metarl/TwoStep-v0", "task_options": {}}
        (folder / "config.json").write_text(json.dumps(config))
    (one,) = found(*seeds)
    assert one == "metarl/TwoStep-v0: test tasks occur in training, by design of the family."


def test_a_family_that_is_not_imported(seeds):
    for folder in seeds:
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace("metarl/Bern", "planted:metarl/Bern"))
    (one,) = found(*seeds)
    assert "is not known" in one
    assert "--module" in one


def test_an_unfinished_run(tmp_path, seeds):
    folder = make_folder(tmp_path / "2", seed=2, iterations=10)
    assert "2 is not trained to its end: 3 of 10 iterations." in found(*seeds, folder)
    settings(folder, 2)
    texts = found(*seeds, folder)
    assert texts[0] == ("2 was evaluated before the end of its training, after 2 of 10 iterations.")
    assert texts[1].startswith("2 was evaluated after 2 iterations, and trained for 3.")


def test_unequal_training(tmp_path, seeds):
    folder = make_folder(tmp_path / "2", seed=2, iterations=3, values=[1.0] * 4)
    (one,) = found(*seeds, folder)
    assert one == "Unequal training, in environment steps: 0 300, 1 300, 2 400."


def test_unequal_experience_in_the_task(tmp_path, seeds):
    other = make_folder(tmp_path / "long", label="MAML", points=5)
    texts = found(*seeds, other)
    assert texts[-1].startswith(
        "Last episodes are after unequal experience in the task, in episodes: RL² 3; MAML 5."
    )
