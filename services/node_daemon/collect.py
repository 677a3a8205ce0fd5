"""Collects the files a job left under its artifacts folder, trusting nothing about them.

Names are resolved by the kernel below the folder only, without following any link and without
leaving the filesystem; what is opened is then checked by its descriptor. Collected files stay open
until the collection is closed, so that nothing can be swapped between this check and the upload.
What is not collected is listed with its reason: a file never disappears silently.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from services.node_daemon import syscalls

_RESOLVE = (
    syscalls.RESOLVE_BENEATH
    | syscalls.RESOLVE_NO_SYMLINKS
    | syscalls.RESOLVE_NO_MAGICLINKS
    | syscalls.RESOLVE_NO_XDEV
)
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY
_NAME_BYTES_MAX = 1024
_REFUSALS_MAX = 100


class Refused(StrEnum):
    """Why a file was not collected."""

    NOT_REGULAR = "not_a_regular_file"
    SYMLINK = "symbolic_link"
    HARD_LINK = "hard_link"
    TOO_DEEP = "too_deep"
    TOO_MANY = "too_many_files"
    TOO_LARGE = "file_too_large"
    TOTAL_TOO_LARGE = "total_too_large"
    BAD_NAME = "name_not_allowed"
    UNREADABLE = "could_not_be_opened"


@dataclass(frozen=True, slots=True)
class CollectLimits:
    """The upload's bounds. `files_max` is also a number of open descriptors."""

    files_max: int = 256
    depth_max: int = 16
    file_bytes_max: int = 5 * 1024**3
    total_bytes_max: int = 20 * 1024**3
    entries_max: int = 20_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """`path` is for people: control characters and broken UTF-8 are escaped in it."""

    path: str
    reason: Refused


class FileChanged(OSError):
    """The file is not as long any more as it was when it was collected."""


@dataclass(frozen=True, slots=True)
class CollectedFile:
    """`name` is relative to the folder, with `/`, normalised (NFC). `size` is in bytes."""

    name: str
    size: int
    fd: int

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`, never past the size it was collected with; blocks on the disk."""
        want = min(size, self.size - offset)
        data = os.pread(self.fd, want, offset) if want > 0 else b""
        if want > 0 and not data:
            raise FileChanged(f"{self.name} became shorter while it was read")
        return data

    def chunks(self, size: int = 1024 * 1024) -> Iterator[bytes]:
        """The whole file, in pieces."""
        offset = 0
        while offset < self.size:
            data = self.read(offset, size)
            offset += len(data)
            yield data


@dataclass(frozen=True, slots=True)
class Collection:
    """Open files by name; leaving the context closes them. From 100 on, refusals are counted."""

    files: tuple[CollectedFile, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    refusals_more: int = 0

    def close(self) -> None:
        for file in self.files:
            os.close(file.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def collect(folder: Path, limits: CollectLimits | None = None) -> Collection:
    """Opens what may be collected below `folder`; empty when it does not exist. Blocks."""
    walk = _Walk(limits or CollectLimits())
    try:
        root = os.open(folder, _OPEN_FOLDER | os.O_CLOEXEC)
    except FileNotFoundError:
        return Collection()
    except OSError:
        return Collection((), (Refusal(folder.name, Refused.NOT_REGULAR),))
    try:
        walk.run(root)
    except BaseException:
        walk.result().close()
        raise
    finally:
        os.close(root)
    return walk.result()


class _Walk:
    def __init__(self, limits: CollectLimits) -> None:
        self._limits = limits
        self._files: dict[str, CollectedFile] = {}
        self._refusals: list[Refusal] = []
        self._refused = 0
        self._seen = 0
        self._total = 0

    def run(self, root: int) -> None:
        """Depth first, one folder open at a time, each opened from the root by the safe call."""
        todo: list[tuple[bytes, ...]] = [()]
        while todo:
            path = todo.pop()
            for name, kind in self._entries(root, path):
                if self._seen >= self._limits.entries_max:
                    self._refuse((*path, name), Refused.TOO_MANY)
                    return
                self._seen += 1
                inner = self._visit(root, (*path, name), kind)
                if inner is not None:
                    todo.append(inner)

    def result(self) -> Collection:
        files = tuple(self._files[name] for name in sorted(self._files))
        more = self._refused - len(self._refusals)
        return Collection(files, tuple(self._refusals), more)

    def _entries(self, root: int, path: tuple[bytes, ...]) -> list[tuple[bytes, int]]:
        """Names with the type the folder claims; at most as many as may still be looked at."""
        try:
            fd = syscalls.openat2(root, b"/".join(path) or b".", _OPEN_FOLDER, _RESOLVE)
        except OSError:
            self._refuse(path, Refused.UNREADABLE)
            return []
        found: list[tuple[bytes, int]] = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    found.append((os.fsencode(entry.name), _kind(entry)))
                    if len(found) > self._limits.entries_max:
                        break
        finally:
            os.close(fd)
        return sorted(found)

    def _visit(self, root: int, path: tuple[bytes, ...], kind: int) -> tuple[bytes, ...] | None:
        """A folder to go into, or None when the entry was dealt with."""
        if kind == stat.S_IFDIR:
            if len(path) > self._limits.depth_max:
                self._refuse(path, Refused.TOO_DEEP)
                return None
            return path
        if kind == stat.S_IFLNK:
            self._refuse(path, Refused.SYMLINK)
        elif kind != stat.S_IFREG:
            self._refuse(path, Refused.NOT_REGULAR)
        else:
            self._take(root, path)
        return None

    def _take(self, root: int, path: tuple[bytes, ...]) -> None:
        name = normal_name(path)
        if name is None or name in self._files:
            self._refuse(path, Refused.BAD_NAME)
            return
        if len(self._files) >= self._limits.files_max:
            self._refuse(path, Refused.TOO_MANY)
            return
        try:
            fd = syscalls.openat2(root, b"/".join(path), _OPEN_FILE, _RESOLVE)
        except OSError:
            self._refuse(path, Refused.UNREADABLE)
            return
        info = os.fstat(fd)
        refused = self._judge(info)
        if refused is not None:
            os.close(fd)
            self._refuse(path, refused)
            return
        self._total += info.st_size
        self._files[name] = CollectedFile(name, info.st_size, fd)

    def _judge(self, info: os.stat_result) -> Refused | None:
        """About the open file itself, whatever its folder said of it."""
        if not stat.S_ISREG(info.st_mode):
            return Refused.NOT_REGULAR
        if info.st_nlink != 1:
            return Refused.HARD_LINK
        if info.st_size > self._limits.file_bytes_max:
            return Refused.TOO_LARGE
        if self._total + info.st_size > self._limits.total_bytes_max:
            return Refused.TOTAL_TOO_LARGE
        return None

    def _refuse(self, path: tuple[bytes, ...], reason: Refused) -> None:
        self._refused += 1
        if len(self._refusals) < _REFUSALS_MAX:
            self._refusals.append(Refusal(_shown(path), reason))


def normal_name(path: tuple[bytes, ...]) -> str | None:
    """The public name of a path below the folder; None when it may not have one.

    Refused: broken UTF-8, control and format characters (bidi overrides among them), backslashes,
    `.` and `..`, leading or trailing spaces in a part, and names of more than 1,024 bytes.
    """
    parts = []
    for raw in path:
        try:
            part = unicodedata.normalize("NFC", raw.decode())
        except UnicodeDecodeError:
            return None
        if part in ("", ".", "..") or part != part.strip() or "\\" in part or "/" in part:
            return None
        if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in part):
            return None
        parts.append(part)
    name = "/".join(parts)
    return name if len(name.encode()) <= _NAME_BYTES_MAX else None


def _shown(path: tuple[bytes, ...]) -> str:
    text = b"/".join(path)[:_NAME_BYTES_MAX].decode(errors="backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def _kind(entry: os.DirEntry[str]) -> int:
    try:
        return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)
    except OSError:
        return 0
