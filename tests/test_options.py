"""Options come out of a run folder as they went in, and collide with no name of metarl."""

import enum
import inspect
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import metarl
from metarl import registry
from metarl.bridges.gym_family import EnvFamily
from metarl.checks.report import run_checks
from metarl.cli.main import main
from metarl.errors import ConfigError
from metarl.options import plain_options, typed_options
from tests.foreign_runs import TINY

SMALL = {**TINY, "num_minibatches": 2, "hidden_size": 8}


class Mode(str, enum.Enum):  # noqa: UP042  (a text as well, which JSON would take for one)
    EASY = "easy"
    HARD = "hard"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Wind:
    speed: float = 1.0
    gusts: tuple[float, ...] = (0.5, 1.5)


@dataclass(frozen=True, kw_only=True)
class Colours(metarl.TaskFamily):
    """Pays for the task's action, only if all options are those of the training."""

    prizes: tuple[float, ...] = (1.0, 2.0)
    nested: tuple[tuple[int, str], ...] = ((1, "a"), (2, "b"))
    mode: Mode = Mode.EASY
    modes: tuple[Mode, Level] = (Mode.HARD, Level.LOW)
    level: Level | None = None
    wind: Wind = Wind()
    name: str | None = None
    path: Path = Path("a/b")
    infinite: float = float("inf")
    seed: int = 3
    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(2)
    task_space = spaces.Discrete(2)
    episode_steps = 4
    trial_episodes = 2
    splits_share_tasks = True

    def sample_tasks(self, num_tasks, generator, split="train"):
        return torch.randint(2, (num_tasks,), generator=generator, device=generator.device)

    def reset(self, task, noise):
        return torch.zeros_like(task)

    def observe(self, task, state):
        return torch.zeros(len(task), 1)

    def step(self, task, state, action, noise):
        right = (action >= 0).float()
        same = self.prizes == (1.0, 2.0) and self.wind.gusts == (0.5, 1.5)
        return state, right if same else right * 0, torch.zeros_like(task, dtype=torch.bool)


CHANGES: list[dict[str, Any]] = [
    {},
    {"prizes": (3.0,), "nested": ()},
    {"mode": Mode.HARD, "level": Level.HIGH, "modes": (Mode.EASY, Level.HIGH)},
    {"wind": Wind(speed=2.0, gusts=()), "name": "EASY", "path": Path("c")},
    {"infinite": -np.inf, "prizes": (1, 2)},
]


@pytest.fixture
def colours():
    metarl.register_family("lab/Colours-v0", Colours)
    yield "tests.test_options:lab/Colours-v0"
    del gymnasium.registry["lab/Colours-v0"]


@pytest.mark.parametrize("options", CHANGES)
def test_the_family_of_a_run_is_the_trained_one(colours, tmp_path, options):
    run = metarl.train("rl2", colours, task_options=options, out=tmp_path / "run", **SMALL)
    loaded = metarl.load_run(run.path).config.make_family()
    trained = metarl.make_family(colours, **options)
    assert loaded == trained == Colours(**options)
    assert hash(loaded) == hash(trained)
    for name, value in vars(trained).items():
        assert type(getattr(loaded, name)) is type(value)
    assert loaded.mode is trained.mode
    metarl.train("rl2", colours, task_options=options, out=run.path, resume=True, **SMALL)


def test_a_reloaded_family_pays_as_in_training(colours, tmp_path):
    run = metarl.train("rl2", colours, out=tmp_path / "run", **SMALL)
    agent, *_ = metarl.evaluate(run.path, num_tasks=10)
    assert agent.returns.mean() == 4.0
    assert "mode=EASY" in agent.family
    other, *_ = metarl.evaluate(run.path, num_tasks=10, task_options={"prizes": (1.0, 3.0)})
    assert other.returns.mean() == 0.0


def test_lists_become_tuples_where_the_option_is_one(colours):
    assert metarl.make_family(colours, prizes=[1.0, 2.0]) == Colours()
    assert metarl.make_family(colours, prizes=[np.float32(1.0), np.float64(2.0)]) == Colours()
    assert type(metarl.make_family(colours, seed=np.int64(4)).seed) is int


def test_every_agent_is_configured_as_in_training():
    for name in metarl.agent_names():
        kind = metarl.agent_config(name)
        stored = json.loads(json.dumps(plain_options(kind())))
        assert kind(**typed_options(kind, stored)) == kind()


def family_with(annotation: Any, default: Any) -> type:
    made = type("Made", (Colours,), {"__annotations__": {"odd": annotation}, "odd": default})
    made.__module__, made.__qualname__ = __name__, "Made"
    return dataclass(frozen=True, kw_only=True)(made)


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (frozenset, frozenset({1})),
        (bytes, b"x"),
        (complex, 1j),
        (object, object()),
        (type, int),
        (tuple, (frozenset(),)),
        (Any, np.dtype("float32")),
        (list, field(default_factory=lambda: [{1}])),
        (dict, field(default_factory=lambda: {1: 2})),
        ("Mode | str", "EASY"),
    ],
)
def test_an_option_that_cannot_be_stored_is_refused_at_registration(annotation, default):
    with pytest.raises(ConfigError, match=r"has the option odd=.* which a run folder cannot keep"):
        metarl.register_family("lab/Odd-v0", family_with(annotation, default))
    assert "lab/Odd-v0" not in gymnasium.registry


@pytest.mark.parametrize("value", [{1, 2}, b"x", np.zeros(2), torch.zeros(2), lambda: 1])
def test_a_value_that_is_no_text_is_refused_before_a_folder_is_made(colours, tmp_path, value):
    with pytest.raises(ConfigError, match=r"name=.* of Colours must be a text or None"):
        metarl.train("rl2", colours, task_options={"name": value}, out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_a_class_that_is_no_dataclass_is_refused():
    with pytest.raises(ConfigError, match="Plain is not a dataclass"):
        metarl.register_family("lab/Plain-v0", type("Plain", (metarl.TaskFamily,), {}))


@pytest.mark.parametrize("name", sorted(registry.RESERVED))
def test_names_that_gymnasium_takes_are_refused_for_families(name):
    made = type("Made", (Colours,), {"__annotations__": {name: int}, name: 3})
    with pytest.raises(ConfigError, match=f"has the option {name}, .*Reserved are .*render_mode"):
        metarl.register_family("lab/Odd-v0", dataclass(frozen=True, kw_only=True)(made))


class Lever(gymnasium.Env):
    """One of two levers pays."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)
    task_space = spaces.Discrete(2)
    splits_share_tasks = True
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  (Gymnasium's)
    task = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task = (options or {}).get("task", self.task)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(action == self.task), False, False, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


RECEIVED: list[Any] = []


def lever_with(name: str, default: Any, annotation: Any = inspect.Parameter.empty) -> type:
    """Lever whose constructor has one argument of this name."""

    def make(self, render_mode=None, **arguments):
        self.render_mode = render_mode
        RECEIVED.append(arguments[name])

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter("self", kind),
        inspect.Parameter(name, kind, default=default, annotation=annotation),
        inspect.Parameter("render_mode", kind, default=None),
    ]
    make.__signature__ = inspect.Signature(parameters)
    return type("MadeLever", (Lever,), {"__init__": make})


@pytest.fixture
def register_lever():
    made = []

    def register(cls: type) -> str:
        gymnasium.register("lab/Named-v0", entry_point=cls, max_episode_steps=4)
        made.append(1)
        RECEIVED.clear()
        return "lab/Named-v0"

    yield register
    gymnasium.registry.pop("lab/Named-v0", None)


def signature(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


NAMES = sorted(
    {name for name in dir(EnvFamily) if not name.startswith("__")}
    | signature(gymnasium.make)
    | signature(metarl.make_family)
    | signature(run_checks)
    | signature(metarl.evaluate_policy)
    | {field.name for field in fields(metarl.agent_config("rl2"))}
    | {"family", "owner", "spec", "self_", "metadata", "np_random", "kwargs", "name", "_pool"}
)


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_of_any_name_is_an_option(register_lever, name):
    task_id = register_lever(lever_with(name, 3))
    family = metarl.make_family(task_id, **{name: 4})
    assert plain_options(family) == {name: 4}
    assert registry.name_of(family) == (task_id, {name: 4})
    assert family == metarl.make_family(task_id, **{name: 4}) != metarl.make_family(task_id)
    assert (family.episode_steps, family.trial_episodes) == (4, 2)
    assert family.task_space == spaces.Discrete(2)
    assert set(RECEIVED) == {4}
    with pytest.raises(ConfigError, match=f"Its options: {name}"):
        metarl.make_family(task_id, lever=1)


@pytest.mark.parametrize(
    "name", ["max_episode_steps", "task_id", "seed", "workers", "close", "_pool"]
)
def test_an_argument_of_any_name_reaches_every_command(register_lever, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task_id = register_lever(lever_with(name, 3))
    flag = f"--task.{name.replace('_', '-')}" if name[0] != "_" else f"--task.{name}"
    arguments = [
        "--num-tasks",
        "8",
        "--iterations",
        "1",
        "--num-minibatches",
        "2",
        "--threads",
        "1",
    ]
    train = ["train", "rl2", task_id, *arguments, "--out", "run", "--no-progress"]
    for words in (
        [*train, flag, "4"],
        [*train, flag, "4", "--resume"],
        ["evaluate", "run", "--num-tasks", "4", "--no-progress"],
        ["evaluate", "run", "--num-tasks", "4", "--no-progress", flag, "4"],
        ["record", "run", "--no-progress"],
        ["check", task_id, flag, "4", "--workers", "0"],
    ):
        RECEIVED.clear()
        assert main(words) == 0, words
        assert 4 in RECEIVED
        assert set(RECEIVED) == {4} or words[0] in ("check", "train")  # defaults of --help


def test_an_option_may_be_an_enum_or_a_tuple_of_an_environment(register_lever, tmp_path):
    for default, value in ((Mode.EASY, Mode.HARD), ((1.0, 2.0), (3.0,)), (Level.LOW, Level.HIGH)):
        gymnasium.registry.pop("lab/Named-v0", None)
        task_id = register_lever(lever_with("mode", default))
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        run = metarl.train("rl2", task_id, task_options={"mode": value}, out=out, **SMALL)
        metarl.evaluate(run.path, num_tasks=4)
        metarl.train("rl2", task_id, task_options={"mode": value}, out=out, resume=True, **SMALL)
        assert {type(one) for one in RECEIVED} == {type(value)}
        assert set(RECEIVED) <= {value, default}
        loaded = metarl.load_run(out).config.make_family()
        assert loaded.mode == value
        assert type(loaded.mode) is type(value)


def test_a_keyword_of_two_meanings_is_refused(register_lever):
    task_id = register_lever(lever_with("seed", 3))
    with pytest.raises(ConfigError, match="seed is an option of the evaluation and of MadeLever"):
        metarl.evaluate_policy(lambda tasks: None, task_id, agent="x", seed=5)


def test_a_time_limit_may_be_an_argument(register_lever):
    class Counting(lever_with("max_episode_steps", 5)):
        pass

    gymnasium.register("lab/Named-v0", entry_point=lever_with("max_episode_steps", 5))
    assert metarl.make_family("lab/Named-v0").episode_steps == 5
    assert metarl.make_family("lab/Named-v0", max_episode_steps=7).episode_steps == 7


def test_options_of_old_runs_are_read(colours):
    stored = json.loads(json.dumps(asdict(Wind())))
    assert typed_options(Wind, stored) == {"speed": 1.0, "gusts": (0.5, 1.5)}
