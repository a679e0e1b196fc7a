"""A run folder: settings, metrics and checkpoints in and out. Loading one never executes code.

config.json              every setting, seed, versions, git state
metrics.csv              one row per meta-iteration
events.out.tfevents.*    the same for TensorBoard
checkpoint.safetensors   the latest state of the agent, with its place in the run
adaptation.csv           written by evaluation
training.lock            empty; held while somebody trains here
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from metarl.agent import Agent, AgentConfig, AgentContext
from metarl.errors import CheckpointError, MetaRLError, RunFolderError
from metarl.registry import agent_config, make_family
from metarl.results.curves import describe_family
from metarl.results.files import as_folder_error, write_json, written_whole
from metarl.results.run_config import FORMAT, FORMATS, read_config, with_present_names
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What defines a run: equal configurations give equal runs on one machine."""

    agent: str
    agent_options: Mapping[str, Any]
    task: str
    task_options: Mapping[str, Any]
    seed: int
    format: str = FORMAT

    @property
    def default_path(self) -> Path:
        """Such as runs/rl2-BernoulliBandit-v0-seed3."""
        return Path("runs") / f"{self.agent}-{self.task.rpartition('/')[2]}-seed{self.seed}"

    @property
    def family(self) -> str:
        """The task and its options, such as metarl/BernoulliBandit-v0 (arms=5, pulls=10)."""
        return describe_family(self.task, self.task_options)

    def make_family(self) -> TaskDistribution:
        """The family that the run learns."""
        return make_family(self.task, **self.task_options)

    def make_agent_config(self) -> AgentConfig:
        """The agent's hyper-parameters.

        Raises:
            RunFolderError: the agent no longer has one of the options.
        """
        options: dict[str, Any] = {  # JSON knows no tuples
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.agent_options.items()
        }
        try:
            return agent_config(self.agent)(**options)
        except TypeError as error:
            raise RunFolderError(
                f"The settings of this run do not fit the agent {self.agent!r} of this version of "
                f"metarl: {error}. Use the version that config.json names."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come."""

    iteration: int = 0
    """meta-iterations completed"""
    env_steps: int = 0
    """environment steps lived in training"""
    seconds: float = 0.0
    """wall time of training"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder on disk."""

    path: Path
    config: RunConfig

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def checkpoint(self) -> Path:
        """Where the latest state of the agent is kept."""
        return self.path / "checkpoint.safetensors"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it no other process can train in this folder.

        Raises:
            RunFolderError: another one does.
        """
        lock = FileLock(self.path / "training.lock", timeout=0)
        with as_folder_error(self.path):
            try:
                acquired = lock.acquire()
            except Timeout as error:
                raise RunFolderError(
                    f"Another process is training in {self.path}, and two would overwrite each "
                    "other's checkpoints. Wait until it has ended, or choose another folder with "
                    "--out."
                ) from error
        with acquired:
            yield

    def make_agent(self, family: TaskDistribution, device: torch.device | str = "cpu") -> Agent:
        """A new agent with this run's settings, untrained."""
        setting = AgentContext(
            observation_space=family.observation_space,
            action_space=family.action_space,
            seeds=Seeds(self.config.seed).child("agent"),
            device=torch.device(device),
        )
        return self.config.make_agent_config().build(setting)

    def save(self, agent: Agent, progress: Progress) -> None:
        """Writes the checkpoint whole or not at all."""
        metadata = {
            "format": FORMAT,
            "config": json.dumps(asdict(self.config), sort_keys=True),
            "progress": json.dumps(asdict(progress)),
        }
        state = {name: value.cpu() for name, value in agent.state().items()}
        with as_folder_error(self.checkpoint), written_whole(self.checkpoint) as draft:
            save_file(state, draft, metadata)

    def load(self, agent: Agent) -> Progress:
        """Puts the checkpoint's state into `agent`; how far it had come.

        Raises:
            CheckpointError: missing, truncated, not ours, or of a run with other settings.
        """
        state, metadata = _read_checkpoint(self.checkpoint)
        wrote = RunConfig(**with_present_names(json.loads(metadata["config"])))
        if difference := _difference(wrote, self.config):
            raise CheckpointError(
                f"The checkpoint {self.checkpoint} was written by a run with {difference}. A "
                "checkpoint can only be loaded into a run with the settings that wrote it."
            )
        agent.load_state(state)
        return Progress(**json.loads(metadata["progress"]))


def create_run(path: Path, config: RunConfig) -> Run:
    """A new run folder with its `config.json`.

    Raises:
        RunFolderError: the folder exists; nothing is ever overwritten in silence.
    """
    if path.exists():
        raise RunFolderError(
            f"The run folder {path} exists and would be overwritten. Continue it with --resume, "
            "choose another with --out, or remove it."
        )
    with as_folder_error(path):
        path.mkdir(parents=True)
    content = {**asdict(config), "versions": _versions(), "git": _git_state()}
    write_json(path / "config.json", content)
    return Run(path=path, config=config)


def load_run(path: str | os.PathLike[str]) -> Run:
    """A run folder that exists.

    Raises:
        RunFolderError: there is none here, or its `config.json` is not readable.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise RunFolderError(
            f"{folder} is not a run folder: it has no config.json. Give the folder that "
            "`metarl train` printed."
        )
    return Run(path=folder, config=RunConfig(**read_config(folder)))


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}: the run has not learnt yet.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
        state = load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"The checkpoint {path} cannot be read ({error}): it is truncated or not a "
            "safetensors file. Restore it from a copy, or train again."
        ) from error
    if metadata.get("format") not in FORMATS or not {"config", "progress"} <= metadata.keys():
        raise CheckpointError(
            f"{path} is a safetensors file, but not a checkpoint of a metarl run (format "
            f"{metadata.get('format')!r}, expected {FORMAT!r})."
        )
    return state, metadata


def _versions() -> dict[str, str]:
    names = ("metarl-suite", "torch", "gymnasium", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _git_state() -> dict[str, Any] | None:
    """Commit of the folder where the user stands, and whether it has uncommitted changes."""
    try:
        commit, status = (
            subprocess.run(
                ["git", *arguments], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "uncommitted_changes": bool(status)}


def require_same(run: Run, config: RunConfig) -> None:
    """Raises `RunFolderError` unless the folder's settings are those given."""
    if difference := _difference(run.config, config):
        raise RunFolderError(
            f"{run.path} cannot be resumed with other settings: it has {difference}. Give the "
            "settings it was started with, or another --out."
        )


def _difference(there: RunConfig, here: RunConfig) -> str:
    """Which settings differ, such as "hidden = 8 instead of 64"; nothing if none does.

    An option that came after a run was started counts as its default.
    """
    difference = _differences(asdict(there), asdict(here))
    try:
        return difference and _differences(_complete(there), _complete(here))
    except MetaRLError:  # of another agent or family altogether
        return difference


def _complete(config: RunConfig) -> dict[str, Any]:
    """All settings, those left out included."""
    agent_options = asdict(config.make_agent_config())
    task_options = asdict(config.make_family())  # type: ignore[call-overload]
    return {**asdict(config), "agent_options": agent_options, "task_options": task_options}


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The same for dictionaries of settings."""
    found = []
    for name in dict.fromkeys([*there, *here]):
        one, two = there.get(name), here.get(name)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            found += [inner] if (inner := _differences(one, two)) else []
        elif json.dumps(one) != json.dumps(two):  # through JSON, where tuples are lists
            found.append(f"{name} = {one!r} instead of {two!r}")
    return ", ".join(found)
