"""bwrap's process before there is a job for it: forked, in its control group, waiting.

Joining a control group costs little CPU but, on an otherwise quiet machine, more than ten
milliseconds of waiting inside the kernel (an RCU grace period). So shims are seated beforehand,
each with this child already in a group of its own; starting a job then is one write to a pipe.

The order in the child matters. It asks for death with its parent at once, and again after it
changed user, because that clears the request. It drops to the slot's user before bwrap runs: bwrap
started as root would map the job's user to the machine's root. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
from typing import Any

from services.node_daemon import syscalls
from services.node_daemon.cgroups import Group, Limits

_PIPE_BYTES = 1024 * 1024
# What bwrap is told by descriptor: the numbers are written into its arguments by the daemon.
SECCOMP_FD, STATUS_FD, ARGUMENTS_FD = 3, 4, 5
_NO_LIMITS = Limits(0, 0, 0)


class Parked:
    """The child and the shim's ends of its pipes. `error` says why there is none."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.pid = -1
        self.error = ""
        try:
            self._fork()
        except OSError as error:
            self.error = str(error)

    def go(self, limits: Limits, order: dict[str, Any]) -> None:
        """Sets the limits and lets the child become bwrap; raises OSError when there is none.

        `failure` then ends without a word at exec, or with the text of what went wrong before it.
        """
        if self.error:
            raise OSError(self.error)
        self.group.create(limits)
        with os.fdopen(self._orders, "wb") as orders:
            orders.write(json.dumps(order).encode())

    def abandon(self) -> None:
        """No job came: the child and its group go."""
        if self.pid > 0:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.group.remove()

    def _fork(self) -> None:
        self.group.create(_NO_LIMITS)
        self.out, out = _pipe(_PIPE_BYTES)
        self.err, err = _pipe(_PIPE_BYTES)
        self.status, status = _pipe()
        self.failure, failure = _pipe()
        orders, self._orders = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._orders)  # or the child would wait for its own end of the pipe
            _Child(self.group, (out, err, status), failure).become_bwrap(orders)
        for fd in (out, err, status, failure, orders):
            os.close(fd)


class _Child:
    """The forked side; it never returns to the shim's code."""

    def __init__(self, group: Group, outputs: tuple[int, int, int], failure: int) -> None:
        self._group = group
        self._outputs = outputs
        self._failure = failure

    def become_bwrap(self, orders: int) -> None:
        try:
            parent = os.getppid()
            syscalls.die_with_parent(signal.SIGKILL)
            self._group.join()
            with os.fdopen(orders, "rb") as file:
                text = file.read()
            if not text:
                os._exit(0)  # the shim is gone
            self._exec(json.loads(text), parent)
        except BaseException as error:  # told to the shim; this process ends here
            with contextlib.suppress(OSError):
                os.write(self._failure, str(error).encode())
        finally:
            os._exit(1)

    def _exec(self, order: dict[str, Any], parent: int) -> None:
        _set_limits(order["rlimits"])
        _drop_user(order["uid"], order["gid"])
        syscalls.no_new_privileges()
        syscalls.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        self._place_descriptors(order)
        os.chdir("/")
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these two
            signal.signal(number, signal.SIG_DFL)
        command = [order["bwrap"], "--args", str(ARGUMENTS_FD), "--", *order["argv"]]
        os.execve(order["bwrap"], command, {"PATH": "/usr/bin:/bin"})

    def _place_descriptors(self, order: dict[str, Any]) -> None:
        """0 to 5 as bwrap expects them; nothing else of the shim's survives exec."""
        out, err, status = self._outputs
        empty = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        filter_fd = _memory(bytes.fromhex(order["seccomp"]))
        arguments = _memory(b"".join(item.encode() + b"\0" for item in order["options"]))
        wanted = [empty, out, err, filter_fd, status, arguments]
        # First out of the way of the numbers that are about to be taken.
        safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in wanted]
        self._failure = fcntl.fcntl(self._failure, fcntl.F_DUPFD_CLOEXEC, 64)
        for number, fd in enumerate(safe):
            os.dup2(fd, number)


def _drop_user(uid: int, gid: int) -> None:
    if os.geteuid() != 0:
        return  # an insecure sandbox: the daemon's user is the only one there is
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


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
