"""The sandboxed program: bwrap, in a child that was parked beforehand (shim_parked.py)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from typing import Any

from services.node_daemon.cgroups import Limits
from services.node_daemon.shim_child import Child, ChildOutcome, Output, Watcher, exit_signal
from services.node_daemon.shim_parked import Parked
from services.node_daemon.spool import STDERR, STDOUT

_READ_BYTES = 64 * 1024
_DRAIN_SECONDS = 5.0
_ORDER = ("bwrap", "options", "argv", "uid", "gid", "seccomp", "rlimits")


class SandboxChild(Child):
    """bwrap and all it holds."""

    def __init__(self, spec: dict[str, Any], output: Output, parked: Parked | None) -> None:
        if parked is None:
            raise ValueError("a sandboxed program needs a seat with a parked child")
        self._spec = spec
        self._output = output
        self._parked = parked
        self._group = parked.group
        self._pid = -1
        self._ended: int | None = None
        self._status = b""
        self._error_head = b""
        self._failure = ""
        self._open: set[int] = set()
        self._pipes: dict[int, int] = {}

    def start(self, watcher: Watcher) -> None:
        self._watcher = watcher
        parked, spec = self._parked, self._spec
        parked.go(Limits(**spec["limits"]), {name: spec[name] for name in _ORDER})
        self._pid = parked.pid
        out_read, err_read, status_read = parked.out, parked.err, parked.status
        failure_read = parked.failure
        self._pipes = {out_read: STDOUT, err_read: STDERR}
        ended = os.pidfd_open(self._pid)
        self._open = {out_read, err_read, status_read, failure_read, ended}
        watcher.watch(out_read, lambda: self._read(out_read))
        watcher.watch(err_read, lambda: self._read(err_read))
        watcher.watch(status_read, lambda: self._read_status(status_read))
        watcher.watch(failure_read, lambda: self._read_failure(failure_read))
        watcher.watch(ended, lambda: self._reap(ended))

    def terminate(self) -> None:
        """To all processes but bwrap's own two: the outer one would take the job down at once, and
        the inner one, the namespace's first, is deaf to SIGTERM by the kernel's rule."""
        if self._group.processes():
            self._group.signal(signal.SIGTERM, spare=self._pid)
            return
        for pid in _descendants(self._pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        if self._pid > 0 and self._ended is None:
            with contextlib.suppress(OSError):
                os.kill(self._pid, signal.SIGKILL)
        self._group.kill()

    def finish(self) -> ChildOutcome:
        self._group.kill()
        usage = self._group.usage()
        assert self._ended is not None
        status = [json.loads(line) for line in self._status.splitlines() if line]
        told = next((row["exit-code"] for row in status if "exit-code" in row), None)
        code = self._ended if self._ended >= 0 else 128 - self._ended
        peak, cpu = usage.memory_peak_bytes, usage.cpu_nanoseconds
        if self._failure:
            return ChildOutcome(None, failed=f"the sandbox could not be set up: {self._failure}")
        if told is None and self._ended > 0:
            text = self._error_head.decode(errors="replace").strip()
            if text.startswith("bwrap: execvp"):
                return ChildOutcome(127, None, False, peak, cpu)
            return ChildOutcome(None, failed=f"the sandbox could not be set up: {text}")
        oom = usage.oom_kills > 0 and code != 0
        return ChildOutcome(code, exit_signal(code), oom, peak, cpu)

    def tick(self, now_ns: int) -> None:
        """After the program's end its pipes end too; one that does not is given up in time."""
        if self.next_moment_ns is not None and now_ns >= self.next_moment_ns:
            self.next_moment_ns = None
            self.done = True

    def clean(self) -> None:
        self._group.remove()

    def _read(self, fd: int) -> None:
        """One read a turn: a flood on one stream starves neither the other nor the lease."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._close(fd)
            return
        stream = self._pipes[fd]
        if stream == STDERR and len(self._error_head) < 1024:
            self._error_head += data[:1024]
        self._output(stream, data)

    def _read_status(self, fd: int) -> None:
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return
        if data:
            self._status += data
            self.running = True
        else:
            self._close(fd)

    def _read_failure(self, fd: int) -> None:
        """Nothing at all means that bwrap was started."""
        self._failure += os.read(fd, 4096).decode(errors="replace")
        self._close(fd)

    def _reap(self, fd: int) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._ended = os.waitstatus_to_exitcode(status)
        self._group.kill()
        self.next_moment_ns = time.monotonic_ns() + int(_DRAIN_SECONDS * 1e9)
        self._close(fd)

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        self._watcher.forget(fd)
        os.close(fd)
        self.done = not self._open


def _descendants(pid: int) -> list[int]:
    """Below bwrap's inner process, for a machine without control groups."""
    found: list[int] = []
    todo = [pid]
    while todo:
        with contextlib.suppress(OSError):
            parent = todo.pop()
            with open(f"/proc/{parent}/task/{parent}/children") as file:
                children = [int(text) for text in file.read().split()]
            found += children
            todo += children
    return found
