"""One attempt under a shim, as the daemon sees it.

A `ShimAttempt` is only a view. The shim holds the attempt; this follows it over one connection: its
word, or the end of the connection, is how the daemon learns that the attempt is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from libs.telemetry import logger
from services.node_daemon import attempt_files
from services.node_daemon.cgroups import Group
from services.node_daemon.collect import Collection, CollectLimits, collect
from services.node_daemon.runtime.logs import SpoolLogs
from services.node_daemon.runtime.port import Exit, ExitReason, TaskLaunch
from services.node_daemon.runtime.reattach import reach
from services.node_daemon.slots import Slot, Slots

_log = logger("attempts")
# The shim ends an attempt at its deadline and kills after the grace; this long after that, the
# daemon does it in the shim's place.
_BACKSTOP_SECONDS = 2.0
_FORGET_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Record:
    """launch.json: what a later daemon must know of an attempt. Holds no secret."""

    lease_id: str
    job_id: str
    attempt: int
    task_index: int
    runtime: str
    slot_index: int
    slot_bytes: int
    group: dict[str, Any]
    container: str = ""

    @staticmethod
    def of(
        launch: TaskLaunch, runtime: str, slot: Slot, group: Group, container: str = ""
    ) -> Record:
        return Record(
            launch.lease_id, launch.job_id, launch.attempt, launch.task_index, runtime,
            slot.index, slot.size_bytes, group.to_json(), container,
        )  # fmt: skip


class Places(NamedTuple):
    """What an attempt needs of its host."""

    slots: Slots
    grace_seconds: float
    collect_limits: CollectLimits


class Order(NamedTuple):
    """The job, the seat to give it to, and what to do with the seat afterwards.

    Without a seat, a plain shim is forked for this job only.
    """

    spec: Mapping[str, Any]
    seat: socket.socket | None = None
    give_back: Callable[[], None] | None = None


Forget = Callable[[Record], Awaitable[None]]


class ShimAttempt:
    """See `port.Attempt`."""

    simulated = False

    def __init__(self, places: Places, record: Record, folder: Path, forget: Forget) -> None:
        self.lease_id, self.job_id = record.lease_id, record.job_id
        self.attempt, self.task_index = record.attempt, record.task_index
        self._places = places
        self._record = record
        self._folder = folder
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._group = Group.from_json(record.group)
        self._logs = SpoolLogs(folder)
        self._link: socket.socket | None = None
        self._shim: int | None = None
        self._lost_lock: int | None = None
        self._backstop: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self.begun: asyncio.Future[bool] = self._loop.create_future()
        self.give_back: Callable[[], None] | None = None
        self._released = False

    @property
    def logs(self) -> SpoolLogs:
        return self._logs

    @property
    def workspace(self) -> Path:
        slot = self._places.slots.slot(self._record.slot_index, self._record.slot_bytes)
        return slot.workspace

    @property
    def group_name(self) -> str:
        """The name of its control group; empty where it has none."""
        return Path(next(iter(self._group.folders.values()), "")).name

    def renew(self, deadline_monotonic: float) -> None:
        deadline = int(deadline_monotonic * 1e9)
        attempt_files.write_cell(self._folder / attempt_files.DEADLINE, deadline)
        self.arm(deadline_monotonic)

    def stop(self, reason: str, grace_seconds: float) -> None:
        if self._exit.done():
            return
        message = {"t": "stop", "reason": reason[:512], "grace_seconds": grace_seconds}
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.send(json.dumps(message).encode())
                return
        self._spawn(self._kill())  # no shim listens: only this daemon can end it

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def artifacts(self) -> Collection:
        await self.wait()
        folder = self.workspace / "artifacts"
        return await asyncio.to_thread(collect, folder, self._places.collect_limits)

    async def release(self) -> None:
        if self._released:
            return
        self._released = True
        if not self._exit.done():
            await self._kill()
            await self.wait()
        self._logs.close()
        await self._forget(self._record)
        await asyncio.to_thread(self._wipe)
        fds, self._lost_lock, self._shim = (self._lost_lock, self._shim), None, None
        for fd in fds:
            if fd is not None:
                os.close(fd)

    def _wipe(self) -> None:
        """The record goes first: a daemon that dies in between leaves a slot that nobody keeps."""
        (self._folder / attempt_files.LAUNCH).unlink(missing_ok=True)
        slot = self._places.slots.slot(self._record.slot_index, self._record.slot_bytes)
        self._places.slots.release(slot)
        shutil.rmtree(self._folder, ignore_errors=True)

    def follow(self, link: socket.socket) -> None:
        """Listens to the shim at the other end."""
        self._link = link
        self._loop.add_reader(link.fileno(), self._receive)

    def unfollow(self) -> None:
        """Closes the connection; a shim that has no job yet ends by that."""
        if self._link is not None:
            self._loop.remove_reader(self._link.fileno())
            self._link.close()
            self._link = None

    def arm(self, deadline: float) -> None:
        """Sets the daemon's own, later, end of the lease. Not for an attempt that has ended: its
        shim may hold another job by then."""
        if self._backstop is not None:
            self._backstop.cancel()
        if self._exit.done():
            return
        left = deadline - time.monotonic() + self._places.grace_seconds + _BACKSTOP_SECONDS
        self._backstop = self._loop.call_later(max(left, 0), self._overdue)

    async def take_over(self) -> None:
        """Finds out what became of an attempt of a former daemon."""
        if (self._folder / attempt_files.EXIT).exists():
            self._settle()
            return
        deadline = attempt_files.read_cell(self._folder / attempt_files.DEADLINE) or 0
        self.arm(deadline / 1e9)
        link = await asyncio.to_thread(reach, self._folder)
        if link is not None:
            self.follow(link)
        elif attempt_files.is_locked(self._folder / attempt_files.LOCK):
            self._spawn(self._bury())
        else:
            await self._bury()

    def _receive(self) -> None:
        assert self._link is not None
        wake = False
        while True:
            try:
                data = self._link.recv(4096)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self._end_of_link()
                break
            message = json.loads(data)
            wake = wake or message["t"] == "log"
            if message["t"] == "started":
                self._on_started(message["pid"])
            if message["t"] == "exit":
                self._on_exit()
                break
        if wake:
            self._logs.wake()

    def _on_started(self, pid: int) -> None:
        if self._shim is None:
            with contextlib.suppress(OSError):  # it ended meanwhile: the link says so next
                self._shim = os.pidfd_open(pid)
        if not self.begun.done():
            self.begun.set_result(True)

    def _on_exit(self) -> None:
        """The exit is on disk. The shim waits at the other end: for another job, or for ours."""
        if self.give_back is None:
            self.unfollow()
        elif self._link is not None:
            self._loop.remove_reader(self._link.fileno())
            self._link = None
            self.give_back()
        self._settle()

    def _end_of_link(self) -> None:
        self.unfollow()
        if (self._folder / attempt_files.EXIT).exists():
            self._settle()
        else:
            self._spawn(self._bury())

    async def _bury(self) -> None:
        """No shim and no exit: the attempt is lost, and must not come to life any more.

        The lock is held until the folder is gone, against a shim that was asked for by a daemon
        that died in the same moment and is only now being forked.
        """
        if (self._folder / attempt_files.EXIT).exists():
            self._settle()
            return
        with contextlib.suppress(OSError):
            await asyncio.to_thread(attempt_files.wait_unlocked, self._folder / attempt_files.LOCK)
            self._lost_lock = attempt_files.hold_lock(str(self._folder / attempt_files.LOCK))
        await self._kill()
        try:
            # A container has no group of ours: it would run on beside the next attempt.
            async with asyncio.timeout(_FORGET_SECONDS):
                await self._forget(self._record)
        except Exception:
            _log.exception("what a lost attempt left is not removed yet", lease_id=self.lease_id)
        self._settle()

    async def _kill(self) -> None:
        await asyncio.to_thread(self._group.kill)
        await asyncio.to_thread(self._group.remove)

    def _settle(self) -> None:
        """Reads the exit, or makes that of a lost attempt."""
        if self._backstop is not None:
            self._backstop.cancel()
        raw = attempt_files.read_json(self._folder / attempt_files.EXIT)
        ended = Exit.from_record(raw) if raw is not None else self._lost()
        if not self._exit.done():
            self._exit.set_result(ended)
        if not self.begun.done():
            self.begun.set_result(False)
        self._logs.wake()

    def _lost(self) -> Exit:
        crash = self._folder / attempt_files.ERRORS
        detail = f": {crash.read_text()[-1000:]}" if crash.exists() else ""
        return Exit(
            ExitReason.RUNTIME_LOST,
            message=f"the attempt's shim ended without a word{detail}",
            spool_bytes=self._logs.valid_end(),
        )

    def _overdue(self) -> None:
        """The shim had its time and did not end the attempt: it hangs, or is stopped."""
        if self._shim is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._shim, signal.SIGKILL)
        elif not self.begun.done():
            # It never spoke. Whenever it wakes, the deadline is over and it starts nothing.
            self.begun.set_result(False)
        self._spawn(self._kill())

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
