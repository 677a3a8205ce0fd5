"""The shim: one small process per attempt, which outlives the daemon.

It owns the program's pipes, the spool, the control group and the lease's deadline. The daemon may
die at any moment and come back: the shim goes on, and by itself ends the attempt when the deadline
in the `deadline` file passes, or when the program's own time is up.

Everything it waits for is a descriptor or a known moment, so it sleeps until one is due. It is
single-threaded: bwrap dies with the *thread* that started it.

Forked from the zygote; standard library only.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import select
import time
from collections.abc import Callable
from typing import Any

from services.node_daemon import attempt_files, shim_link, syscalls
from services.node_daemon.cgroups import Group
from services.node_daemon.shim_child import Child, ChildOutcome
from services.node_daemon.shim_docker import DockerChild
from services.node_daemon.shim_link import Link
from services.node_daemon.shim_parked import Parked
from services.node_daemon.shim_sandbox import SandboxChild
from services.node_daemon.spool import STDERR, STDOUT, SpoolWriter

_CHILDREN: dict[str, type[Child]] = {"sandbox": SandboxChild, "docker": DockerChild}
# A job that prints line by line wakes the daemon at most this often; the first line wakes at once.
_WAKE_EVERY_NS = 5_000_000


class Shim:
    """Runs one attempt from start to exit.json."""

    def __init__(self, launch: dict[str, Any], link_fd: int, parked: Parked | None) -> None:
        self._launch = launch
        self._lock = attempt_files.hold_lock(attempt_files.LOCK)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._spool_fd = os.open(attempt_files.SPOOL, flags, 0o600)
        self._spool = SpoolWriter(self._spool_fd, launch["log_bytes_max"])
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._link = Link(link_fd, self, self._on_message, self._greeting)
        self._child = _CHILDREN[launch["runtime"]](launch["child"], self._on_output, parked)
        self._reason: str | None = None
        self._message = ""
        self._deadline_ns = attempt_files.read_cell(attempt_files.DEADLINE) or 0
        self._timeout_ns: int | None = None
        self._kill_ns: int | None = None
        self._wake_ns: int | None = None
        self._woke_ns = 0
        self._started_ns = 0
        self._announced = False

    def run(self) -> bool:
        """Returns after exit.json was written: whether the daemon that gave the job is there."""
        outcome = self._start()
        self._link.listen(attempt_files.CTL)  # while bwrap is at work on the other core
        while outcome is None:
            if self._child.running and not self._announced:
                self._announced = True
                self._link.send(self._greeting())
            if self._child.done:
                outcome = self._child.finish()
            else:
                self._turn()
        return self._finish(outcome)

    def _start(self) -> ChildOutcome | None:
        """None when the program is on its way; an outcome at once when it could not be started."""
        self._started_ns = time.time_ns()
        if time.monotonic_ns() >= self._deadline_ns:
            return ChildOutcome(None, failed="the lease was over before the program was started")
        try:
            self._child.start(self)
        except OSError as error:
            self._child.kill()
            return ChildOutcome(None, failed=f"the attempt could not be set up: {error}")
        if seconds := self._launch["timeout_seconds"]:
            self._timeout_ns = time.monotonic_ns() + int(seconds * 1e9)
        return None

    def _turn(self) -> None:
        """Waits for the next descriptor or moment, and serves what is due."""
        wait = max(self._next_moment() - time.monotonic_ns(), 0)
        # Rounded up: a poll that returns early would only spin.
        for fd, _ in self._poll.poll(math.ceil(wait / 1e6) / 1e3):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        self._serve_moments(time.monotonic_ns())

    def _next_moment(self) -> int:
        moments = (self._timeout_ns, self._kill_ns, self._wake_ns, self._child.next_moment_ns)
        known = [moment for moment in moments if moment is not None]
        if self._reason != "lease_expired":
            known.append(self._deadline_ns)
        return min(known, default=time.monotonic_ns() + 60_000_000_000)

    def _serve_moments(self, now: int) -> None:
        if self._wake_ns is not None and now >= self._wake_ns:
            self._wake(now)
        if self._reason != "lease_expired" and now >= self._deadline_ns:
            self._check_lease(now)
        if self._timeout_ns is not None and now >= self._timeout_ns:
            self._timeout_ns = None
            self._stop("timed_out", self._grace_ns(), "the job's time limit was reached")
        if self._kill_ns is not None and now >= self._kill_ns:
            self._kill_ns = None
            self._child.kill()
        self._child.tick(now)

    def _check_lease(self, now: int) -> None:
        """The daemon moves the deadline in the file without telling; it is read when it is due."""
        renewed = attempt_files.read_cell(attempt_files.DEADLINE)
        if renewed is None:
            self._deadline_ns = now + 1_000_000  # caught in the middle of a write
        elif renewed > now:
            self._deadline_ns = renewed
        else:
            self._stop("lease_expired", self._grace_ns(), "the lease was not renewed in time")

    def _grace_ns(self) -> int:
        return int(self._launch["grace_seconds"] * 1e9)

    def _stop(self, reason: str, grace_ns: int, message: str) -> None:
        """SIGTERM, and SIGKILL after the grace. A later stop can only bring the kill nearer."""
        if self._reason is None:
            self._message = message
            self._child.terminate()
        if self._reason is None or reason == "lease_expired":
            self._reason = reason
        kill = time.monotonic_ns() + grace_ns
        self._kill_ns = kill if self._kill_ns is None else min(kill, self._kill_ns)

    def _on_output(self, stream: int, data: bytes) -> None:
        if self._spool.feed(stream, data, time.time_ns()) and self._wake_ns is None:
            now = time.monotonic_ns()
            due = self._woke_ns + _WAKE_EVERY_NS
            if now >= due:
                self._wake(now)
            else:
                self._wake_ns = due

    def _wake(self, now: int) -> None:
        """A full socket may swallow this: then unread wakes lie in it, and one is enough."""
        self._woke_ns, self._wake_ns = now, None
        self._link.send({"t": "log"})

    def _on_message(self, message: dict[str, Any]) -> None:
        if message.get("t") == "stop":
            self._stop("stopped", int(message["grace_seconds"] * 1e9), str(message["reason"]))

    def _greeting(self) -> dict[str, Any] | None:
        """What a daemon is told as soon as it listens; nothing before the program runs."""
        if not self._announced:
            return None
        return {"t": "started", "time_ns": self._started_ns, "pid": os.getpid()}

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._poll.unregister(fd)

    def _finish(self, outcome: ChildOutcome) -> bool:
        """The log is closed and synced before the exit is written, and that before it is told."""
        now = time.time_ns()
        for stream in (STDOUT, STDERR):
            self._spool.end(stream, now)
        self._spool.sync()
        attempt_files.write_json_durably(attempt_files.EXIT, self._record(outcome, now))
        told = self._link.finish()
        self._child.clean()
        for fd in (self._spool_fd, self._lock):
            os.close(fd)
        self._poll.close()
        return told

    def _record(self, outcome: ChildOutcome, now: int) -> dict[str, Any]:
        reason, message = self._reason or "exited", self._message
        if outcome.failed:
            reason, message = self._reason or outcome.failed_reason, outcome.failed
        return {
            "reason": reason,
            "message": message,
            "code": outcome.code,
            "signal": outcome.signal,
            "timed_out": reason == "timed_out",
            "oom_killed": outcome.oom_killed,
            "started_time_ns": self._started_ns if self._announced else None,
            "finished_time_ns": now,
            "log_bytes": self._spool.kept,
            "log_bytes_dropped": self._spool.dropped,
            "stdout_entries": self._spool.entries(STDOUT),
            "stderr_entries": self._spool.entries(STDERR),
            "spool_bytes": self._spool.size,
            "memory_peak_bytes": outcome.memory_peak_bytes,
            "cpu_nanoseconds": outcome.cpu_nanoseconds,
        }


def run(seat_fd: int, link_fd: int) -> None:
    """The life of a forked shim: seated, given a job, and seated again while its daemon is there.

    One shim has one job at a time. It is used again because half of what a job costs this node
    would otherwise go into forking a fresh one and copying its pages.
    """
    gc.disable()
    with os.fdopen(seat_fd, "rb") as file:
        seat: dict[str, Any] | None = json.load(file)
    while seat is not None:
        syscalls.name_process("jg-seat")
        group = seat["group"]
        parked = Parked(Group.from_json(group)) if group is not None else None
        launch = shim_link.receive_launch(link_fd)
        if launch is None:
            if parked is not None:
                parked.abandon()
            return
        syscalls.name_process("jg-shim")
        os.chdir(launch["folder"])
        if not Shim(launch, link_fd, parked).run():
            return
        os.chdir("/")
        gc.collect()
        seat = shim_link.receive_seat(link_fd)


def note_crash(text: str) -> None:
    """Leaves the traceback in the attempt's folder, which is the cwd once there is a job."""
    if os.getcwd() == "/":
        return
    with contextlib.suppress(OSError), open(attempt_files.ERRORS, "a") as file:
        file.write(text)
