"""Run folders: settings, metrics and checkpoints on disk.

Loading one executes nothing that it holds or names; docs/security.md says what is promised.

config.json              every setting, seed, versions, git state
metrics.csv              one row per meta-iteration
events.out.tfevents.*    the same for TensorBoard
checkpoint.safetensors   the latest state of the agent, with the progress of the run
checkpoint.1.safetensors, ...   the ones before, newest first
rollback.safetensors     a state to go back to, with --on-nan rollback
adaptation.csv           or adaptation.parquet, written by an evaluation
training.lock            empty; locked while a process trains in this folder
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from metarl.agent import Agent
from metarl.errors import CheckpointError, ConfigError, MetaRLError, RunFolderError
from metarl.field_types import kind_of
from metarl.modules import import_trusted
from metarl.results.files import as_folder_error, atomic_write, json_text, write_text
from metarl.results.reading import quoted, read_json, shortened
from metarl.results.run_config import checked_config, read_config
from metarl.tasks.family import TaskDistribution
from metarl.text import control_within
from metarl.training.checkpoint import (
    CHECKPOINT_FILE,
    BrokenCheckpointError,
    Checkpoint,
    checkpoint_paths,
    move_older,
    read_checkpoint,
)
from metarl.training.leftovers import LOCK_FILE, files_of_a_training, foreign_files
from metarl.training.options import KEPT_CHECKPOINTS
from metarl.training.provenance import git_state, versions
from metarl.training.run_settings import RunConfig, difference_of, naming, prolonged
from metarl.training.zoo import PREFIX, run_path

GOOD_STATE_FILE = "rollback.safetensors"
"""name inside a run folder, if NaN is answered by a rollback"""
WEIGHTS_ONLY = "weights_only"
"""entry of `config.json` in a folder to share, in which no training goes on"""
log = logging.getLogger("metarl")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has been trained."""

    iteration: int = 0
    """meta-iterations completed"""
    env_steps: int = 0
    """environment steps of training"""
    seconds: float = 0.0
    """wall time of training"""
    rollbacks: int = 0
    """how often the learning rate was halved, see `RunOptions.on_nan`"""


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

    @property
    def is_started(self) -> bool:
        """Whether an iteration was finished and saved."""
        return bool(checkpoint_paths(self.path))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context in which no other process can train in this folder; makes it if needed.

        Raises:
            RunFolderError: another process is training in it, it cannot be written, or it holds
                symbolic links.
        """
        lock = FileLock(self.path / LOCK_FILE, timeout=0)
        with as_folder_error(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            _require_no_links(self.path)
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
        config = self.config.make_agent_config()
        with naming("The settings of this run", f"the agent {quoted(self.config.agent)}"):
            return config.build(self.config.context(family, device))

    def start(self, origin: Mapping[str, Any] | None = None, *, ranks: int = 1) -> None:
        """Writes `config.json`, and removes what a training without a finished iteration left.

        Args:
            origin: of the first weights, where they are those of another run.
            ranks: processes that train it together.
        """
        path = self.path / "config.json"
        content = {**asdict(self.config), "versions": versions(), "git": git_state()}
        if origin:
            content["initial_weights"] = origin
        if ranks > 1:
            content["ranks"] = ranks
        with as_folder_error(path):
            for name in files_of_a_training(self.path) - {LOCK_FILE, path.name}:
                (self.path / name).unlink(missing_ok=True)
        write_text(path, json_text(path, content))

    def warn_of_other_ranks(self, ranks: int) -> None:
        """Logs a warning where another number of processes goes on with the training."""
        before = read_json(self.path / "config.json", "a run's config.json").get("ranks", 1)
        if before != ranks:
            log.warning(
                "%s was started by %s processes together and is continued by %d: with the same "
                "tasks and the same noise, but rounding differs, so the run is not the one that "
                "it would have been.",
                *(self.path, quoted(before), ranks),
            )

    def prolong(self) -> None:
        """Writes the iterations into `config.json`, if they are more than when the run was started.

        The entry `prolonged` lists the former numbers, with the versions that go on from there.
        """
        path = self.path / "config.json"
        content = read_json(path, "a run's config.json")
        before = read_config(self.path)["agent_options"].get("iterations")
        now = self.config.agent_options.get("iterations")
        if before == now:
            return
        earlier = content.get("prolonged")
        entry = {"from": before, "to": now, "versions": versions(), "git": git_state()}
        content |= asdict(self.config)
        content["prolonged"] = [*(earlier if isinstance(earlier, list) else []), entry]
        write_text(path, json_text(path, content))

    def save(self, agent: Agent, progress: Progress, *, keep: int = KEPT_CHECKPOINTS) -> None:
        """Writes the checkpoint atomically, and keeps the `keep - 1` before it."""
        content = self._content(agent, progress)
        with atomic_write(self.checkpoint) as draft:
            draft.write_bytes(content)
            move_older(self.checkpoint, keep)

    def save_good_state(self, agent: Agent, progress: Progress) -> None:
        """Writes the state to which a training goes back where a number becomes NaN."""
        path = self.path / GOOD_STATE_FILE
        with atomic_write(path) as draft:
            draft.write_bytes(self._content(agent, progress))

    def load_good_state(self, agent: Agent) -> Progress | None:
        """Loads that state; None if there is none. Raises `CheckpointError` as `load` does."""
        path = self.path / GOOD_STATE_FILE
        return self._load(path, agent) if path.is_file() else None

    def _content(self, agent: Agent, progress: Progress) -> bytes:
        return Checkpoint(
            state=agent.state(), config=asdict(self.config), progress=asdict(progress)
        ).to_bytes()

    def load(self, agent: Agent) -> Progress:
        """Loads the latest checkpoint into `agent` and returns its progress.

        Raises:
            CheckpointError: missing, truncated, altered, of another program, of a newer version, or
                of a run with other settings.
        """
        newest, *_ = checkpoint_paths(self.path) or [self.checkpoint]
        return self._load(newest, agent)

    def load_newest_sound(self, agent: Agent) -> Progress:
        """Like `load`, but skips broken checkpoints, and logs a warning for each.

        Raises:
            CheckpointError: as `load`, or all checkpoints are broken.
        """
        paths = checkpoint_paths(self.path)
        for path in paths:
            try:
                progress = self._load(path, agent)
            except BrokenCheckpointError as error:
                log.warning("%s It is skipped.", error)
                continue
            if path != paths[0]:
                log.warning("Training continues from %s, iteration %d.", path, progress.iteration)
            return progress
        raise CheckpointError(
            f"None of the checkpoints of {self.path} can be read: "
            f"{', '.join(path.name for path in paths)}. Restore one of them from a copy, or remove "
            "them to train again from the start."
        )

    def _load(self, path: Path, agent: Agent) -> Progress:
        if not path.is_file():
            raise CheckpointError(
                f"There is no checkpoint at {path}: the run is not trained yet. Train it first."
            )
        found = read_checkpoint(path)
        try:
            saved = RunConfig(**checked_config(found.config, path))
            progress = _parse_progress(found.progress)
        except (RunFolderError, TypeError) as error:
            raise BrokenCheckpointError(
                f"The checkpoint {path} lacks settings or progress ({shortened(error)}); it was "
                "edited."
            ) from error
        if difference := difference_of(saved, self.config):
            raise CheckpointError(
                f"The checkpoint {path} was written by a run with {difference}. A "
                "checkpoint can only be loaded into a run with the settings that wrote it."
            )
        try:
            agent.load_state(found.state)
        except MetaRLError:
            raise
        except (LookupError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"The checkpoint {path} does not fit the agent {self.config.agent!r}: "
                f"{type(error).__name__}: {shortened(error)}. It is damaged, or of another program."
            ) from error
        return progress


def open_run(path: Path, config: RunConfig, *, resume: bool) -> Run:
    """The run that a training in `path` starts or continues; writes nothing.

    A folder without a checkpoint holds no finished iteration. It counts as empty if nothing but a
    training has written into it.

    Args:
        path: of the run folder, which may not exist.
        config: of the run to start or to continue.
        resume: continue a run with a finished iteration, instead of refusing it.

    Raises:
        RunFolderError: the folder holds a run that is not to be resumed or has other settings, or
            other files; or JSON cannot hold the settings.
        ConfigError: an option is a text with control characters.
    """
    if (text := control_within(asdict(config))) is not None:
        raise ConfigError(
            f"The options hold the text {text!r}, but those of a run must be free of control "
            "characters, because they are shown in tables and figures."
        )
    if str(path).startswith(PREFIX):
        raise ConfigError(
            f"out={str(path)!r} is the name of an agent that comes with metarl, so the run would "
            "never be found under it. Choose another folder."
        )
    run = Run(path=path, config=config)
    json_text(path / "config.json", asdict(config))
    if not path.exists():
        return run
    if not path.is_dir() or (not run.is_started and foreign_files(path)):
        found = f" with {', '.join(foreign_files(path)[:3])}" if path.is_dir() else ""
        raise RunFolderError(
            f"{path} exists{found}, and is no run folder. Choose another path with --out."
        )
    if not run.is_started:
        return run
    if not resume:
        raise RunFolderError(
            f"The run folder {path} exists and would be overwritten. Continue it with --resume, "
            "choose another with --out, or remove it."
        )
    run = load_run(path)
    if read_json(path / "config.json", "a run's config.json").get(WEIGHTS_ONLY):
        raise RunFolderError(
            f"{path} holds weights without the state of the optimiser, so its training cannot go "
            "on. Start another one from them, with --init-from."
        )
    require_same(run, config)
    return replace(run, config=prolonged(run.config, config))


def create_run(path: Path, config: RunConfig) -> Run:
    """Creates a run folder with its `config.json`.

    Raises:
        RunFolderError: it holds a run or other files already; nothing is overwritten silently.
    """
    run = open_run(path, config, resume=False)
    with run.locked():
        run.start()
    return run


def load_run(path: str | os.PathLike[str], *, modules: Sequence[str] | str = ()) -> Run:
    """Opens an existing run folder.

    Args:
        path: of the folder, or `zoo:NAME` for one of the trained agents that come with metarl.
        modules: modules that define the task or the agent, which are imported. A module of yours
            that the folder names is not imported otherwise, because that would execute it; name
            only modules that you trust.

    Raises:
        RunFolderError: this is no run folder, its `config.json` cannot be read, or a module lies in
            the folder.
        UnknownNameError: there is no such module, or no such name in the zoo.
        ConfigError: `path` is no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ConfigError(
            "A run is given by its folder, or as what metarl.train and metarl.load_run return; got "
            f"{kind_of(path)}."
        )
    folder = run_path(path)
    import_trusted(modules, folder)
    if not (folder / "config.json").is_file():
        raise RunFolderError(
            f"{folder} is not a run folder: it has no config.json. Give the folder printed by "
            "`metarl train`."
        )
    return Run(path=folder, config=RunConfig(**read_config(folder)))


def as_run(run: Run | str | os.PathLike[str], *, modules: Sequence[str] | str = ()) -> Run:
    """The run itself, or that in a folder; `modules` and errors are those of `load_run`."""
    if isinstance(run, Run):
        import_trusted(modules, run.path)
        return run
    return load_run(run, modules=modules)


def _parse_progress(progress: Mapping[str, Any]) -> Progress:
    """Raises `TypeError` unless these are the numbers of `Progress`, finite and not negative."""
    parsed = Progress(**progress)
    for name, kind in Progress.__annotations__.items():
        number = getattr(parsed, name)
        kinds = (int, float) if kind is float else int
        if not isinstance(number, kinds) or isinstance(number, bool) or not 0 <= number < math.inf:
            raise TypeError(f"{name} = {quoted(number)}")
    return parsed


def _require_no_links(folder: Path) -> None:
    """Raises `RunFolderError` if a file of the folder is a link, which a write could follow."""
    for path in folder.iterdir():
        if path.is_symlink():
            raise RunFolderError(
                f"{path} is a symbolic link, and training writes no file through a link. Replace "
                "it by a copy of the file that it leads to, or remove it."
            )


def require_same(run: Run, config: RunConfig) -> None:
    """Raises `RunFolderError` unless the folder's settings are those given, or fewer iterations."""
    if difference := difference_of(run.config, config):
        raise RunFolderError(
            f"{run.path} cannot be resumed with other settings: it has {difference}. Give the "
            "settings with which it was started, of which only the iterations may grow, or another "
            "--out."
        )
