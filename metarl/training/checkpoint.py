"""One checkpoint: a file of tensors and JSON, whose checksum is compared when it is read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from metarl.errors import CheckpointError
from metarl.results.reading import quoted, shortened
from metarl.results.run_config import FORMAT, FORMATS, is_newer

CHECKPOINT_FILE = "checkpoint.safetensors"
"""name of the newest one inside a run folder"""
_ENTRIES = ("config", "progress")


class BrokenCheckpointError(CheckpointError):
    """A file is no checkpoint, or not the one that was written: truncated, edited, or decayed."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint holds."""

    state: Mapping[str, Tensor]
    """of the agent"""
    config: Mapping[str, Any]
    """settings of the run that wrote it"""
    progress: Mapping[str, Any]
    """of that run"""

    def to_bytes(self) -> bytes:
        """The content of the file."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state.items()}
        metadata = {
            "format": FORMAT,
            "config": json.dumps(self.config, sort_keys=True),
            "progress": json.dumps(self.progress),
        }
        return save(state, {**metadata, "checksum": _checksum(state, metadata)})


def checkpoint_paths(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first: checkpoint, checkpoint.1, checkpoint.2, ..."""
    stem, _, suffix = CHECKPOINT_FILE.rpartition(".")
    older = {}
    for path in folder.glob(f"{stem}.*.{suffix}"):
        number = path.name.removeprefix(f"{stem}.").removesuffix(f".{suffix}")
        if number.isdecimal():
            older[int(number)] = path
    newest = folder / CHECKPOINT_FILE
    return [newest] * newest.is_file() + [older[number] for number in sorted(older)]


def move_older(newest: Path, keep: int) -> None:
    """Makes room for a new checkpoint: each takes the number of the one before it.

    The newest is moved last, so at least one complete checkpoint is there at every moment.

    Args:
        newest: path of the newest one, which is not there afterwards.
        keep: number of checkpoints to keep, the new one included.
    """
    names = [newest, *(newest.with_suffix(f".{n}{newest.suffix}") for n in range(1, keep))]
    for path in checkpoint_paths(newest.parent):
        if path not in names:  # more were kept before
            path.unlink()
    free = next((n for n, path in enumerate(names) if not path.exists()), keep - 1)
    for number in range(free, 0, -1):
        names[number - 1].replace(names[number])


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint; executes no code.

    Raises:
        BrokenCheckpointError: truncated, altered, or of another program.
        CheckpointError: of a newer version of metarl.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
        state = load_file(path)
    except (safetensors.SafetensorError, OSError, RuntimeError, MemoryError) as error:
        raise BrokenCheckpointError(
            f"The checkpoint {path} cannot be read ({shortened(error)}): it is truncated or not a "
            "safetensors file. Continue its run with --resume, which falls back to an older "
            "checkpoint, or restore it from a copy."
        ) from error
    written_by = metadata.get("format")
    if is_newer(written_by):
        raise CheckpointError(
            f"{path} has format {quoted(written_by)}, of a newer version of metarl; this version "
            f"reads up to {FORMAT!r}. Update metarl-suite."
        )
    if written_by not in FORMATS or not metadata.keys() >= set(_ENTRIES):
        raise BrokenCheckpointError(
            f"{path} is a safetensors file, but not a checkpoint of a metarl run (format "
            f"{quoted(written_by)}, expected {FORMAT!r})."
        )
    _require_checksum(path, state, metadata)
    return Checkpoint(state=state, **{name: _mapping(path, name, metadata) for name in _ENTRIES})


def _require_checksum(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    found = metadata.pop("checksum", None)
    if found is None and metadata["format"] != FORMAT:
        return  # earlier formats have none
    if found != _checksum(state, metadata):
        raise BrokenCheckpointError(
            f"The checkpoint {path} was altered after it was written: its content does not have "
            "the checksum in it. Continue its run with --resume, which falls back to an older "
            "checkpoint, or restore it from a copy."
        )


def _mapping(path: Path, name: str, metadata: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        content = json.loads(metadata[name])
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, Mapping):
        raise BrokenCheckpointError(
            f"The checkpoint {path} has no readable {name}; it was edited or has decayed."
        )
    return content


def _checksum(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of metadata, names, types, shapes and content, whatever their order in the file."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
