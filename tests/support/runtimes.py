"""Runtimes for tests: each on its own folders, given back at the end whatever happened."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from libs.clock import SystemClock
from services.node_daemon import loopfs
from services.node_daemon.runtime.docker import DockerConfig, DockerRuntime
from services.node_daemon.runtime.port import Attempt, Exit, Phase, Runtime, TaskLaunch
from services.node_daemon.runtime.sandbox import SandboxConfig, SandboxRuntime
from services.node_daemon.runtime.shimmed import ShimHost
from services.node_daemon.runtime.simulated import SCRIPT_VARIABLE, SimulatedRuntime
from services.node_daemon.slots import SlotConfig, Slots
from services.node_daemon.spool import LogEntry

MIB = 1024 * 1024
LEASE_SECONDS = 30.0
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Folders:
    """`state` is private, `run` is reachable for all users; both outlive a daemon in a test."""

    state: Path
    run: Path

    @staticmethod
    def make() -> Folders:
        state = Path(tempfile.mkdtemp(prefix="jg-state-"))
        run = Path(tempfile.mkdtemp(prefix="jg-run-", dir="/run"))
        run.chmod(0o755)
        return Folders(state, run)

    def remove(self) -> None:
        top = Path("/sys/fs/cgroup")
        for tree in (top, *top.iterdir()):
            _remove_groups(tree / "jg-test" / self.run.name)
        loopfs.unmount_all(self.run)
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)


def _remove_groups(parent: Path) -> None:
    """Removes what is empty; shims remove their own groups, in their own time."""
    for group in (*(parent.iterdir() if parent.is_dir() else ()), parent):
        if group.is_dir():
            with contextlib.suppress(OSError):
                group.rmdir()


def host(folders: Folders, *, grace_seconds: float = 0.5, **slots: Any) -> ShimHost:
    config = SlotConfig(
        images=folders.state / "slots", mounts=folders.run / "slots", slots_max=4, ready=1,
        size_bytes=32 * MIB,
    )  # fmt: skip
    pool = Slots(replace(config, **slots))
    return ShimHost(folders.state / "attempts", pool, grace_seconds=grace_seconds)


def sandbox(folders: Folders, **slots: Any) -> SandboxRuntime:
    return sandbox_with(folders, host(folders, **slots))


def sandbox_with(folders: Folders, shared: ShimHost) -> SandboxRuntime:
    config = SandboxConfig(run_folder=folders.run, cgroup_name=f"jg-test/{folders.run.name}")
    return SandboxRuntime(config, shared)


def docker(folders: Folders, socket: str, **slots: Any) -> DockerRuntime:
    return DockerRuntime(DockerConfig(socket, node=folders.run.name), host(folders, **slots))


def simulated(folders: Folders) -> SimulatedRuntime:
    return SimulatedRuntime(folders.state / "attempts", SystemClock())


@dataclass
class Told:
    """A `report` that remembers."""

    calls: list[tuple[Phase, str, Mapping[str, Any]]] = field(default_factory=list)

    def __call__(self, phase: Phase, message: str, details: Mapping[str, Any]) -> None:
        self.calls.append((phase, message, details))

    @property
    def phases(self) -> list[Phase]:
        return [phase for phase, _, _ in self.calls]


@asynccontextmanager
async def opened(runtime: Runtime) -> AsyncIterator[Runtime]:
    await runtime.open()
    try:
        yield runtime
    finally:
        await runtime.close()


def launch(*argv: str, script: str = "", **changes: Any) -> TaskLaunch:
    """A small job; `script` is what it does in the simulated runtime."""
    number = next(_NUMBERS)
    plain = TaskLaunch(
        lease_id=f"lease_{number}", job_id=f"job_{number}", attempt=1, task_index=0,
        image="python:3.11", argv=argv, environment={SCRIPT_VARIABLE: script},
        cpu_millis=0, memory_bytes=256 * MIB, disk_bytes=32 * MIB,
    )  # fmt: skip
    return replace(plain, **changes)


def python(code: str, script: str = "", **changes: Any) -> TaskLaunch:
    return launch("python3", "-c", code, script=script, **changes)


async def begin(runtime: Runtime, task: TaskLaunch, lease: float = LEASE_SECONDS) -> Attempt:
    prepared = await runtime.prepare(task, Told())
    return await runtime.start(prepared, time.monotonic() + lease)


@dataclass(frozen=True)
class Done:
    """An attempt that is over, with its whole log."""

    exit: Exit
    entries: tuple[LogEntry, ...]

    def lines(self, stream: int = 1) -> list[str]:
        return [entry.data.decode() for entry in self.entries if entry.stream == stream]

    @property
    def text(self) -> str:
        return "\n".join(self.lines())


async def finish(attempt: Attempt) -> Done:
    """Waits for the end and reads the log; does not release."""
    async with asyncio.timeout(30):
        ended = await attempt.wait()
    return Done(ended, read_all(attempt))


def read_all(attempt: Attempt) -> tuple[LogEntry, ...]:
    entries: list[LogEntry] = []
    offset = 0
    while (batch := attempt.logs.read(offset)).blocks:
        entries += batch.entries()
        offset = batch.next_offset
    return tuple(entries)


async def run(runtime: Runtime, task: TaskLaunch, lease: float = LEASE_SECONDS) -> Done:
    """A job from start to release."""
    attempt = await begin(runtime, task, lease)
    done = await finish(attempt)
    await attempt.release()
    return done


async def first_line(attempt: Attempt, stream: int = 1) -> str:
    """Waits until the job has printed something."""
    more = asyncio.Event()
    attempt.logs.watch(more.set)
    async with asyncio.timeout(20):
        while True:
            lines = [entry for entry in read_all(attempt) if entry.stream == stream]
            if lines:
                return lines[0].data.decode()
            await more.wait()
            more.clear()
