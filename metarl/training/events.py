"""TensorBoard's event files, written at once and in this thread.

Curves are grouped (`rollout/`, `loss/`, `train/`, `time/`) over environment steps. The settings of
the run are a text, and the hyper-parameters of TensorBoard's tab HPARAMS.

TensorBoard's own writer works in a thread: what goes wrong there, such as a full disk, is raised
later or printed only.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.record_writer import RecordWriter

from metarl.results.files import AppendedFile
from metarl.training.leftovers import EVENTS

_VERSION = "brain.Event:2"
_GROUPS = {
    **dict.fromkeys(("first_episode_return", "last_episode_return", "trial_return"), "rollout"),
    **dict.fromkeys(("iteration", "seconds", "rollbacks"), "time"),
    **dict.fromkeys(("steps_per_second", "rollout_steps_per_second"), "time"),
}
"""groups of the metrics that every training has"""
STEPS = "env_steps"
"""the metric over which all others are drawn"""


def grouped_tag(metric: str) -> str:
    """A metric after its group: `loss/value_loss`."""
    other = "loss" if metric == "loss" or metric.endswith("_loss") else "train"
    return f"{_GROUPS.get(metric, other)}/{metric}"


def flat_settings(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The settings of a run as hyper-parameters: options of the agent by name, others as `task.x`.

    What is no number is a text.
    """
    prefixes = {"agent_options": "", "task_options": "task."}
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name in prefixes:
            flat |= {f"{prefixes[name]}{option}": chosen for option, chosen in value.items()}
        else:
            flat[name] = value
    return {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in flat.items()}


class EventFile:
    """A new file of scalars, which TensorBoard joins with the older ones in its folder."""

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        """Opens the file; events of older files from `purge_step` on are not shown any more.

        Raises:
            RunFolderError: the file cannot be written.
        """
        stamp = f"{time.time_ns():019d}"
        name = f"{EVENTS}{stamp[:10]}.{socket.gethostname()}.{os.getpid()}.{stamp[10:]}"
        self._file = AppendedFile(folder / name)
        self._records = RecordWriter(self._file)
        self._write(event_pb2.Event(wall_time=time.time(), file_version=_VERSION))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(wall_time=time.time(), step=purge_step, session_log=start))

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Adds the settings of the run, as a text and as hyper-parameters.

        Raises:
            RunFolderError: as in `write`.
        """
        flat = flat_settings(settings)
        rows = "\n".join(f"| {name} | {value} |" for name, value in flat.items())
        text = f"| setting | value |\n|---|---|\n{rows}"
        value = summary_pb2.Summary.Value(
            tag="settings/text_summary",
            metadata=text_metadata.create_summary_metadata("settings", ""),
            tensor=TensorProto(dtype="DT_STRING", string_val=[text.encode()]),
        )
        summaries = summary_pb2.Summary(value=[value]), hparams_pb(flat, trial_id="0")
        for summary in summaries:
            self._write(event_pb2.Event(wall_time=time.time(), step=0, summary=summary))

    def write(self, row: Mapping[str, float]) -> None:
        """Adds the metrics of one iteration.

        Raises:
            RunFolderError: the disk is full, or the file cannot be written.
        """
        values = [
            summary_pb2.Summary.Value(tag=grouped_tag(name), simple_value=value)
            for name, value in row.items()
            if name != STEPS
        ]
        summary = summary_pb2.Summary(value=values)
        self._write(event_pb2.Event(wall_time=time.time(), step=int(row[STEPS]), summary=summary))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: event_pb2.Event) -> None:
        self._records.write(event.SerializeToString())
