"""The home folder of a grid: who uses it, and the keys that live in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

_KEY_BYTES = 32
_SECRETS = "secrets.json"
_NAMES = ("principal", "grant", "objects", "encryption", "cursor")


class HomeInUse(Exception):
    """Another grid runs on this home; the message says which and what to do."""


class HomeUnusable(Exception):
    """The home or a file in it cannot be used; the message says why."""


class HomeLock:
    """Held for the life of the process; the kernel lets go of it however the process ends.

    The whole grid takes the home for itself. Single services share it, one process per service.
    """

    def __init__(self, home: Path, target: str) -> None:
        self._home = home
        self._target = target
        self._held: list[int] = []

    def take(self) -> None:
        """Raises HomeInUse when the home is taken."""
        try:
            if self._target == "all":
                self._lock("grid.lock", fcntl.LOCK_EX)
            else:
                self._lock("grid.lock", fcntl.LOCK_SH)
                self._lock(f"{self._target}.lock", fcntl.LOCK_EX)
        except HomeInUse:
            self.release()
            raise

    def release(self) -> None:
        """Lets others in; for tests, since the end of the process does the same."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def _lock(self, name: str, mode: int) -> None:
        path = self._home / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            os.close(descriptor)
            raise HomeInUse(
                f"{self._home} is in use by another grid (process {owner}); "
                "stop that one or set GRID_HOME to another folder"
            ) from None
        self._held.append(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def prepare(home: Path) -> Path:
    """Makes the folder, readable by its owner alone; returns its absolute path."""
    absolute = home.expanduser().absolute()
    try:
        absolute.mkdir(parents=True, exist_ok=True)
        absolute.chmod(0o700)
    except OSError as error:
        raise HomeUnusable(f"cannot use {absolute} as home: {error.strerror}") from None
    return absolute


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """Keys of 32 bytes. They exist nowhere but in `<home>/secrets.json` and in memory."""

    principal: bytes
    grant: bytes
    objects: bytes
    encryption: bytes
    cursor: bytes


def load_secrets(home: Path) -> Secrets:
    """Reads `<home>/secrets.json`, made with mode 0600 at the first start.

    Raises HomeUnusable when the file is damaged or can be read by others: data in the home was
    sealed with these keys, so they are never silently replaced.
    """
    path = home / _SECRETS
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise HomeUnusable(f"{path} can be read by others; run: chmod 600 {path}")
    try:
        found = json.loads(path.read_text())
        keys = {name: bytes.fromhex(found[name]) for name in _NAMES}
    except (ValueError, KeyError, TypeError):
        raise HomeUnusable(f"{path} is damaged; restore it from a backup") from None
    if any(len(key) != _KEY_BYTES for key in keys.values()):
        raise HomeUnusable(f"{path} is damaged; restore it from a backup")
    return Secrets(**keys)


def _make(path: Path) -> None:
    text = json.dumps({name: secrets.token_hex(_KEY_BYTES) for name in _NAMES}, indent=1)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)  # two services starting together agree on the first one's keys
    fresh.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
