"""Values of other types than an option's are refused, in one sentence, before a folder is made."""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
import pytest

import metarl
from metarl.errors import ConfigError, UnknownNameError
from metarl.evaluation.options import EvaluationOptions
from metarl.field_types import check_fields, field_hints, require_types, union_members
from metarl.plots.options import PlotOptions
from metarl.registry import agent_config, agent_names, family_class, make_family
from metarl.testing import check_task
from metarl.training.options import RunOptions
from metarl.video.options import VideoOptions
from tests.foreign_runs import TINY
from tests.known_ids import ENVIRONMENTS, FAMILIES

WRONG: dict[type[Any], tuple[Any, ...]] = {
    int: ("3", 2.0, True, [], float("nan"), object(), 3 + 0j),
    float: ("3e-4", True, [], float("nan"), object()),
    bool: ("false", 1, None, []),
    str: (3, True, [], object()),
}
"""by the type of an option; None is wrong where the type is no union with it"""


class Mode(enum.Enum):
    EASY = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    count: int = 3
    rate: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, str] = (1, "a")
    names: Sequence[str] = ("a",)
    path: Path | None = None
    mode: Mode = Mode.EASY
    kind: Literal["a", "b"] = "a"
    unknown: Any = None
    table: Mapping[str, int] | None = None
    function: Callable[[], int] | None = None
    missing: float = float("nan")

    def __post_init__(self) -> None:
        check_fields(self)


def wrong_values(kind: type[Any]) -> list[tuple[str, Any]]:
    """Every option of a class with values that it cannot have."""
    found = []
    for name, hint in field_hints(kind).items():
        members = union_members(hint)
        if name not in {field.name for field in dataclasses.fields(kind)}:
            continue
        wrong = [value for one in members if one in WRONG for value in WRONG[one]]
        found += [(name, value) for value in wrong if not {int, float} <= set(members)]
        if type(None) not in members and members[0] in WRONG:
            found.append((name, None))
    return found


@pytest.mark.parametrize("name", agent_names())
def test_options_of_agents_have_types(name):
    kind = agent_config(name)
    assert len(wrong_values(kind)) > 50
    for option, value in wrong_values(kind):
        with pytest.raises(ConfigError, match=rf"^{option}=.* of \w+ must be .*; got "):
            kind(**{option: value})


@pytest.mark.parametrize("task_id", [*FAMILIES, *ENVIRONMENTS])
def test_options_of_families_have_types(task_id):
    kind, _ = family_class(task_id)
    for option, value in wrong_values(kind):
        for build in (lambda **options: make_family(task_id, **options), kind):
            with pytest.raises(ConfigError, match=rf"^{option}=.* must be .*; got "):
                build(**{option: value})


@pytest.mark.parametrize("kind", [RunOptions, EvaluationOptions, VideoOptions, PlotOptions])
def test_other_options_have_types(kind):
    for option, value in wrong_values(kind):
        with pytest.raises(ConfigError, match=rf"^{option}=.* of {kind.__name__} must be .*; got "):
            kind(**{option: value})


@pytest.mark.parametrize(
    ("sizes", "got"),
    [
        ((1, 2.5), "got 2.5 in it"),
        ([1, None], "got None in it"),
        (3, "got a value of type int"),
    ],
)
def test_of_a_list_the_element_that_is_wrong_is_named(sizes, got):
    with pytest.raises(ConfigError, match=rf"{got}\.$"):
        Options(sizes=sizes)


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": 3},
        {"sizes": (1, 2.5)},
        {"sizes": "12"},
        {"pair": (1, 2)},
        {"pair": (1, "a", "b")},
        {"names": "ab"},
        {"path": 3},
        {"mode": "HARD"},
        {"kind": "c"},
        {"table": [1]},
        {"function": 3},
    ],
)
def test_wrong_containers_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=f"^{name}=.* of Options must be"):
        Options(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 1},
        {"sizes": [1, 2, 3]},
        {"sizes": ()},
        {"names": ["x"]},
        {"path": "a/b"},
        {"path": Path("a")},
        {"kind": "b"},
        {"unknown": object()},
        {"table": {"a": 1}},
        {"function": int},
        {"missing": float("nan")},
    ],
)
def test_values_that_fit_are_taken(options):
    (name,) = options
    found = getattr(Options(**options), name)
    assert found is options[name] or found == options[name] or str(found) == options[name]


def test_numbers_of_numpy_become_those_of_python():
    options = Options(count=np.int64(4), rate=np.float32(0.5))
    assert (type(options.count), type(options.rate)) == (int, float)
    require_types(Options, {"sizes": (np.int32(3),)})
    with pytest.raises(ConfigError, match="must be a whole number"):
        Options(count=np.float64(4.0))


def test_a_wrong_type_leaves_no_folder(tmp_path):
    for options in ({"num_epochs": 2.0}, {"seed": "0"}, {"task_options": {"arms": "3"}}):
        with pytest.raises(ConfigError):
            metarl.train("rl2", "metarl/BernoulliBandit-v0", out=tmp_path / "r", **TINY | options)
        assert not (tmp_path / "r").exists()


def test_an_argument_of_an_environment_without_annotation_may_be_any_number():
    class Lever(gymnasium.Env):
        def __init__(self, length=5, wide: int = 2, tall: float | None = 1.0):
            pass

    gymnasium.register("lab/Typed-v0", entry_point=Lever, max_episode_steps=3)
    try:
        family = make_family("lab/Typed-v0", length=2.5, tall=None)
        assert family.length == 2.5
        with pytest.raises(ConfigError, match=r"wide=2\.5 of Lever must be a whole number"):
            make_family("lab/Typed-v0", wide=2.5)
    finally:
        del gymnasium.registry["lab/Typed-v0"]


@pytest.mark.parametrize("seeds", ["0 1", ["0"], None, 3, [0.5], []])
def test_seeds_are_a_list_of_whole_numbers(tmp_path, seeds):
    with pytest.raises(ConfigError, match="must be different whole numbers"):
        metarl.train_seeds("rl2", BANDIT, seeds=seeds, out=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


def test_metrics_are_read_from_a_run_its_folder_or_the_file(tmp_path):
    run = metarl.train("rl2", BANDIT, out=tmp_path / "run", **TINY)
    rows = metarl.read_metrics(run)
    assert rows == metarl.read_metrics(run.path) == metarl.read_metrics(f"{run.path}/metrics.csv")
    assert rows[0]["iteration"] == "1"


def test_names_are_suggested_whatever_their_case():
    with pytest.raises(UnknownNameError, match=r"No agent is called 'RL2'\. Did you mean 'rl2'"):
        metarl.train("RL2", BANDIT)


BANDIT = "metarl/BernoulliBandit-v0"
RUNS = "Runs are given as a list"
RUN, TASK, AGENT = "A run is given by", "A task is given by", "An agent is given by"


@pytest.mark.parametrize("thing", [None, 3, metarl.TaskFamily, object(), ["rl2"]])
def test_objects_in_place_of_names_are_answered_in_one_sentence(thing):
    calls: list[tuple[str, Callable[[], Any]]] = [
        (AGENT, lambda: metarl.train(thing, BANDIT)),
        (TASK, lambda: metarl.train("rl2", thing)),
        (TASK, lambda: metarl.make_family(thing)),
        (TASK, lambda: check_task(thing)),
        (RUN, lambda: metarl.load_run(thing)),
        (RUN, lambda: metarl.evaluate(thing)),
        (RUN, lambda: metarl.record(thing)),
    ]
    if thing != ["rl2"]:
        calls += [(RUNS, lambda: metarl.compare(thing)), (RUNS, lambda: metarl.plot(thing))]
    for message, call in calls:
        with pytest.raises(ConfigError, match=message):
            call()


@pytest.mark.parametrize("name", ["config", "run", "task_options", "preset"])
def test_objects_in_place_of_settings_are_refused(name):
    with pytest.raises(ConfigError, match=f"^{name}=3 must be"):
        metarl.train("rl2", BANDIT, **{name: 3})


@pytest.mark.parametrize("wrong", [{"at": "3"}, {"reference": "random"}])
def test_options_of_compare_have_types(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^{name}=.* must be a"):
        metarl.compare(["runs/x"], **wrong)


def test_the_settings_of_another_agent_are_refused():
    with pytest.raises(ConfigError, match=r"must be RL2Config\(\.\.\.\), the hyper-parameters"):
        metarl.train("rl2", BANDIT, config=agent_config("maml")())


@pytest.mark.parametrize("call", [metarl.evaluate, metarl.record, metarl.plot])
def test_misspelt_and_misplaced_options_are_refused(call):
    with pytest.raises(ConfigError, match="has no option 'epsiodes'"):
        call("runs/x", epsiodes=3)
    with pytest.raises(ConfigError, match=r"options=3 must be \w+Options"):
        call("runs/x", options=3)
