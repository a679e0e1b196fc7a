"""Public functions given what they do not take: a `MetaRLError` says so, or it works."""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import pytest

import metarl
from metarl import registry
from metarl.errors import ConfigError, MetaRLError
from metarl.field_types import checks_arguments
from metarl.tasks import draw_tasks
from metarl.testing import check_task
from tests.foreign_runs import TINY, train_tiny

BANDIT, NAVIGATION = "metarl/BernoulliBandit-v0", "metarl/PointNavigation-v0"


class NoRepr:
    """An object of a user whose class is broken itself."""

    def __repr__(self):
        raise ValueError("no repr")


ODD = {
    "None": None,
    "large": 10**30,
    "NumPy text": np.str_("xyz"),
    "number in an array": np.array(3),
    "no repr": NoRepr(),
    "minus one": -1,
    "fraction": 2.5,
    "text": "xyz",
    "no text": "",
    "list": [1],
    "mapping": {"a": 1},
    "object": object(),
    "array": np.zeros(3),
}
FAMILY = metarl.make_family(BANDIT)
RANDOM = FAMILY.references(2)["random"].build
TASKS = draw_tasks(FAMILY, 3, metarl.Seeds(0).torch("tasks"), "train")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = {"num_tasks": 4, "rollouts_per_task": 4, "iterations": 1, "progress": False}
    gradient = metarl.train("maml", NAVIGATION, out=folder / "maml", **options)
    return {"rl2": train_tiny(folder / "rl2"), "maml": gradient.path}


def begun(run):
    policy = metarl.load_policy(run)
    policy.begin_trial(2)
    return policy


def acted(run):
    policy = begun(run)
    policy.act(np.zeros((2, 1), np.float32))
    return policy


def calls(runs, out) -> Mapping[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Functions, and arguments that fit, all of which can be replaced."""
    rl2, maml = runs["rl2"], runs["maml"]
    obs = np.zeros((2, 1), np.float32)
    step = {"reward": [1.0, 0.0], "terminated": [False, True], "truncated": [False, False]}
    return {
        "train": (
            functools.partial(metarl.train, "rl2", BANDIT, **TINY),
            {
                "out": out,
                "task_options": {},
                "preset": None,
                "config": None,
                "run": None,
                "callbacks": (),
            },
        ),
        "evaluate": (
            functools.partial(metarl.evaluate, num_tasks=3, references=("none",)),
            {"run": rl2, "out": out, "modules": (), "agent_options": {}, "task_options": {}},
        ),
        "evaluate_policy": (
            functools.partial(metarl.evaluate_policy, num_tasks=3),
            {"policy": RANDOM, "task": BANDIT, "agent": "x", "out": out, "task_options": {}},
        ),
        "compare": (
            metarl.compare,
            {"runs": [rl2], "reference": None, "by_seed": False, "join_unfinished": False},
        ),
        "plot": (
            metarl.plot,
            {"runs": [rl2], "reference": None, "ax": None, "options": None, "data": None},
        ),
        "record": (metarl.record, {"run": rl2, "modules": (), "options": None}),
        "load_run": (metarl.load_run, {"path": rl2, "modules": ()}),
        "load_policy": (metarl.load_policy, {"run": rl2, "modules": (), "device": "cpu"}),
        "export_policy": (
            metarl.export_policy,
            {"run": rl2, "out": f"{out}.pt2", "modules": ()},
        ),
        "write_card": (metarl.write_card, {"run": rl2, "share": out, "modules": ()}),
        "read_metrics": (metarl.read_metrics, {"path": rl2 / "metrics.csv"}),
        "make_family": (lambda task_id: metarl.make_family(task_id), {"task_id": BANDIT}),
        "to_sb3_vec_env": (
            metarl.to_sb3_vec_env,
            {"task": BANDIT, "num_envs": 2, "trial": False, "episodes": None, "seed": 0}
            | {"informed": False, "render_mode": None, "split": "train"},
        ),
        "collect": (
            metarl.collect,
            {"family": FAMILY, "tasks": TASKS, "policy": RANDOM(TASKS), "episodes": 2}
            | {"rollouts_per_task": 1, "seeds": metarl.Seeds(0), "first_task": 0, "workers": None},
        ),
        "check_task": (
            check_task,
            {"task": BANDIT, "workers": 0, "seed": 0, "actions": None, "task_options": {}},
        ),
        "TrialWrapper": (
            functools.partial(metarl.TrialWrapper, gymnasium.make(NAVIGATION)),
            {"episodes": 2, "split": "train"},
        ),
        "begin_trial": (
            lambda **given: metarl.load_policy(rl2).begin_trial(**given),
            {"num_envs": 2, "rollouts_per_task": 1, "seed": 0},
        ),
        "act": (
            lambda **given: begun(rl2).act(**given),
            {"observation": obs, "deterministic": False},
        ),
        "observe": (lambda **given: acted(rl2).observe(**given), step),
        "for_sb3": (lambda **given: metarl.load_policy(rl2).for_sb3(**given), {"seed": 0}),
        "write_comparison": (
            metarl.write_comparison,
            {"path": f"{out}.csv", "comparison": metarl.compare([rl2])},
        ),
        "read_curves": (metarl.read_curves, {"path": rl2 / "adaptation.csv"}),
        "write_curves": (
            metarl.write_curves,
            {"path": f"{out}.csv", "curves": metarl.read_curves(rl2 / "adaptation.csv")},
        ),
        "compare_curves": (
            metarl.compare_curves,
            {"curves": metarl.read_curves(rl2 / "adaptation.csv")},
        ),
        "bootstrap_mean": (metarl.bootstrap_mean, {"values": np.ones((1, 2, 3))}),
        "atomic_write": (written, {"path": out}),
        "Seeds": (metarl.Seeds, {"root": 3}),
        "Preset": (
            metarl.Preset,
            {"agent": "rl2", "task": BANDIT, "name": "x", "agent_options": {}, "note": "y"},
        ),
        "register_preset": (
            lambda preset: registered(metarl.register_preset, preset),
            {"preset": metarl.Preset(**PRESET)},
        ),
        "register_agent": (
            lambda **given: registered(metarl.register_agent, **given),
            {"name": "odd", "config": "nowhere:Config"},
        ),
        "register_memory": (
            lambda **given: registered(metarl.register_memory, **given),
            {"name": "odd", "options": "nowhere:Options"},
        ),
        "register_family": (
            lambda task_id, family: registered(metarl.register_family, task_id, family),
            {"task_id": "odd/Family-v0", "family": "nowhere:Family"},
        ),
        "register_varied_env": (
            functools.partial(registered, metarl.register_varied_env),
            {"task_id": "odd/Varied-v0", "env_id": "CartPole-v1", "max_episode_steps": 5}
            | {"attributes": {"length": (0.3, 0.7)}, "arguments": {}, "others": {}},
        ),
        "benchmark": (
            functools.partial(metarl.benchmark, "rl2", BANDIT, num_tasks=(2,), rounds=2),
            {
                "agent_options": {"hidden_size": 8, "num_minibatches": 2},
                "task_options": {},
                "out": None,
            },
        ),
        "reset": (gymnasium.make(BANDIT).unwrapped.reset, {"options": None}),
        "reset of a vector": (gymnasium.make_vec(BANDIT, 2).reset, {"options": None}),
        "make_vec": (
            functools.partial(gymnasium.make_vec, BANDIT),
            {"num_envs": 2, "autoreset_mode": "NextStep", "new_task": "trial"},
        ),
        "predict": (
            lambda **given: metarl.load_policy(maml).for_sb3().predict(**given),
            {"observation": np.zeros((2, 2), np.float32), "state": None, "deterministic": False},
        ),
    }


PRESET = {"agent": "rl2", "task": BANDIT, "name": "odd", "agent_options": {}, "note": "x"}


def written(path):
    with metarl.atomic_write(path) as draft:
        draft.write_text("x")


def registered(register, *args, **given):
    """Registers, and takes it back."""
    before = [dict(each) for each in REGISTRIES]
    presets = {key: dict(value) for key, value in registry._presets.items()}
    try:
        register(*args, **given)
    finally:
        for each, content in zip(REGISTRIES, before, strict=True):
            each.clear()
            each.update(content)
        registry._presets.clear()
        registry._presets.update(presets)


REGISTRIES = (gymnasium.registry, registry._agents, registry._memories)
ARGUMENTS = [
    ("write_comparison", "path comparison"),
    ("read_curves", "path"),
    ("write_curves", "path curves"),
    ("compare_curves", "curves"),
    ("bootstrap_mean", "values"),
    ("atomic_write", "path"),
    ("Seeds", "root"),
    ("Preset", "agent task name agent_options note"),
    ("register_preset", "preset"),
    ("register_agent", "name config"),
    ("register_memory", "name options"),
    ("register_family", "task_id family"),
    ("register_varied_env", "task_id env_id attributes arguments others max_episode_steps"),
    ("benchmark", "agent_options task_options out"),
    ("reset", "options"),
    ("reset of a vector", "options"),
    ("make_vec", "num_envs autoreset_mode new_task"),
    ("train", "out task_options preset config run callbacks"),
    ("evaluate", "run out modules agent_options task_options"),
    ("evaluate_policy", "policy task agent out task_options"),
    ("compare", "runs reference by_seed join_unfinished"),
    ("plot", "runs reference ax options data"),
    ("record", "run modules options"),
    ("load_run", "path modules"),
    ("load_policy", "run modules device"),
    ("export_policy", "run out modules"),
    ("write_card", "run share modules"),
    ("read_metrics", "path"),
    ("make_family", "task_id"),
    ("to_sb3_vec_env", "task num_envs trial episodes seed informed render_mode split"),
    ("collect", "family tasks policy episodes rollouts_per_task seeds first_task workers"),
    ("check_task", "task workers seed actions task_options"),
    ("TrialWrapper", "episodes split"),
    ("begin_trial", "num_envs rollouts_per_task seed"),
    ("act", "observation deterministic"),
    ("observe", "reward terminated truncated"),
    ("for_sb3", "seed"),
    ("predict", "observation state deterministic"),
]
CASES = [
    (name, argument, odd) for name, words in ARGUMENTS for argument in words.split() for odd in ODD
]


@pytest.mark.parametrize("name", [name for name, _ in ARGUMENTS])
def test_the_arguments_that_are_replaced_are_right(runs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    function, arguments = calls(runs, tmp_path / "out")[name]
    function(**arguments)
    assert set(dict(ARGUMENTS)[name].split()) <= set(arguments)


@pytest.mark.parametrize(("name", "argument", "odd"), CASES)
def test_an_argument_of_another_kind_is_no_raw_error(
    runs, tmp_path, monkeypatch, name, argument, odd
):
    monkeypatch.chdir(tmp_path)
    function, arguments = calls(runs, tmp_path / "out")[name]
    with contextlib.suppress(MetaRLError, gymnasium.error.Error):
        function(**{**arguments, argument: ODD[odd]})


UNSENT = [
    (metarl.push, {"run": "gone", "repository": "a/b", "public": False, "modules": ()}),
    (metarl.pull, {"repository": "a/b", "out": "new", "revision": None, "modules": ()}),
    (
        metarl.sweep,
        {"file": "gone.toml", "out": "new", "processes": 1, "ray": None, "retries": 1}
        | {"progress": False, "modules": ()},
    ),
    (metarl.sweep_table, {"folder": "gone"}),
]


@pytest.mark.parametrize(
    ("function", "argument", "odd"),
    [
        pytest.param(function, argument, odd, id=f"{function.__name__}-{argument}-{odd}")
        for function, arguments in UNSENT
        for argument in arguments
        for odd in ODD
    ],
)
def test_what_is_sent_or_read_is_checked_before(tmp_path, monkeypatch, function, argument, odd):
    """Here all calls fail: there is no such run, no network, no file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MetaRLError):
        function(**{**dict(UNSENT)[function], argument: ODD[odd]})
    assert [*tmp_path.iterdir()] == []


def test_a_builder_that_builds_no_policy_is_refused():
    with pytest.raises(ConfigError, match="builds the policy returned a value of type int"):
        metarl.evaluate_policy(lambda tasks: 3, BANDIT, agent="x", num_tasks=3)
    with pytest.raises(ConfigError, match="must be a function that builds the policy"):
        metarl.evaluate_policy(RANDOM(TASKS), BANDIT, agent="x", num_tasks=3)


class Answers(metarl.Callback):
    def __init__(self, answer):
        self.answer = answer

    def on_iteration(self, training, row):
        return self.answer


@pytest.mark.parametrize("answer", [1, "stop", [], 0.0, object()])
def test_a_callback_answers_true_false_or_nothing(tmp_path, answer):
    with pytest.raises(ConfigError, match=r"on_iteration of Answers returned .* must return"):
        metarl.train("rl2", BANDIT, out=tmp_path, callbacks=[Answers(answer)], **TINY)


@pytest.mark.parametrize("answer", [True, np.True_, False, None])
def test_callbacks_may_answer_in_numpys_words(tmp_path, answer):
    run = metarl.train("rl2", BANDIT, out=tmp_path / "r", callbacks=[Answers(answer)], **TINY)
    assert len(metarl.read_metrics(run.path)) == (1 if answer else 2)


def test_the_decorator_keeps_the_signature_and_takes_sequences_of_any_kind():
    @checks_arguments("seeds", "name")
    def function(seeds: "list[int] | tuple[int, ...]", name: str = "x", other: int = 1) -> int:
        """Does it."""
        return len(seeds)

    assert function.__doc__ == "Does it."
    for fits in ([1, 2], (1, 2), range(2), np.arange(2)):
        assert function(fits) == 2
    assert function([1], other="not checked") == 1
    with pytest.raises(ConfigError, match=r"name=3 of function must be a text; got a value of typ"):
        function([1], name=3)
    with pytest.raises(ConfigError, match="seeds='ab' of function must be a list"):
        function("ab")
