"""The daemon's view of an attempt's spool."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from services.node_daemon import attempt_files
from services.node_daemon.spool import LogBatch, read_blocks, valid_end


class SpoolLogs:
    """Reads what the writer appends; see `port.Logs`. A missing spool reads as an empty one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None
        self._callback: Callable[[], None] | None = None

    @property
    def acknowledged(self) -> int:
        return attempt_files.read_cell(self._folder / attempt_files.ACKED) or 0

    def read(self, offset: int, limit: int = 65536) -> LogBatch:
        fd = self._open()
        return LogBatch((), offset) if fd is None else read_blocks(fd, offset, limit)

    def valid_end(self) -> int:
        """The offset behind the last entry that can be read; for a spool nobody writes any more."""
        fd = self._open()
        return 0 if fd is None else valid_end(fd, self.acknowledged)

    def _open(self) -> int | None:
        if self._fd is None:
            with contextlib.suppress(FileNotFoundError):
                self._fd = os.open(self._folder / attempt_files.SPOOL, os.O_RDONLY | os.O_CLOEXEC)
        return self._fd

    def acknowledge(self, offset: int) -> None:
        attempt_files.write_cell(self._folder / attempt_files.ACKED, offset)

    def watch(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def wake(self) -> None:
        """Called by the attempt when its writer has said that there is more."""
        if self._callback is not None:
            self._callback()

    def close(self) -> None:
        self._callback = None
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
