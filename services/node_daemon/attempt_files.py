"""The folder of one attempt: what the shim and the daemon tell each other through files.

    lock         the shim holds an exclusive flock on it for as long as it lives
    launch.json  who the attempt is and what it holds (slot, cgroup, container); no environment
    deadline     the lease's end on CLOCK_MONOTONIC, nanoseconds; the daemon writes, the shim reads
    ctl          the shim listens here, so that a new daemon can find it
    spool        the output (spool.py)
    acked        how much of the spool the grid has; only the daemon uses it
    exit.json    how it ended: written once, synced, then renamed into place

Standard library only: the shim runs this.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
from typing import Any

LOCK, LAUNCH, DEADLINE, CTL = "lock", "launch.json", "deadline", "ctl"
SPOOL, ACKED, EXIT, ERRORS = "spool", "acked", "exit.json", "shim.err"
StrPath = str | os.PathLike[str]
_CELL = struct.Struct("<qq")


def write_cell(path: StrPath, value: int) -> None:
    """Stores one number in place. Its complement beside it shows a reader a torn write."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, _CELL.pack(value, ~value), 0)
    finally:
        os.close(fd)


def read_cell(path: StrPath) -> int | None:
    """The number last stored; None when there is none or it is being written this moment."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        data = os.pread(fd, _CELL.size, 0)
    finally:
        os.close(fd)
    if len(data) != _CELL.size:
        return None
    value, check = _CELL.unpack(data)
    return int(value) if check == ~value else None


def write_json(path: StrPath, value: dict[str, Any]) -> None:
    """Replaces the file as a whole, without syncing: for what a power cut may take."""
    temporary = f"{os.fspath(path)}.new"
    with open(temporary, "w") as file:
        json.dump(value, file)
    os.rename(temporary, path)


def write_json_durably(path: str, value: dict[str, Any]) -> None:
    """Replaces the file as a whole, on disk when it returns. `path` is relative to the cwd."""
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(value).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: StrPath) -> dict[str, Any] | None:
    """The file's object, or None when it is missing or not whole."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        with open(path, "rb") as file:
            value = json.load(file)
        return value if isinstance(value, dict) else None
    return None


def hold_lock(path: str) -> int:
    """Takes the lock for the life of this process; raises BlockingIOError if another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def is_locked(path: StrPath) -> bool:
    """Whether a shim lives. A flock dies with its process, so no pid can be mistaken for it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def wait_unlocked(path: StrPath) -> None:
    """Blocks until the shim that holds the lock is gone; for a worker thread."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        finally:
            os.close(fd)
