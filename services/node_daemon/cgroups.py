"""Control groups of one attempt, on any of the three kinds of tree a machine may have.

    v2      one tree with all controllers
    v1      one tree per controller
    hybrid  v1 trees for the controllers, and a v2 tree without them beside (it can still kill)

`detect` reads which kind this is; a `Group` is the same named folder in each tree that is needed.
Standard library only: the shim makes and ends the group.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from typing import Any, NamedTuple

CONTROLLERS = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
_UNIFIED = "unified"  # our name for the v2 tree, whatever it is mounted as


class Layout(NamedTuple):
    """Where the trees are. `trees`: controller, or `unified`, to a folder for groups."""

    kind: str
    trees: dict[str, str]
    missing: tuple[str, ...]

    def group(self, name: str) -> Group:
        """The attempt's group; several controllers may share one tree, so folders are unique."""
        return Group(self.kind, {key: f"{base}/{name}" for key, base in self.trees.items()})

    def without_trees(self) -> Layout:
        """What is left for a user who may make no groups."""
        return Layout(self.kind, {}, CONTROLLERS)


class Limits(NamedTuple):
    """0 is no limit."""

    memory_bytes: int
    pids_max: int
    cpu_millis: int


class Usage(NamedTuple):
    """What the group's processes did. 0 where the tree does not count it."""

    oom_kills: int
    memory_peak_bytes: int
    cpu_nanoseconds: int


class Group:
    """One attempt's folders. Every method is safe on a group that is partly or wholly gone."""

    def __init__(self, kind: str, folders: dict[str, str]) -> None:
        self.kind = kind
        self.folders = folders

    @staticmethod
    def from_json(value: dict[str, Any]) -> Group:
        return Group(value["kind"], dict(value["folders"]))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "folders": self.folders}

    def create(self, limits: Limits) -> None:
        """Makes the folders and sets the limits, before any process joins."""
        for folder in self._unique():
            os.makedirs(folder, exist_ok=True)
        if limits.memory_bytes:
            self._limit_memory(limits.memory_bytes)
        if limits.pids_max:
            self._write("pids", "pids.max", str(limits.pids_max))
        if limits.cpu_millis:
            self._limit_cpu(limits.cpu_millis)

    def join(self) -> None:
        """Moves the calling process (and what it forks from now on) into the group."""
        for folder in self._unique():
            fd = os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, b"0")
            os.close(fd)

    def processes(self) -> list[int]:
        """Process ids now in the group."""
        folder = self.folders.get("pids") or self.folders.get(_UNIFIED)
        text = _read(f"{folder}/cgroup.procs") if folder else ""
        return [int(line) for line in text.split() if line != "0"]

    def signal(self, number: int, spare: int) -> None:
        """Sends a signal to each process but `spare`; a pid that was reused meanwhile is left."""
        for pid in self.processes():
            if pid != spare:
                self._signal_one(pid, number)

    def kill(self, timeout_seconds: float = 5.0) -> bool:
        """SIGKILL for all, until none is left; False if some outlast the timeout."""
        killed = self._write(_UNIFIED, "cgroup.kill", "1")
        deadline = time.monotonic() + timeout_seconds
        pause = 0.0005
        while left := self.processes():
            if time.monotonic() > deadline:
                return False
            if not killed:
                # A fork bomb cannot outrun the list once it may not fork any more.
                self._write("pids", "pids.max", "0")
                for pid in left:
                    self._signal_one(pid, signal.SIGKILL)
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        return True

    def usage(self) -> Usage:
        memory = self.folders.get("memory", "")
        if self.kind == "v2":
            events = _pairs(_read(f"{memory}/memory.events"))
            cpu = _pairs(_read(f"{self.folders.get('cpu', '')}/cpu.stat")).get("usage_usec", 0)
            peak = _number(_read(f"{memory}/memory.peak"))
            return Usage(events.get("oom_kill", 0), peak, cpu * 1000)
        control = _pairs(_read(f"{memory}/memory.oom_control"))
        peak = _number(_read(f"{memory}/memory.max_usage_in_bytes"))
        unified = _pairs(_read(f"{self.folders.get(_UNIFIED, '')}/cpu.stat"))
        return Usage(control.get("oom_kill", 0), peak, unified.get("usage_usec", 0) * 1000)

    def remove(self) -> None:
        """Removes the folders; the group must be empty. A folder that is still busy is left."""
        for folder in self._unique():
            for _ in range(20):
                try:
                    os.rmdir(folder)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        break
                    time.sleep(0.002)
                else:
                    break

    def _limit_memory(self, size: int) -> None:
        if self.kind == "v2":
            self._write("memory", "memory.max", str(size))
            self._write("memory", "memory.swap.max", "0")
            return
        self._write("memory", "memory.limit_in_bytes", str(size))
        self._write("memory", "memory.memsw.limit_in_bytes", str(size))

    def _limit_cpu(self, millis: int) -> None:
        quota = max(millis * _PERIOD_US // 1000, 1000)
        if self.kind == "v2":
            self._write("cpu", "cpu.max", f"{quota} {_PERIOD_US}")
            return
        self._write("cpu", "cpu.cfs_period_us", str(_PERIOD_US))
        self._write("cpu", "cpu.cfs_quota_us", str(quota))

    def _signal_one(self, pid: int, number: int) -> None:
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        try:
            if pid in self.processes():  # the pid still means the process that was listed
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)

    def _unique(self) -> list[str]:
        return list(dict.fromkeys(self.folders.values()))

    def _write(self, tree: str, name: str, value: str) -> bool:
        """False when this tree or file does not exist here (no swap accounting, say)."""
        folder = self.folders.get(tree)
        if folder is None:
            return False
        try:
            fd = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
        return True


def detect(mountinfo: str, parent: str) -> Layout:
    """Reads the kind of tree from the text of /proc/self/mountinfo.

    Groups go below `parent` (a relative name) at the top of each mounted tree.
    """
    mounts = _mounts(mountinfo)
    v1 = {c: m for m in mounts if m.kind == "cgroup" for c in CONTROLLERS if c in m.options}
    v2 = next((m for m in mounts if m.kind == "cgroup2"), None)
    if v2 is not None and not v1:
        base = f"{v2.point}/{parent}"
        return Layout("v2", dict.fromkeys((*CONTROLLERS, _UNIFIED), base), ())
    trees = {name: f"{found.point}/{parent}" for name, found in v1.items()}
    missing = tuple(name for name in CONTROLLERS if name not in trees)
    if v2 is not None:
        return Layout("hybrid", {**trees, _UNIFIED: f"{v2.point}/{parent}"}, missing)
    return Layout("v1" if v1 else "none", trees, missing)


def prepare(layout: Layout) -> Layout:
    """Makes the parent folders; on v2 hands the controllers down. What fails is in `missing`."""
    missing = list(layout.missing)
    for folder in dict.fromkeys(layout.trees.values()):
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError:
            missing += [name for name, base in layout.trees.items() if base == folder]
    if layout.kind == "v2" and not missing:
        missing = _delegate(layout.trees[_UNIFIED])
    trees = {name: base for name, base in layout.trees.items() if name not in missing}
    return Layout(layout.kind, trees, tuple(name for name in missing if name != _UNIFIED))


def _delegate(folder: str) -> list[str]:
    """Enables each controller in `folder`'s parent and in `folder`; the names of those refused.

    A v2 group with processes of its own may not hand controllers down. In a container the top
    group is such a one: then this process moves itself into a leaf first.
    """
    refused = []
    for name in CONTROLLERS:
        try:
            _enable(os.path.dirname(folder), name)
            _enable(folder, name)
        except OSError:
            refused.append(name)
    return refused


def _enable(folder: str, name: str) -> None:
    control = f"{folder}/cgroup.subtree_control"
    if name in _read(control).split():
        return
    try:
        _put(control, f"+{name}")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        os.makedirs(f"{folder}/daemon", exist_ok=True)
        _put(f"{folder}/daemon/cgroup.procs", "0")
        _put(control, f"+{name}")


def _put(path: str, value: str) -> None:
    with open(path, "w") as file:
        file.write(value)


class _Mount(NamedTuple):
    point: str
    kind: str
    options: tuple[str, ...]


def _mounts(mountinfo: str) -> list[_Mount]:
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, rest = right.partition(" ")
        if kind in ("cgroup", "cgroup2"):
            options = tuple(rest.split()[-1].split(","))
            found.append(_Mount(left.split()[4].replace("\\040", " "), kind, options))
    return found


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _pairs(text: str) -> dict[str, int]:
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
