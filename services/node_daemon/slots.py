"""Slots: a user id and a size-limited /workspace for one running job, made beforehand.

Making a filesystem while a job waits would cost it 25 ms and more, so slots of the usual size are
ready, and one that was used is wiped after its job, off everybody's way. Each slot has its own user
id, so two jobs that run at the same time never share one.

Three kinds, by what the machine allows; `kind` says which, and only the last has no limit:
    loop       an ext4 image on a loop device, nosuid, nodev
    tmpfs      memory, limited by size=, nosuid, nodev; what a job writes counts as its memory
    directory  a plain folder, without a limit: only where nothing can be mounted
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

from libs.errors import ResourceExhausted
from services.node_daemon import loopfs, syscalls

KINDS = ("loop", "tmpfs", "directory")
# A slot with more in it than this is formatted anew: faster, and it gives the disk blocks back.
_WIPE_ENTRIES_MAX = 256
_WIPE_BYTES_MAX = 16 * 1024 * 1024
_INODE_BYTES = 16384


class NoSlotFree(ResourceExhausted):
    """Every slot of this machine is in use."""

    reason = "NODE_SLOTS_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class Slot:
    """`uid` is also the group id. `workspace` is empty and owned by `uid` when it is acquired."""

    index: int
    uid: int
    size_bytes: int
    workspace: Path


@dataclass(frozen=True, slots=True)
class SlotConfig:
    """`mounts` must be reachable for every user (each folder above it has o+x); `images` need not.

    `uid_base` 0 derives a range from `images`, so that two daemons on a machine do not share users.
    """

    images: Path
    mounts: Path
    slots_max: int = 16
    ready: int = 4
    size_bytes: int = 1024 * 1024 * 1024
    uid_base: int = 0
    kinds: tuple[str, ...] = KINDS

    @property
    def first_uid(self) -> int:
        if self.uid_base:
            return self.uid_base
        return 200_000 + zlib.crc32(str(self.images).encode()) % 4096 * 256


class Slots:
    """The pool. Methods block (they mount, copy and delete): call them on a worker thread."""

    def __init__(self, config: SlotConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._free: dict[int, Slot | None] = dict.fromkeys(range(config.slots_max))
        self._sweeping = threading.Lock()
        self._swept = False
        self.kind = ""
        self.detail = ""

    def open(self) -> None:
        """Finds the best kind that works here. Slots of a former daemon stay until `sweep`."""
        if self.kind:
            return
        self._config.images.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._config.mounts.mkdir(parents=True, exist_ok=True)
        refused = []
        for kind in self._config.kinds:
            self.kind = kind
            try:
                probe = self._make(
                    Slot(-1, self._config.first_uid, loopfs.SIZE_BYTES_MIN, self._point(-1))
                )
                self._unmake(probe)
            except OSError as error:
                refused.append(f"{kind}: {error}")
                continue
            self.detail = "; ".join(refused)
            return
        raise OSError(f"no kind of workspace works on this machine: {'; '.join(refused)}")

    def keep(self, index: int, size_bytes: int) -> Slot:
        """Marks a slot that an adopted attempt still uses; before `sweep`."""
        with self._lock:
            self._free.pop(index, None)
        return self.slot(index, size_bytes)

    def sweep(self) -> None:
        """Removes what former daemons left in slots that nobody kept, and makes the ready ones.

        Call it when every runtime has adopted its attempts; the first `acquire` does if nobody did.
        """
        with self._sweeping:
            if not self._swept:
                self._sweep()
                self._swept = True

    def _sweep(self) -> None:
        for index in list(self._free):
            self._clear(self._point(index))
            with contextlib.suppress(FileNotFoundError):
                self._image(index).unlink()
        for index in list(self._free)[: self._config.ready]:
            self._free[index] = self._make(self.slot(index, self._config.size_bytes))

    def acquire_ready(self, size_bytes: int) -> Slot | None:
        """A slot that needs no work, or None; does not block, so it may be asked on the loop."""
        size = max(size_bytes, loopfs.SIZE_BYTES_MIN)
        with self._lock:
            for index, slot in self._free.items() if self._swept else ():
                if slot is not None and slot.size_bytes == size:
                    del self._free[index]
                    return slot
        return None

    def acquire(self, size_bytes: int) -> Slot:
        """An empty slot of `size_bytes`; raises NoSlotFree, or OSError when the disk fails."""
        size = max(size_bytes, loopfs.SIZE_BYTES_MIN)
        self.sweep()
        with self._lock:
            index = self._choose(size)
            slot = self._free.pop(index)
        if slot is not None and slot.size_bytes == size:
            return slot
        try:
            if slot is not None:
                self._unmake(slot)
            return self._make(self.slot(index, size))
        except BaseException:
            with self._lock:
                self._free[index] = None
            raise

    def release(self, slot: Slot) -> None:
        """Wipes the slot and makes it ready again; no process of its job may be left."""
        ready: Slot | None = slot
        try:
            if not self._wipe(slot):
                self._unmake(slot)
                ready = self._make(slot)
        except OSError:
            ready = None  # it is made anew when it is next needed; nothing of the old job stays
            with contextlib.suppress(OSError):
                self._unmake(slot)
        with self._lock:
            self._free[slot.index] = ready

    def close(self) -> None:
        """Unmounts the free slots; those of running attempts stay."""
        with self._lock:
            slots = [slot for slot in self._free.values() if slot is not None]
            self._free = dict.fromkeys(self._free)
        for slot in slots:
            with contextlib.suppress(OSError):
                self._unmake(slot)

    @property
    def limited(self) -> bool:
        """Whether a job can fill no more than its own slot."""
        return self.kind != "directory"

    @property
    def first_uid(self) -> int:
        return self._config.first_uid

    @property
    def free(self) -> int:
        """How many more jobs could run now."""
        return len(self._free)

    def _choose(self, size: int) -> int:
        """Same size first, then one not made yet, then any: that one is formatted anew."""
        if not self._free:
            raise NoSlotFree(
                f"all {self._config.slots_max} slots of this node are in use; retry when a job ends"
            )
        fits = (index for index, slot in self._free.items() if slot and slot.size_bytes == size)
        empty = (index for index, slot in self._free.items() if slot is None)
        return next(fits, next(empty, next(iter(self._free))))

    def slot(self, index: int, size: int) -> Slot:
        """How slot `index` looks when it has this size, whoever has it now."""
        return Slot(index, self._config.first_uid + index, size, self._point(index))

    def _point(self, index: int) -> Path:
        return self._config.mounts / f"slot{index}"

    def _image(self, index: int) -> Path:
        return self._config.images / f"slot{index}.ext4"

    def _make(self, slot: Slot) -> Slot:
        slot.workspace.mkdir(exist_ok=True)
        if self.kind == "loop":
            image = self._image(slot.index)
            loopfs.copy_sparse(self._template(slot.size_bytes), image)
            loopfs.mount_image(image, slot.workspace)
        elif self.kind == "tmpfs":
            inodes = max(slot.size_bytes // _INODE_BYTES, 64)
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
            options = f"size={slot.size_bytes},nr_inodes={inodes}"
            syscalls.mount("jg-slot", str(slot.workspace), "tmpfs", flags, options)
        self._own(slot)
        return slot

    def _own(self, slot: Slot) -> None:
        slot.workspace.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(slot.workspace, slot.uid, slot.uid)

    def _template(self, size: int) -> Path:
        path = self._config.images / f"template-{loopfs.FORMAT}-{size}.ext4"
        with self._lock:
            if not path.exists():
                loopfs.format_template(path, size)
        return path

    def _unmake(self, slot: Slot) -> None:
        self._clear(slot.workspace)
        with contextlib.suppress(FileNotFoundError):
            self._image(slot.index).unlink()

    def _clear(self, point: Path) -> None:
        loopfs.unmount_all(point)
        if str(point) in loopfs.mounted_below(point.parent):
            loopfs.unmount_now(str(point))
        if point.exists():
            # Not shutil.rmtree: a job can nest folders deeper than Python can recurse.
            command = ["rm", "-rf", "--one-file-system", "--", str(point)]
            subprocess.run(command, check=True, capture_output=True)

    def _wipe(self, slot: Slot) -> bool:
        """Empties a slot that has little in it; False when making it anew is the better way."""
        if self.kind == "directory":
            return False
        stat = os.statvfs(slot.workspace)
        used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        if used > _WIPE_BYTES_MAX or not _few_entries(slot.workspace):
            return False
        for entry in os.scandir(slot.workspace):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        self._own(slot)
        return True


def _few_entries(folder: Path) -> bool:
    """Stops counting early: a job may leave a million files, or folders a thousand deep."""
    count = 0
    todo = [(str(folder), 0)]
    while todo:
        path, depth = todo.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                count += 1
                if count > _WIPE_ENTRIES_MAX or depth > 16:
                    return False
                if entry.is_dir(follow_symlinks=False):
                    todo.append((entry.path, depth + 1))
    return True
