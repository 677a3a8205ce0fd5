"""SIGSTOP of the daemon or of the grid in the middle of a job, for less or more than a lease."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.chaos.test_node_failpoints import FAST
from tests.support.stack import Stack, python, stack

# Says when it runs, so that two attempts at once would show in the log.
WORK = python(
    "import time\n"
    "print('begin', flush=True)\n"
    "for _ in range(40): time.sleep(0.1)\n"
    "print('end', flush=True)"
)
LOST_SECONDS = 8.5
pytestmark = pytest.mark.timeout(150)


async def running(whole: Stack) -> str:
    job_id = await whole.submit(command=WORK)
    async for name, data in whole.api.events(f"/v1/jobs/{job_id}/logs/live"):
        if name == "log" and "begin" in str(data):
            break
    return job_id


async def freeze(pid: int, seconds: float) -> None:
    import os

    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    os.kill(pid, signal.SIGCONT)


async def ends(whole: Stack, job_id: str, attempts: int) -> None:
    await whole.finished(job_id, 60)
    job = await whole.settled(job_id)
    assert (job["status"], len(job["attempts"])) == ("completed", attempts)
    lines = [
        each["message"]
        for each in await whole.lines(job_id)
        if each["stream"] == "stdout" and each["attempt"] == attempts
    ]
    assert lines == ["begin", "end"]


async def test_a_daemon_frozen_for_less_than_a_lease_goes_on() -> None:
    async with stack(runtime="sandbox", overrides=FAST) as whole:
        job_id = await running(whole)
        await freeze(whole.nodes[0].process.pid, 2.0)
        await ends(whole, job_id, attempts=1)


async def test_a_daemon_frozen_for_longer_has_lost_its_attempt() -> None:
    """The shim kills it at the lease's end; the grid gives it to the next attempt after that."""
    async with stack(runtime="sandbox", overrides=FAST) as whole:
        job_id = await running(whole)
        await freeze(whole.nodes[0].process.pid, LOST_SECONDS + 2.0)
        await ends(whole, job_id, attempts=2)


async def test_a_frozen_grid_blames_no_node() -> None:
    """What ends within its lease meanwhile is kept; the silence was the grid's, not the node's."""
    async with stack(runtime="sandbox", overrides=FAST) as whole:
        job_id = await running(whole)
        await freeze(whole.grid.process.pid, LOST_SECONDS + 2.0)
        await ends(whole, job_id, attempts=1)
        found = (whole.grid.home.parent / "grid.log").read_text()
        assert "node lost" not in found
