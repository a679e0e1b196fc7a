"""Whatever is in the files of a run folder, opening it works or ends with one error of metarl.

More cases: pytest tests/results/test_damaged_files.py --damaged-files 2000
"""

import json
import os
import random
import signal
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import metarl
from metarl.errors import CheckpointError, MetaRLError
from metarl.training.checkpoint import read_checkpoint
from metarl.training.settings_file import read_training_file
from tests.foreign_runs import TINY, change_config, copy_of, train_tiny
from tests.mutations import mutate_bytes, mutate_csv, mutate_json, mutate_toml

TABLES = ("adaptation.csv", "trials.csv", "metrics.csv", "evaluation_curve.csv")
FILES = ("config.json", "evaluation.json", *TABLES, "training.toml")
PARQUET = "adaptation.parquet"
CHECKPOINT = "checkpoint.safetensors"
MAX_SECONDS = 20
SETTINGS = """agent = "rl2"
task = "metarl/BernoulliBandit-v0"

[agent_options]
num_tasks = 8
learning_rate = 0.001
memory = "gru"

[task_options]
arms = 3

[run]
seed = 3
"""
MAX_MESSAGE = 3000


def load(run: Path) -> None:
    opened = metarl.load_run(run)
    family = opened.config.make_family()
    opened.load(opened.make_agent(family))


def resume(run: Path) -> None:
    """Goes on with the training, as the damaged files allow."""
    metarl.train(
        "rl2",
        "metarl/BernoulliBandit-v0",
        task_options={"arms": 3, "pulls": 5},
        out=run,
        num_minibatches=2,
        hidden_size=8,
        resume=True,
        callbacks=[metarl.PeriodicEvaluation(1, num_tasks=3)],
        **{**TINY, "iterations": 3},
    )


READERS: dict[str, Callable[[Path], object]] = {
    "load": load,
    "compare": lambda run: metarl.compare([run]),
    "adaptation": lambda run: metarl.plot([run], formats=["svg"]),
    "regret": lambda run: metarl.plot([run], kind="regret", formats=["svg"]),
    "learning": lambda run: metarl.plot([run], kind="learning", formats=["svg"]),
    "pulls": lambda run: metarl.plot([run], kind="pulls", formats=["svg"]),
    "paths": lambda run: metarl.plot([run], kind="paths", formats=["svg"]),
    "metrics": metarl.read_metrics,
    "settings": lambda run: read_training_file(run / "training.toml"),
    "resume": resume,
}
OF_FILE = {
    "config.json": ("load", "compare", "learning", "resume"),
    "evaluation.json": ("compare", "adaptation"),
    "adaptation.csv": ("compare", "adaptation", "regret", "learning"),
    PARQUET: ("compare", "adaptation", "regret", "learning"),
    "trials.csv": ("pulls", "paths"),
    "metrics.csv": ("learning", "metrics", "resume"),
    "evaluation_curve.csv": ("learning", "resume"),
    "training.toml": ("settings",),
    CHECKPOINT: ("load", "resume"),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    run = train_tiny(
        tmp_path_factory.mktemp("runs") / "a",
        callbacks=[metarl.PeriodicEvaluation(1, num_tasks=3)],
    )
    (run / "training.toml").write_text(SETTINGS)
    return run


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", range(metafunc.config.getoption("--damaged-files") // 10))


def mutate_header(content: bytes, rng: random.Random) -> bytes:
    """Damage to the JSON at the start of a safetensors file, or to that in its metadata."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header["__metadata__"]
    inner = rng.choice([None, "config", "progress"])
    if inner is None:
        packed = mutate_json(json.dumps(header).encode(), rng)
    else:
        damaged = rng.choice([mutate_json, mutate_bytes])(metadata[inner].encode(), rng)
        metadata[inner] = damaged.decode("utf-8", "replace")
        packed = json.dumps(header).encode()
    packed += b" " * (-len(packed) % 8)
    return struct.pack("<Q", len(packed)) + packed + content[8 + length :]


def mutate_some_bytes(content: bytes, rng: random.Random) -> bytes:
    """Damage to a few bytes, most of them of metadata where the file is small."""
    damaged = bytearray(content)
    for _ in range(rng.randrange(1, 5)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def as_parquet(run: Path) -> None:
    """Gives the table of a run its other form."""
    pytest.importorskip("pyarrow", reason="needs the extra 'parquet'")
    metarl.write_curves(run / PARQUET, metarl.read_curves(run / "adaptation.csv"))
    (run / "adaptation.csv").unlink()


def damage(path: Path, rng: random.Random) -> None:
    kinds = {
        ".csv": mutate_csv,
        ".json": mutate_json,
        ".safetensors": mutate_header,
        ".parquet": mutate_some_bytes,
        ".toml": mutate_toml,
    }
    content = path.read_bytes()
    for _ in range(rng.choice([1, 1, 1, 2])):
        mutate = rng.choice([mutate_bytes, kinds[path.suffix], kinds[path.suffix]])
        try:
            content = mutate(content, rng)
        except (LookupError, ValueError, RecursionError, TypeError, AttributeError, struct.error):
            content = mutate_bytes(content, rng)  # too damaged already for its format
    path.write_bytes(content)


def read(name: str, run: Path) -> None:
    """Runs a reader; anything but success or a short `MetaRLError` in time is a failure."""

    def late(*_: object) -> None:
        raise AssertionError(f"{name} takes more than {MAX_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(MAX_SECONDS)
    message = "read"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as overflows in sums of 1e308
            READERS[name](run)
    except MetaRLError as error:
        message = str(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert message
    assert len(message) < MAX_MESSAGE
    assert "\x1b" not in message


@pytest.mark.parametrize("file", [*FILES, PARQUET, CHECKPOINT])
def test_a_damaged_file_ends_in_one_error(tiny, tmp_path, case, file):
    rng = random.Random(f"{file} {case}")
    run = copy_of(tiny, tmp_path / "a")
    if file == PARQUET:
        as_parquet(run)
    damage(run / file, rng)
    for name in OF_FILE[file]:
        read(name, run)


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.pop(name) and None


def set_to(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda state: state.update({name: value})


TENSORS = {
    "no count": without("updates"),
    "count of text": set_to("updates", torch.zeros(3)),
    "float count": set_to("updates", torch.tensor(1.5)),
    "nan parameter": lambda state: state.update(
        {name: value * torch.nan for name, value in state.items() if value.is_floating_point()}
    ),
    "no step": without("optimiser.6.step"),
    "moment without name": set_to("optimiser.0", torch.zeros(())),
    "moment of no number": set_to("optimiser.x.y", torch.zeros(())),
    "moment of no parameter": set_to("optimiser.900.step", torch.zeros(())),
    "large moment": set_to("optimiser.0.exp_avg", torch.zeros(7, 7)),
    "empty": lambda state: state.clear(),
}


@pytest.mark.parametrize("change", TENSORS)
def test_damaged_tensors_end_in_one_error(tiny, tmp_path, change):
    run = copy_of(tiny, tmp_path / "a")
    found = read_checkpoint(run / CHECKPOINT)
    state = dict(found.state)
    TENSORS[change](state)
    (run / CHECKPOINT).write_bytes(replace(found, state=state).to_bytes())
    with pytest.raises(CheckpointError):
        load(run)


HUGE = {
    "hidden_size": {"agent_options": {"hidden_size": 10**6}},
    "arms": {"task_options": {"arms": 10**9, "pulls": 5}},
    "arms list": {"task_options": {"arms": [1]}},
    "rate": {"agent_options": {"learning_rate": "x"}},
    "seed": {"seed": -1},
    "old name": {"agent_options": {"hidden": 8}},
}


@pytest.mark.parametrize("change", HUGE)
def test_options_that_no_run_has_end_in_one_error(tiny, tmp_path, change):
    run = copy_of(tiny, tmp_path / "a")
    change_config(run, **HUGE[change])
    with pytest.raises(MetaRLError):
        load(run)


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "missing", "device", "huge"])
@pytest.mark.parametrize("file", [*FILES, PARQUET, CHECKPOINT])
def test_something_else_than_a_file_ends_in_one_error(tiny, tmp_path, file, kind):
    run = copy_of(tiny, tmp_path / "a")
    if file == PARQUET:
        as_parquet(run)
    path = run / file
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 10**10)  # of zeros that take no room
    for name in READERS:
        if name != "resume" or "resume" in OF_FILE[file]:
            read(name, run)
