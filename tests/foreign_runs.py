"""Run folders as an attacker would edit them, for tests of the commands that open runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import metarl
from metarl.training.checkpoint import read_checkpoint

TINY = {"num_tasks": 8, "iterations": 2, "threads": 1, "progress": False}
"""options of a training of a tenth of a second"""


def train_tiny(folder: Path, **options: Any) -> Path:
    """A trained and evaluated run with all its files."""
    task_options = {"arms": 3, "pulls": 5}
    run = metarl.train(
        "rl2",
        "metarl/BernoulliBandit-v0",
        task_options=task_options,
        out=folder,
        num_minibatches=2,
        hidden_size=8,
        **{**TINY, **options},
    )
    metarl.evaluate(run, num_tasks=10)
    return run.path


def copy_of(run: Path, folder: Path) -> Path:
    """A copy of a run folder that a test may change."""
    shutil.copytree(run, folder)
    return folder


def change_config(run: Path, **changes: Any) -> None:
    """Sets fields of `config.json`, and of the config in the checkpoint's metadata."""
    path = run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    rewrite(run / "checkpoint.safetensors", config=changes)


def rewrite(path: Path, **changes: Any) -> None:
    """Changes the config, the progress or the tensors of a checkpoint, with a new checksum."""
    found = read_checkpoint(path)
    for name, values in changes.items():
        found = replace(found, **{name: {**getattr(found, name), **values}})
    path.write_bytes(found.to_bytes())
