"""The daemon dies and comes back; the shim dies; the lease runs out while nobody is there."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.node_daemon import attempt_files
from services.node_daemon.runtime.port import ExitReason, Runtime
from tests.support import docker, runtimes

ROOT = Path(__file__).resolve().parents[3]
COUNTING = (
    "import time\n"
    "for i in range(1, 3001):\n"
    "    print('line', i, flush=True)\n"
    "    if i % 100 == 0: time.sleep(0.02)\n"
    "open('/workspace/artifacts/end', 'w').write('whole')\n"
)
FOREVER = "import time; print('up', flush=True); time.sleep(600)"


@pytest.fixture(params=["sandbox", "docker"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def socket(kind: str, request: pytest.FixtureRequest) -> str:
    if kind != "docker":
        return "-"
    engine = request.getfixturevalue("engine")
    assert isinstance(engine, docker.Engine)
    return engine.socket


@asynccontextmanager
async def daemon(
    folders: runtimes.Folders, kind: str, socket: str, lease: float, code: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A daemon process with one running attempt; killed at the end at the latest."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.attempt_daemon",
        str(folders.state), str(folders.run), kind, socket, str(lease), code,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"running\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def killed(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


@asynccontextmanager
async def back(folders: runtimes.Folders, kind: str, socket: str) -> AsyncIterator[Runtime]:
    """The next daemon, in this process."""
    runtime: Runtime = (
        runtimes.sandbox(folders) if kind == "sandbox" else runtimes.docker(folders, socket)
    )
    async with runtimes.opened(runtime):
        yield runtime


async def test_a_killed_daemon_finds_its_job_running_and_the_log_whole(
    folders: runtimes.Folders, kind: str, socket: str
) -> None:
    async with daemon(folders, kind, socket, 30, COUNTING) as process:
        await killed(process)
    async with back(folders, kind, socket) as runtime:
        (attempt,) = await runtime.adopt()
        assert (attempt.lease_id, attempt.attempt) == ("lease_kept", 1)
        done = await runtimes.finish(attempt)
        assert (done.exit.reason, done.exit.code) == (ExitReason.EXITED, 0)
        assert done.lines() == [f"line {number}" for number in range(1, 3001)]
        with await attempt.artifacts() as collection:
            assert [(file.name, file.read(0, 100)) for file in collection.files] == [
                ("end", b"whole")
            ]
        await attempt.release()
        assert not await runtime.adopt()


async def test_a_job_that_ended_meanwhile_is_found_with_its_exit(
    folders: runtimes.Folders, kind: str, socket: str
) -> None:
    code = "import sys, time; time.sleep(0.3); print('bye'); sys.exit(7)"
    async with daemon(folders, kind, socket, 30, code) as process:
        await killed(process)
    lock = folders.state / "attempts" / "lease_kept" / attempt_files.LOCK
    await asyncio.to_thread(attempt_files.wait_unlocked, lock)
    async with back(folders, kind, socket) as runtime:
        (attempt,) = await runtime.adopt()
        done = await runtimes.finish(attempt)
        assert (done.exit.code, done.lines()) == (7, ["bye"])
        await attempt.release()


async def test_an_adopted_job_can_be_stopped_and_renewed(
    folders: runtimes.Folders, kind: str, socket: str
) -> None:
    async with daemon(folders, kind, socket, 30, FOREVER) as process:
        await killed(process)
    async with back(folders, kind, socket) as runtime:
        (attempt,) = await runtime.adopt()
        attempt.renew(time.monotonic() + 60)
        attempt.stop("cancelled", 5.0)
        done = await runtimes.finish(attempt)
        assert done.exit.reason is ExitReason.STOPPED
        await attempt.release()


async def test_past_the_lease_the_shim_kills_by_itself(
    folders: runtimes.Folders, kind: str, socket: str
) -> None:
    async with daemon(folders, kind, socket, 1.5, FOREVER) as process:
        await killed(process)
    lock = folders.state / "attempts" / "lease_kept" / attempt_files.LOCK
    async with asyncio.timeout(10):
        await asyncio.to_thread(attempt_files.wait_unlocked, lock)
    async with back(folders, kind, socket) as runtime:
        (attempt,) = await runtime.adopt()
        done = await runtimes.finish(attempt)
        assert done.exit.reason is ExitReason.LEASE_EXPIRED
        await attempt.release()


async def test_a_killed_shim_takes_its_job_along_and_the_attempt_is_lost(
    folders: runtimes.Folders, kind: str, socket: str
) -> None:
    async with back(folders, kind, socket) as runtime:
        await runtime.adopt()
        code = "import time\nwhile True: print('tick', flush=True); time.sleep(0.01)"
        attempt = await runtimes.begin(runtime, runtimes.python(code))
        await runtimes.first_line(attempt)
        os.kill(shim_of(folders, attempt.lease_id), signal.SIGKILL)
        done = await runtimes.finish(attempt)
        assert done.exit.reason is ExitReason.RUNTIME_LOST
        assert set(done.lines()) == {"tick"}
        assert attempt.logs.read(done.exit.spool_bytes).blocks == ()
        await attempt.release()
        assert processes_with("print('tick'") == []


async def test_an_attempt_without_a_shim_never_runs(folders: runtimes.Folders) -> None:
    """A daemon that died between the grant and the fork: the folder is there, the shim is not."""
    folder = folders.state / "attempts" / "lease_kept"
    async with daemon(folders, "sandbox", "-", 30, FOREVER) as process:
        await killed(process)
        os.kill(shim_of(folders, "lease_kept"), signal.SIGKILL)
    await asyncio.to_thread(attempt_files.wait_unlocked, folder / attempt_files.LOCK)
    async with back(folders, "sandbox", "-") as runtime:
        (lost,) = await runtime.adopt()
        assert (await lost.wait()).reason is ExitReason.RUNTIME_LOST
        # A shim that is only now being forked for it must find the door shut.
        with pytest.raises(BlockingIOError):
            attempt_files.hold_lock(str(folder / attempt_files.LOCK))
        await lost.release()
        assert not folder.exists()


async def test_a_stopped_shim_does_not_keep_a_job_past_its_lease(
    folders: runtimes.Folders,
) -> None:
    """SIGSTOP for the shim: the daemon ends the attempt in its place."""
    async with back(folders, "sandbox", "-") as runtime:
        attempt = await runtimes.begin(runtime, runtimes.python(FOREVER), lease=1.0)
        await runtimes.first_line(attempt)
        os.kill(shim_of(folders, attempt.lease_id), signal.SIGSTOP)
        done = await runtimes.finish(attempt)
        assert done.exit.reason is ExitReason.RUNTIME_LOST
        await attempt.release()


async def test_a_killed_zygote_is_replaced(folders: runtimes.Folders) -> None:
    async with back(folders, "sandbox", "-") as runtime:
        running = await runtimes.begin(runtime, runtimes.python(FOREVER))
        zygote = runtime._host.zygote  # type: ignore[attr-defined]
        os.kill(zygote.pid, signal.SIGKILL)
        zygote._process.wait()
        done = await runtimes.run(runtime, runtimes.python("print('again')"))
        assert done.lines() == ["again"]
        running.stop("enough", 0.0)
        assert (await running.wait()).reason is ExitReason.STOPPED
        await running.release()


def shim_of(folders: runtimes.Folders, lease: str) -> int:
    """The process whose cwd is the attempt's folder."""
    folder = str(folders.state / "attempts" / lease)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "comm").exists():
            try:
                if os.readlink(entry / "cwd") == folder:
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError(f"no shim for {lease}")


def processes_with(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if text.encode() in (entry / "cmdline").read_bytes() and state != "Z":
                    found.append(int(entry.name))
        except OSError:
            continue
    return found
