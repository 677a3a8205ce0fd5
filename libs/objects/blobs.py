"""Objects as files, synchronously. Every file is written aside, synced, renamed and never changed.

An object is one file: its bytes, then a small JSON trailer (sha256, content type), then the
trailer's length and a mark. So bytes and their description appear in one rename, and a hard link
is a whole copy. `~` ends a file's name, which no key contains, so `a` and `a/b` can both exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import orjson

from libs import failpoints
from libs.objects.port import ObjectChanged, ObjectExists, ObjectInfo, ObjectMissing, is_final

_MARK = b"jgo1"
_FOOTER = struct.Struct(">I4s")
_TRAILER_MAX = 4_096
_LEFTOVER_SECONDS = 24 * 3600
_PUT_TRIES = 100
_AFTER_RENAME = failpoints.register(
    "objects.after_rename", "an object is in place, its folder is not synced and nobody was told"
)


class Blobs:
    """The folder of a file store."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._aside = root / "tmp"
        self._used = root / "used"

    def open(self) -> None:
        """Makes the folders and removes what crashed uploads and old single-use marks left."""
        for folder in (self._objects, self._aside, self._used):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_folder(folder.parent)
        oldest = time.time() - _LEFTOVER_SECONDS
        for folder in (self._aside, self._used):
            for path in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < oldest:
                        path.unlink()

    def create(self) -> Upload:
        """A file aside, to be filled and then placed."""
        return Upload(self._aside / secrets.token_hex(16))

    def place(self, upload: Upload, key: str, single_use_id: str = "") -> ObjectInfo:
        """Puts a sealed upload under `key`, durably. Raises ObjectExists."""
        assert upload.info is not None
        target, info = self._path(key), upload.info
        if is_final(key):
            _put(target, lambda: self._link(upload.path, target, info))
        elif self._unused(single_use_id, key, info):
            _put(target, lambda: upload.path.rename(target))
            self._mark_used(single_use_id)
        _AFTER_RENAME.hit()
        _sync_placed(target.parent)
        upload.discard()
        return _named(upload.info, key)

    def copy(self, source: str, target: str, etag: str) -> ObjectInfo:
        """See Objects.copy."""
        held = self._aside / secrets.token_hex(16)
        try:
            # A name of our own: what is checked here is what is linked below, whatever comes.
            os.link(self._path(source), held)
        except FileNotFoundError:
            raise ObjectMissing("the object to copy is not there") from None
        try:
            with held.open("rb") as file:
                info = read_info(file, source)
            if info.etag != etag:
                raise ObjectChanged("the object has changed since it was looked at")
            path = self._path(target)
            _put(path, lambda: self._link(held, path, info))
            _AFTER_RENAME.hit()
            _sync_placed(path.parent)
        finally:
            held.unlink(missing_ok=True)
        return _named(info, target)

    def info(self, key: str) -> ObjectInfo | None:
        """What is under `key`."""
        try:
            with self._path(key).open("rb") as file:
                return read_info(file, key)
        except FileNotFoundError:
            return None

    def open_object(self, key: str) -> tuple[BinaryIO, ObjectInfo]:
        """The file, at its start, and its description. Raises ObjectMissing."""
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError:
            raise ObjectMissing("there is no such object") from None
        try:
            info = read_info(file, key)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file, info

    def delete(self, key: str) -> None:
        """Removes `key`, and folders that are empty then."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for folder in path.parents:
                if folder == self._objects:
                    break
                folder.rmdir()

    def walk(self, prefix: str) -> Iterator[str]:
        """All keys that start with `prefix`, in no order."""
        base = self._objects / prefix.rpartition("/")[0]
        for folder, _, names in os.walk(base):
            inside = Path(folder).relative_to(self._objects).as_posix()
            for name in names:
                key = name[:-1] if inside == "." else f"{inside}/{name[:-1]}"
                if key.startswith(prefix):
                    yield key

    def _path(self, key: str) -> Path:
        return self._objects / f"{key}~"

    def _link(self, held: Path, target: Path, info: ObjectInfo) -> None:
        try:
            os.link(held, target)
        except FileExistsError:
            with target.open("rb") as file:
                if read_info(file, info.key).sha256 != info.sha256:
                    raise ObjectExists("the final key already holds other bytes") from None

    def _unused(self, single_use_id: str, key: str, info: ObjectInfo) -> bool:
        """False when this very upload has been made before, so that a client who did not hear the
        answer may repeat it. The mark is set after the rename: a crash in between leaves an upload
        that can be made again, not one that cannot be made."""
        if not single_use_id or not self._used_path(single_use_id).exists():
            return True
        present = self.info(key)
        if present is None or present.sha256 != info.sha256:
            raise ObjectExists("this upload has been made already; ask for a new upload slot")
        return False

    def _mark_used(self, single_use_id: str) -> None:
        if single_use_id:
            self._used_path(single_use_id).touch(mode=0o600)

    def _used_path(self, single_use_id: str) -> Path:
        return self._used / hashlib.sha256(single_use_id.encode()).hexdigest()


class Upload:
    """Bytes on their way into the store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.info: ObjectInfo | None = None
        self._hash = hashlib.sha256()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, data: bytes) -> None:
        """Appends."""
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self.size += len(data)

    def seal(self, content_type: str) -> None:
        """Describes the bytes and forces them to the disk."""
        sha256 = self._hash.hexdigest()
        trailer = orjson.dumps({"sha256": sha256, "content_type": content_type})
        self._file.write(trailer + _FOOTER.pack(len(trailer), _MARK))
        os.fsync(self._file.fileno())
        self._file.close()
        self.info = ObjectInfo(self.size, sha256, sha256, content_type)

    def discard(self) -> None:
        """Removes the file aside, placed or not."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def read_info(file: BinaryIO, key: str) -> ObjectInfo:
    """The description at the end of an object's file."""
    end = file.seek(0, os.SEEK_END)
    if end < _FOOTER.size:
        raise OSError(f"object {key} is damaged: no footer")
    file.seek(end - _FOOTER.size)
    length, mark = _FOOTER.unpack(file.read(_FOOTER.size))
    if mark != _MARK or length > min(_TRAILER_MAX, end - _FOOTER.size):
        raise OSError(f"object {key} is damaged: bad footer")
    size = end - _FOOTER.size - length
    file.seek(size)
    trailer = orjson.loads(file.read(length))
    return ObjectInfo(size, trailer["sha256"], trailer["sha256"], trailer["content_type"], key)


def _named(info: ObjectInfo, key: str) -> ObjectInfo:
    return ObjectInfo(info.size, info.etag, info.sha256, info.content_type, key)


def _make_folders(folder: Path) -> None:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(path.parent)


def _put(target: Path, act: Callable[[], object]) -> None:
    """Runs `act`, which makes `target`, in folders that are there. A delete elsewhere takes empty
    folders away, also between the two; then it is done again."""
    for _ in range(_PUT_TRIES):
        with contextlib.suppress(FileNotFoundError):
            _make_folders(target.parent)
            act()
            return
    raise OSError(f"the folder of {target.name} keeps vanishing")


def _sync_placed(folder: Path) -> None:
    # Gone with its last file: whoever deleted the object in between had the last word.
    with contextlib.suppress(FileNotFoundError):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
