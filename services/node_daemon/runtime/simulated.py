"""The simulated runtime: everything of an attempt but the process. For tests and benchmarks.

It runs nothing and says so: its name, its notice and each attempt are marked simulated. What an
attempt appears to do is written in one variable of its environment, as steps taken in order:

    JUNGLEGRID_SIMULATE="sleep=0.01;stdout=a line;lines=1000;stderr=oops;artifact=a.txt:text;exit=3"

`lines=N` prints N numbered lines; `oom` ends it as the kernel would; `hang` waits for its end from
outside. Without the variable it exits with 0 at once. Output goes through a real spool, unsynced.
A daemon's death ends its simulated attempts: `adopt` finds them lost.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from libs.clock import Clock
from libs.errors import AlreadyExists, InvalidRequest
from services.node_daemon import attempt_files
from services.node_daemon.collect import Collection, CollectLimits, collect
from services.node_daemon.runtime.logs import SpoolLogs
from services.node_daemon.runtime.port import (
    Exit,
    ExitReason,
    Isolation,
    Phase,
    Prepared,
    Report,
    Staging,
    TaskLaunch,
)
from services.node_daemon.shim_child import exit_signal
from services.node_daemon.slots import Slot
from services.node_daemon.spool import STDERR, STDOUT, SpoolWriter

SCRIPT_VARIABLE = "JUNGLEGRID_SIMULATE"
_TERMINATED, _KILLED = 143, 137


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script: `verb=text`, or a verb alone."""

    verb: str
    text: str


_VERBS = frozenset({"sleep", "stdout", "stderr", "lines", "artifact", "exit", "oom", "hang"})


def parse_script(text: str) -> tuple[Step, ...]:
    """Raises InvalidRequest for a verb it does not know, or a number that is none."""
    steps = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        verb, _, value = part.partition("=")
        if verb not in _VERBS:
            known = ", ".join(sorted(_VERBS))
            raise InvalidRequest(f"{SCRIPT_VARIABLE}: unknown step {verb!r}; there are {known}")
        try:
            float(value) if verb in ("sleep", "lines", "exit") else None
        except ValueError:
            raise InvalidRequest(f"{SCRIPT_VARIABLE}: {verb} needs a number") from None
        steps.append(Step(verb, value))
    return tuple(steps)


class SimulatedRuntime:
    """See `port.Runtime`."""

    name = "simulated"
    simulated = True

    def __init__(
        self, folder: Path, clock: Clock, collect_limits: CollectLimits | None = None
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._limits = collect_limits or CollectLimits()

    def describe(self) -> Sequence[Isolation]:
        return (Isolation("simulated", True, "no process is run, so there is nothing to isolate"),)

    async def open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    async def adopt(self) -> list[SimulatedAttempt]:
        found = []
        for folder in sorted(self._folder.iterdir()):
            record = attempt_files.read_json(folder / attempt_files.LAUNCH)
            if record is None or record["runtime"] != self.name:
                shutil.rmtree(folder) if record is None else None
                continue
            attempt = SimulatedAttempt(
                (record["lease_id"], record["job_id"], record["attempt"], record["task_index"]),
                folder,
                self._limits,
                self._clock,
            )
            attempt.lose()
            found.append(attempt)
        return found

    async def prepare(self, launch: TaskLaunch, report: Report) -> Prepared:
        parse_script(launch.environment.get(SCRIPT_VARIABLE, ""))
        folder = self._folder / launch.lease_id
        if folder.parent != self._folder or folder.exists():
            raise AlreadyExists(f"lease {launch.lease_id} was started on this node before")
        report(Phase.RUNTIME_PREPARATION, "Preparing a simulated run", {"simulated": True})
        report(Phase.NOTICE, "This node is simulated: no program is run", {"simulated": True})
        staging = Staging(folder / "workspace", os.geteuid(), os.getegid())
        staging.workspace.mkdir(parents=True)
        for inner in (staging.inputs, staging.scripts, staging.artifacts):
            inner.mkdir()
        slot = Slot(-1, staging.uid, launch.disk_bytes, staging.workspace)
        return Prepared(launch, staging, report, slot)

    async def start(self, prepared: Prepared, deadline_monotonic: float) -> SimulatedAttempt:
        launch = prepared.launch
        folder = prepared.staging.workspace.parent
        identity = (launch.lease_id, launch.job_id, launch.attempt, launch.task_index)
        names = ("lease_id", "job_id", "attempt", "task_index")
        record = {**dict(zip(names, identity, strict=True)), "runtime": self.name}
        attempt_files.write_json(folder / attempt_files.LAUNCH, record)
        prepared.report(
            Phase.CONTAINER_STARTING, "Starting a simulated program", {"simulated": True}
        )
        attempt = SimulatedAttempt(identity, folder, self._limits, self._clock)
        attempt.begin(launch, deadline_monotonic)
        prepared.report(Phase.RUNNING, "The simulated program is running", {"simulated": True})
        return attempt

    async def discard(self, prepared: Prepared) -> None:
        shutil.rmtree(prepared.staging.workspace.parent)

    async def close(self) -> None:
        """Attempts end with this process; there is nothing else to give back."""


class SimulatedAttempt:
    """See `port.Attempt`."""

    simulated = True

    def __init__(
        self,
        identity: tuple[str, str, int, int],
        folder: Path,
        limits: CollectLimits,
        clock: Clock,
    ) -> None:
        self.lease_id, self.job_id, self.attempt, self.task_index = identity
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._logs = SpoolLogs(folder)
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[Exit] = self._loop.create_future()
        self._writer: SpoolWriter | None = None
        self._started: datetime | None = None
        self._task: asyncio.Task[None] | None = None
        self._timers: dict[ExitReason, asyncio.TimerHandle] = {}

    @property
    def logs(self) -> SpoolLogs:
        return self._logs

    def begin(self, launch: TaskLaunch, deadline: float) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._spool = os.open(self._folder / attempt_files.SPOOL, flags, 0o600)
        self._writer = SpoolWriter(self._spool, launch.log_bytes_max)
        self._started = self._clock.now()
        self.renew(deadline)
        if launch.timeout_seconds:
            self._end_at(ExitReason.TIMED_OUT, time.monotonic() + launch.timeout_seconds)
        steps = parse_script(launch.environment.get(SCRIPT_VARIABLE, ""))
        self._task = self._loop.create_task(self._play(steps))

    def renew(self, deadline_monotonic: float) -> None:
        if not self._exit.done():
            self._end_at(ExitReason.LEASE_EXPIRED, deadline_monotonic)

    def stop(self, reason: str, grace_seconds: float) -> None:
        self._finish(ExitReason.STOPPED, _TERMINATED, message=reason)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def artifacts(self) -> Collection:
        await self.wait()
        return collect(self._folder / "workspace" / "artifacts", self._limits)

    async def release(self) -> None:
        self._finish(ExitReason.STOPPED, _KILLED, message="released")
        self._logs.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def lose(self) -> None:
        """Its daemon died, and there never was a process."""
        text = "the daemon that simulated this attempt ended"
        self._exit.set_result(
            Exit(ExitReason.RUNTIME_LOST, message=text, spool_bytes=self._logs.valid_end())
        )

    def _end_at(self, reason: ExitReason, moment: float) -> None:
        if reason in self._timers:
            self._timers[reason].cancel()
        wait = max(moment - time.monotonic(), 0)
        self._timers[reason] = self._loop.call_later(wait, self._finish, reason, _TERMINATED)

    async def _play(self, steps: Sequence[Step]) -> None:
        code, oom = 0, False
        for step in steps:
            if step.verb == "sleep":
                await self._clock.sleep(float(step.text))
            elif step.verb == "hang":
                await asyncio.Event().wait()
            elif step.verb == "exit":
                code = int(step.text)
                break
            elif step.verb == "oom":
                code, oom = _KILLED, True
                break
            else:
                self._act(step)
        self._finish(ExitReason.EXITED, code, oom=oom)

    def _act(self, step: Step) -> None:
        if step.verb == "artifact":
            name, _, text = step.text.partition(":")
            (self._folder / "workspace" / "artifacts" / name).write_text(text)
        elif step.verb == "lines":
            text = "".join(f"line {number}\n" for number in range(1, int(step.text) + 1))
            self._print(STDOUT, text)
        else:
            self._print(STDOUT if step.verb == "stdout" else STDERR, step.text + "\n")

    def _print(self, stream: int, text: str) -> None:
        assert self._writer is not None
        data = text.encode()
        # In pieces, as a pipe would give them: a block holds no more.
        for at in range(0, len(data), 32768):
            self._writer.feed(stream, data[at : at + 32768], time.time_ns())
        self._logs.wake()

    def _finish(
        self, reason: ExitReason, code: int, *, oom: bool = False, message: str = ""
    ) -> None:
        if self._exit.done() or self._writer is None:
            return
        for timer in self._timers.values():
            timer.cancel()
        if self._task is not None and reason is not ExitReason.EXITED:
            self._task.cancel()
        writer = self._writer
        for stream in (STDOUT, STDERR):
            writer.end(stream, time.time_ns())
        os.close(self._spool)
        self._exit.set_result(
            Exit(
                reason, code, exit_signal(code), reason is ExitReason.TIMED_OUT, oom, message,
                self._started, self._clock.now(), writer.kept, writer.dropped,
                writer.entries(STDOUT), writer.entries(STDERR), writer.size,
            )
        )  # fmt: skip
        self._logs.wake()
