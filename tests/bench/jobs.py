"""P1, P2 and P3: whole jobs through the whole grid, beside bare bubblewrap in the same run.

Clocks: throughput is N over the time from the first submit to the last terminal row; latency is
from before the POST to the `terminal` event at the client. Every job is durable (SQLite FULL),
billed and logged. Client, grid and node share the machine; CPU is read from /proc/PID/stat.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.stack import Stack, stack

CONNECTIONS = 16
TICKS = os.sysconf("SC_CLK_TCK")
BWRAP = (
    *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr"),
    *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--symlink"),
    *("usr/bin", "/bin", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "/bin/true"),
)
# A no-op that needs no interpreter, so that what is measured is the grid and the sandbox.
NOOP: dict[str, Any] = {"command": ["/bin/true"]}
SIMULATED: dict[str, Any] = {"environment": {"JUNGLEGRID_SIMULATE": "exit=0"}}


def room(slots: int) -> tuple[str, ...]:
    """A node's arguments for that many jobs at once, so that slots and not cores are the limit."""
    memory, disk = str(2**38), str(2**40)
    cores = ("--cpu-millis", str(slots * 2000))
    return ("--slots", str(slots), *cores, "--memory-bytes", memory, "--disk-bytes", disk)


@dataclass(slots=True)
class Rate:
    """Jobs a second, and where their CPU went in milliseconds a job."""

    jobs_per_second: float
    cpu_ms: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Latency:
    """Milliseconds from submit to terminal, and the medians of the steps between."""

    p50: float
    p95: float
    hops: dict[str, float]


def bare_bwrap(count: int, at_once: int) -> tuple[float, float]:
    """(starts a second with `at_once` running, median milliseconds of one alone)."""
    alone = []
    for _ in range(20):
        began = time.perf_counter()
        os.waitpid(os.posix_spawnp("bwrap", BWRAP, os.environ), 0)
        alone.append((time.perf_counter() - began) * 1000)
    began, running = time.perf_counter(), 0
    for _ in range(count):
        if running == at_once:
            os.waitpid(-1, 0)
            running -= 1
        os.posix_spawnp("bwrap", BWRAP, os.environ)
        running += 1
    for _ in range(running):
        os.waitpid(-1, 0)
    return count / (time.perf_counter() - began), statistics.median(alone)


async def throughput(whole: Stack, count: int, fields: dict[str, Any]) -> Rate:
    """Submits `count` jobs one request each on CONNECTIONS connections, and waits for all."""
    pids = {"grid": whole.grid.process.pid, "node": whole.nodes[0].process.pid}
    pids["client"] = os.getpid()
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    terminal_before = terminal(whole.grid.home)
    began = time.perf_counter()
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await whole.submit(**fields)

    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
    while terminal(whole.grid.home) - terminal_before < count:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    seconds = time.perf_counter() - began
    used = {name: (cpu_seconds(pid) - before[name]) * 1000 / count for name, pid in pids.items()}
    return Rate(count / seconds, used)


async def latency(whole: Stack, count: int, fields: dict[str, Any]) -> Latency:
    """One job at a time on an idle grid."""
    times, steps = [], []
    for _ in range(count):
        began = time.perf_counter()
        job_id = await whole.submit(**fields)
        accepted = time.perf_counter()
        await whole.finished(job_id)
        times.append((time.perf_counter() - began) * 1000)
        steps.append({"submit to 202": (accepted - began) * 1000, **await hops(whole, job_id)})
    names = steps[-1].keys()
    medians = {name: statistics.median(step.get(name, 0.0) for step in steps) for name in names}
    return Latency(
        statistics.median(times), sorted(times)[max(0, int(len(times) * 0.95) - 1)], medians
    )


async def hops(whole: Stack, job_id: str) -> dict[str, float]:
    """Milliseconds between one lifecycle event and the next."""
    items = (await whole.api.call("GET", f"/v1/jobs/{job_id}/events"))["items"]
    found: dict[str, float] = {}
    for one, two in itertools.pairwise(items):
        name = f"{one['type'].removeprefix('job.')} -> {two['type'].removeprefix('job.')}"
        gap = datetime.fromisoformat(two["created_at"]) - datetime.fromisoformat(one["created_at"])
        found[name] = gap.total_seconds() * 1000
    return found


def terminal(home: Path) -> int:
    """Final jobs, read beside the grid so that the count costs it nothing."""
    with sqlite3.connect(f"file:{home}/jobs.db?mode=ro", uri=True) as rows:
        query = "SELECT count(*) FROM jobs WHERE status IN ('completed', 'failed')"
        return int(rows.execute(query).fetchone()[0])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


async def measure(jobs: int, singles: int, rounds: int) -> None:
    """Prints P1, P2 and P3 against bare bubblewrap, in rounds A B A B."""
    async with stack(runtime="sandbox", gpus="simulated:l4:24GiB:16", arguments=room(16)) as whole:
        await throughput(whole, 16, NOOP)
        pairs = []
        for _ in range(rounds):
            bare, alone = await asyncio.to_thread(bare_bwrap, jobs, 4)
            ours = await throughput(whole, jobs, NOOP)
            pairs.append((ours.jobs_per_second / bare, ours, bare))
        show_rates("P1 sandboxed no-op jobs / bare bwrap, 4 at once", pairs)
        found = await latency(whole, singles, NOOP)
        show_latency("P3 submit to terminal, sandbox", found, alone)
    async with stack(
        runtime="simulated", gpus="simulated:l4:24GiB:64", arguments=room(64)
    ) as whole:
        await throughput(whole, 32, SIMULATED)
        rates = [await throughput(whole, jobs * 2, SIMULATED) for _ in range(rounds)]
        for rate in rates:
            print(f"P2 simulated runtime: {rate.jobs_per_second:.0f} jobs/s, {cpu(rate)}")
        show_latency(
            "P3 submit to terminal, simulated", await latency(whole, singles, SIMULATED), 0
        )


def show_rates(title: str, pairs: Sequence[tuple[float, Rate, float]]) -> None:
    """The ratio's median and range, and the rates behind it."""
    ratios = sorted(ratio for ratio, _, _ in pairs)
    print(f"{title}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    for _, ours, bare in pairs:
        print(f"   {ours.jobs_per_second:.0f} jobs/s against {bare:.0f}; {cpu(ours)}")


def show_latency(title: str, found: Latency, bare: float) -> None:
    """Median, p95 and the steps."""
    print(f"{title}: p50 {found.p50:.1f} ms, p95 {found.p95:.1f} ms; bare bwrap {bare:.1f} ms")
    for name, milliseconds in found.hops.items():
        print(f"   {name:<44} {milliseconds:7.1f} ms")


def cpu(rate: Rate) -> str:
    """`grid 4.1 + node 2.0 + client 1.2 ms CPU a job`."""
    return " + ".join(f"{name} {ms:.1f}" for name, ms in rate.cpu_ms.items()) + " ms CPU a job"
