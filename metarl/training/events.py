"""TensorBoard's event files, written at once and in this thread.

TensorBoard's own writer works in a thread: what goes wrong there, such as a full disk, is raised
later or printed only.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from metarl.results.files import AppendedFile
from metarl.training.leftovers import EVENTS

_VERSION = "brain.Event:2"


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

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Adds the scalars of one step.

        Raises:
            RunFolderError: the disk is full, or the file cannot be written.
        """
        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in scalars.items()
        ]
        summary = summary_pb2.Summary(value=values)
        self._write(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: event_pb2.Event) -> None:
        self._records.write(event.SerializeToString())
