"""Writing a graph of torch.export as a file of ONNX, for runtimes without torch; an extra."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from metarl.errors import ConfigError
from metarl.extras import require_extra
from metarl.results.reading import shortened
from metarl.trajectory import Percept

_PERCEPT = [field.name for field in fields(Percept)]


def require_onnx() -> None:
    """Raises `ConfigError` unless the packages are installed with which torch writes ONNX."""
    for package in ("onnx", "onnxscript"):
        require_extra(
            package,
            "onnx",
            f"A file of ONNX needs the package {package}",
            otherwise="A file with the ending .pt2 needs no other package.",
        )


def write_onnx(graph: torch.export.ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """Writes an acting step.

    Inputs are the fields of a `Percept` by name, then `memory_0`, ...; outputs are `dist_params`,
    `likeliest_action` and `next_memory_0`, ...

    Args:
        graph: of an `ActingStep`.
        path: of the file.
        metadata: texts that the file holds, by name.

    Raises:
        ConfigError: ONNX has no operation for a part of the graph.
    """
    parts = range(len(graph.graph_signature.user_inputs) - len(_PERCEPT))
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                graph,
                dynamo=True,
                verbose=False,
                input_names=[*_PERCEPT, *(f"memory_{part}" for part in parts)],
                output_names=[
                    *("dist_params", "likeliest_action"),
                    *(f"next_memory_{part}" for part in parts),
                ],
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ConfigError(
            f"ONNX cannot hold this agent: {shortened(error)} Export it with the ending .pt2, or "
            "use it with metarl.load_policy."
        ) from error
    program.model.metadata_props.update(metadata)
    program.save(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within it torch says nothing of packages that are missing, and of its own old functions."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)
