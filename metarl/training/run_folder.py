"""Run folders: settings, metrics and checkpoints on disk. Loading one never executes code.

config.json              every setting, seed, versions, git state
metrics.csv              one row per meta-iteration
events.out.tfevents.*    the same for TensorBoard
checkpoint.safetensors   the latest state of the agent, with the progress of the run
adaptation.csv           written by an evaluation
training.lock            empty; locked while a process trains in this folder
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from metarl import __version__
from metarl.agent import Agent, AgentConfig, AgentContext
from metarl.errors import CheckpointError, MetaRLError, RunFolderError
from metarl.registry import agent_config, make_family
from metarl.results.adaptation_curves import describe_family
from metarl.results.files import as_folder_error, atomic_write, write_json
from metarl.results.run_config import FORMAT, FORMATS, read_config, with_current_names
from metarl.seeding import Seeds
from metarl.tasks.family import TaskDistribution

CHECKPOINT_FILE = "checkpoint.safetensors"


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
        """The family that the agent is trained on."""
        return make_family(self.task, **self.task_options)

    def context(
        self, family: TaskDistribution, device: torch.device | str, *, training: bool = False
    ) -> AgentContext:
        """What the agent of this run is built for; references are listed for `training` only."""
        episodes = self.agent_options.get("episodes") or family.trial_episodes
        return AgentContext(
            observation_space=family.observation_space,
            action_space=family.action_space,
            seeds=Seeds(self.seed).child("agent"),
            device=torch.device(device),
            shown_targets=family.shown_targets,
            references=partial(family.references, episodes) if training else None,
        )

    def make_agent_config(self) -> AgentConfig:
        """The agent's hyper-parameters.

        Raises:
            RunFolderError: the agent no longer has one of the options.
        """
        options: dict[str, Any] = {  # JSON has no tuples
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.agent_options.items()
        }
        try:
            return agent_config(self.agent)(**options)
        except TypeError as error:
            raise RunFolderError(
                f"The settings of this run do not fit the agent {self.agent!r} of this version of "
                f"metarl: {error}. Use the version named in config.json."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has been trained."""

    iteration: int = 0
    """meta-iterations completed"""
    env_steps: int = 0
    """environment steps of training"""
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
        """The file with the latest state of the agent."""
        return self.path / CHECKPOINT_FILE

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context in which no other process can train in this folder.

        Raises:
            RunFolderError: another process is training in it.
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
        return self.config.make_agent_config().build(self.config.context(family, device))

    def save(self, agent: Agent, progress: Progress) -> None:
        """Writes the checkpoint atomically."""
        metadata = {
            "format": FORMAT,
            "config": json.dumps(asdict(self.config), sort_keys=True),
            "progress": json.dumps(asdict(progress)),
        }
        state = {name: value.cpu() for name, value in agent.state().items()}
        with as_folder_error(self.checkpoint), atomic_write(self.checkpoint) as draft:
            save_file(state, draft, metadata)

    def load(self, agent: Agent) -> Progress:
        """Loads the checkpoint into `agent` and returns its progress.

        Raises:
            CheckpointError: missing, truncated, of another program, or of a run with other
                settings.
        """
        state, metadata = _read_checkpoint(self.checkpoint)
        saved = RunConfig(**with_current_names(json.loads(metadata["config"])))
        if difference := _difference(saved, self.config):
            raise CheckpointError(
                f"The checkpoint {self.checkpoint} was written by a run with {difference}. A "
                "checkpoint can only be loaded into a run with the settings that wrote it."
            )
        agent.load_state(state)
        return Progress(**json.loads(metadata["progress"]))


def create_run(path: Path, config: RunConfig) -> Run:
    """Creates a run folder with its `config.json`.

    Raises:
        RunFolderError: the folder exists; nothing is overwritten silently.
    """
    require_absent(path)
    with as_folder_error(path):
        path.mkdir(parents=True)
    content = {**asdict(config), "versions": _versions(), "git": _git_state()}
    write_json(path / "config.json", content)
    return Run(path=path, config=config)


def require_absent(path: Path) -> None:
    """Raises `RunFolderError` where a run folder would be overwritten."""
    if path.exists():
        raise RunFolderError(
            f"The run folder {path} exists and would be overwritten. Continue it with --resume, "
            "choose another with --out, or remove it."
        )


def load_run(path: str | os.PathLike[str]) -> Run:
    """Opens an existing run folder.

    Raises:
        RunFolderError: this is no run folder, or its `config.json` cannot be read.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise RunFolderError(
            f"{folder} is not a run folder: it has no config.json. Give the folder printed by "
            "`metarl train`."
        )
    return Run(path=folder, config=RunConfig(**read_config(folder)))


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(
            f"There is no checkpoint at {path}: the run is not trained yet. Train it first."
        )
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
    ours = {"python": platform.python_version(), "metarl-suite": __version__}
    return ours | {name: version(name) for name in ("torch", "gymnasium", "numpy")}


def _git_state() -> dict[str, Any] | None:
    """Commit of the current folder, and whether it has uncommitted changes."""
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
            "settings with which it was started, or another --out."
        )


def _difference(stored: RunConfig, given: RunConfig) -> str:
    """The settings that differ, such as "hidden_size = 8 instead of 64"; empty if all are equal.

    An option that did not exist when a run was started has its default.
    """
    difference = _differences(asdict(stored), asdict(given))
    try:
        return difference and _differences(_complete(stored), _complete(given))
    except MetaRLError:  # of another agent or family
        return difference


def _complete(config: RunConfig) -> dict[str, Any]:
    """All settings, with defaults for those left out."""
    agent_options = asdict(config.make_agent_config())
    task_options = asdict(config.make_family())  # type: ignore[call-overload]
    return {**asdict(config), "agent_options": agent_options, "task_options": task_options}


def _differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    found = []
    for name in dict.fromkeys([*stored, *given]):
        old, new = stored.get(name), given.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [inner] if (inner := _differences(old, new)) else []
        elif json.dumps(old) != json.dumps(new):  # through JSON, where tuples are lists
            found.append(f"{name} = {old!r} instead of {new!r}")
    return ", ".join(found)
