"""What the sandbox runtime adds to bare bwrap, and how fast a spool takes lines.

    python -m tests.bench.sandbox_start [ROUNDS]

Both start `true` with the same bwrap options in the same run, in turns (A B A B), so that a busy
machine burdens both. "ours" is prepare (a slot, its folders) to the exit being known; it includes
the slot's user, control groups, the spool and exit.json synced. "release" (the wipe) is off that
path.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.node_daemon import seccomp, syscalls
from services.node_daemon.runtime.bwrap import Sandbox, options
from services.node_daemon.runtime.rootfs import Rootfs, find_python
from services.node_daemon.runtime.sandbox import SandboxRuntime
from services.node_daemon.runtime.shimmed import ShimHost
from services.node_daemon.spool import STDOUT, SpoolWriter, read_blocks
from tests.support import runtimes

MIB = runtimes.MIB
AT_ONCE = 4


def bare(folders: runtimes.Folders) -> float:
    """Seconds for bwrap alone, as a slot's user, by fork and exec."""
    workspace = folders.run / "bare"
    workspace.mkdir(exist_ok=True)
    os.chown(workspace, 200_000, 200_000)
    root = Rootfs(folders.run / "root", find_python()[1], ())
    given = options(root, Sandbox(workspace, 64 * MIB, {}))
    given = given[: given.index("--json-status-fd")]
    filter_fd = os.memfd_create("filter")
    os.write(filter_fd, seccomp.program(syscalls.MACHINE))
    os.lseek(filter_fd, 0, os.SEEK_SET)
    started = time.perf_counter()
    subprocess.run(
        ["bwrap", *given, "--seccomp", str(filter_fd), "true"],
        check=True, user=200_000, group=200_000, extra_groups=[], pass_fds=(filter_fd,),
    )  # fmt: skip
    spent = time.perf_counter() - started
    os.close(filter_fd)
    return spent


async def ours(runtime: SandboxRuntime) -> dict[str, float]:
    """Seconds from prepare to each later moment."""
    task = runtimes.launch("true")
    marks = {}
    started = time.perf_counter()
    prepared = await runtime.prepare(task, runtimes.Told())
    marks["prepared"] = time.perf_counter() - started
    attempt = await runtime.start(prepared, time.monotonic() + 30)
    marks["running"] = time.perf_counter() - started
    await attempt.wait()
    marks["exited"] = time.perf_counter() - started
    await attempt.release()
    marks["released"] = time.perf_counter() - started
    return marks


async def rate(runtime: SandboxRuntime, jobs: int) -> float:
    """Jobs a second, AT_ONCE at a time, release included."""
    started = time.perf_counter()

    async def worker(count: int) -> None:
        for _ in range(count):
            await ours(runtime)

    await asyncio.gather(*(worker(jobs // AT_ONCE) for _ in range(AT_ONCE)))
    return jobs / (time.perf_counter() - started)


def bare_rate(folders: runtimes.Folders, jobs: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda _: bare(folders), range(jobs)))
    return jobs / (time.perf_counter() - started)


def spool_rates(lines: int) -> tuple[float, float]:
    """Seconds of CPU to write and to read back `lines` lines of 80 bytes."""
    chunk = b"".join(b"%079d\n" % number for number in range(800))
    with tempfile.TemporaryDirectory() as folder:
        fd = os.open(Path(folder) / "spool", os.O_RDWR | os.O_CREAT)
        writer = SpoolWriter(fd, 1 << 40)
        started = time.process_time()
        for _ in range(lines // 800):
            writer.feed(STDOUT, chunk, 0)
        wrote = time.process_time() - started
        started, offset, seen = time.process_time(), 0, 0
        while (batch := read_blocks(fd, offset, 65536)).blocks:
            seen += sum(len(block.lines) for block in batch.blocks)
            offset = batch.next_offset
        assert seen == lines
        return wrote, time.process_time() - started


def milliseconds(values: list[float]) -> str:
    ordered = sorted(values)
    p95 = ordered[int(len(ordered) * 0.95)]
    return f"p50 {statistics.median(ordered) * 1e3:6.2f} ms   p95 {p95 * 1e3:6.2f} ms"


async def a_job_with_a_million_lines(runtime: SandboxRuntime) -> float:
    code = "import sys\nfor _ in range(1000): sys.stdout.write(('x' * 79 + '\\n') * 1000)"
    started = time.perf_counter()
    task = runtimes.python(code, log_bytes_max=1 << 30)
    attempt = await runtimes.begin(runtime, task)
    ended = await attempt.wait()
    spent = time.perf_counter() - started
    assert ended.stdout_entries == 1_000_000, ended
    await attempt.release()
    return spent


async def main(rounds: int) -> None:
    folders = runtimes.Folders.make()
    host: ShimHost = runtimes.host(folders, slots_max=8, ready=6)
    runtime = runtimes.sandbox_with(folders, host)
    try:
        await runtime.open()
        await runtime.adopt()
        await asyncio.to_thread(host.slots.sweep)
        alone, marks = [], []
        for _ in range(rounds):
            alone.append(bare(folders))
            marks.append(await ours(runtime))
        print(f"{rounds} rounds of `true`, one at a time, in turns")
        print(f"  bare bwrap             {milliseconds(alone)}")
        for name in ("prepared", "running", "exited", "released"):
            print(f"  ours, until {name:10} {milliseconds([mark[name] for mark in marks])}")
        added = statistics.median(mark["exited"] for mark in marks) - statistics.median(alone)
        print(f"  added at p50           {added * 1e3:6.2f} ms")
        one, two = bare_rate(folders, rounds), await rate(runtime, rounds)
        print(f"{AT_ONCE} at a time: bare {one:.0f}/s, ours {two:.0f}/s, ratio {two / one:.2f}")
        wrote, read = spool_rates(1_000_000)
        print(f"spool, 1,000,000 lines of 80 B: write {wrote:.2f} s CPU, read {read:.2f} s CPU")
        print(f"a sandboxed job printing them: {await a_job_with_a_million_lines(runtime):.2f} s")
    finally:
        await runtime.close()
        folders.remove()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
