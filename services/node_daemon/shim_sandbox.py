"""The sandboxed program: bwrap, started by the shim as the attempt's own slot user.

The order in the forked child matters. It joins the control group first, so that nothing of the job
runs outside it. It drops to the slot's user before bwrap runs: bwrap started as root would map the
job's user to the machine's root. And it asks for death with its parent after that, because changing
user clears the request. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import time
from typing import Any

from services.node_daemon import syscalls
from services.node_daemon.cgroups import Group, Limits
from services.node_daemon.shim_child import Child, ChildOutcome, Output, Watcher, exit_signal
from services.node_daemon.spool import STDERR, STDOUT

_PIPE_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
# What bwrap is told by descriptor: the numbers are written into its arguments by the daemon.
SECCOMP_FD, STATUS_FD, ARGUMENTS_FD = 3, 4, 5
_DRAIN_SECONDS = 5.0


class SandboxChild(Child):
    """bwrap and all it holds."""

    def __init__(self, spec: dict[str, Any], output: Output) -> None:
        self._spec = spec
        self._output = output
        self._group = Group.from_json(spec["group"])
        self._pid = -1
        self._ended: int | None = None
        self._status = b""
        self._error_head = b""
        self._open: set[int] = set()
        self._pipes: dict[int, int] = {}

    def start(self, watcher: Watcher) -> None:
        self._watcher = watcher
        limits = self._spec["limits"]
        self._group.create(Limits(limits["memory_bytes"], limits["pids_max"], limits["cpu_millis"]))
        out_read, out_write = _pipe(_PIPE_BYTES)
        err_read, err_write = _pipe(_PIPE_BYTES)
        status_read, status_write = _pipe()
        failure_read, failure_write = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            self._become_bwrap((out_write, err_write, status_write), failure_write)
        for fd in (out_write, err_write, status_write, failure_write):
            os.close(fd)
        self._check_exec(failure_read)
        self._pipes = {out_read: STDOUT, err_read: STDERR}
        ended = os.pidfd_open(self._pid)
        self._open = {out_read, err_read, status_read, ended}
        watcher.watch(out_read, lambda: self._read(out_read))
        watcher.watch(err_read, lambda: self._read(err_read))
        watcher.watch(status_read, lambda: self._read_status(status_read))
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

    def _check_exec(self, failure: int) -> None:
        """Ends with exec (the pipe closes) or with the text of what went wrong before it."""
        with os.fdopen(failure, "rb") as file:
            text = file.read()
        if text:
            os.waitpid(self._pid, 0)
            self._pid = -1
            raise OSError(text.decode(errors="replace"))

    def _become_bwrap(self, outputs: tuple[int, int, int], failure: int) -> None:
        try:
            parent = os.getppid()
            self._group.join()
            _set_limits(self._spec["rlimits"])
            self._drop_user()
            syscalls.no_new_privileges()
            syscalls.die_with_parent(signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)
            self._place_descriptors(outputs)
            os.chdir("/")
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these two
                signal.signal(number, signal.SIG_DFL)
            path = self._spec["bwrap"]
            command = [path, "--args", str(ARGUMENTS_FD), "--", *self._spec["argv"]]
            os.execve(path, command, {"PATH": "/usr/bin:/bin"})
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(failure, str(error).encode())
        finally:
            os._exit(1)

    def _drop_user(self) -> None:
        uid, gid = self._spec["uid"], self._spec["gid"]
        if os.geteuid() != 0:
            return  # an insecure sandbox: the daemon's user is the only one there is
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)

    def _place_descriptors(self, outputs: tuple[int, int, int]) -> None:
        """0 to 5 as bwrap expects them; nothing else of the shim's survives exec."""
        out, err, status = outputs
        empty = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        filter_fd = _memory(bytes.fromhex(self._spec["seccomp"]))
        arguments = _memory(b"".join(item.encode() + b"\0" for item in self._spec["options"]))
        wanted = [empty, out, err, filter_fd, status, arguments]
        # First out of the way of the numbers that are about to be taken.
        safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in wanted]
        for number, fd in enumerate(safe):
            os.dup2(fd, number)


def _pipe(size: int = 0) -> tuple[int, int]:
    """A pipe whose read end does not block. A larger one saves turns where the limit allows it."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    if size:
        with contextlib.suppress(OSError):
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, size)
    return read, write


def _memory(data: bytes) -> int:
    fd = os.memfd_create("jg", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _set_limits(limits: dict[str, int]) -> None:
    """Never above the hard limit: raising that needs a capability a container may lack."""
    for name, value in limits.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        kept = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (kept, kept))


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
