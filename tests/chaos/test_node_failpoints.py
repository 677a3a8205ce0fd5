"""The daemon and nodes die at named places (reliability.md K5 to K9, K13): the job ends once."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.up import bootstrap
from tests.support.stack import Stack, python, stack

# Leases at a sixth of the product's time.
FAST = {
    "GRID_NODES__HEARTBEAT_SECONDS": "0.8",
    "GRID_NODES__LEASE_TTL_SECONDS": "5",
    "GRID_NODES__LOST_GRACE_SECONDS": "3.5",
    "GRID_NODES__STOP_GRACE_SECONDS": "1.5",
    "GRID_NODES__CLAIM_SECONDS": "10",
}
WORK = python(
    "from pathlib import Path;print('ran');Path('/workspace/artifacts/a.txt').write_text('a')"
)
pytestmark = pytest.mark.timeout(150)


async def dies(whole: Stack, failpoint: str) -> str:
    """Starts the node anew so that it dies at `failpoint`, and submits a job that leads there."""
    node = whole.nodes[0]
    await node.stop()
    await node.start({"GRID_FAILPOINT": f"{failpoint}=kill"})
    job_id = await whole.submit(command=WORK)
    await node.process.wait()
    return job_id


async def ends_once(whole: Stack, job_id: str, *attempts: int) -> dict[str, Any]:
    """Completed, after one of those numbers of attempts, with one log and one artifact."""
    await whole.finished(job_id, 60)
    job = await whole.settled(job_id)
    assert (job["status"], job["exit_code"]) == ("completed", 0)
    made = len(job["attempts"])
    assert made in attempts
    assert job["retry_count"] == made - 1
    last = [each for each in await whole.lines(job_id) if each["attempt"] == made]
    assert [each["message"] for each in last if each["stream"] == "stdout"] == ["ran"]
    listing = await whole.api.call("GET", f"/v1/jobs/{job_id}/artifacts")
    assert [each["filename"] for each in listing["artifacts"]] == ["a.txt"]
    return job


@pytest.mark.parametrize(
    ("failpoint", "attempts"),
    [
        ("node.claim.before", 1),  # not claimed: the same attempt is claimed by the next daemon
        ("node.claim.after_grant", 2),  # claimed, never started: that attempt never runs
        ("node.start.after", 1),  # the shim goes on, and is found again
        ("node.upload.after_put", 1),
        ("node.complete.before", 1),
    ],
)
async def test_the_daemon_dies_and_comes_back(failpoint: str, attempts: int) -> None:
    async with stack(runtime="sandbox", overrides=FAST) as whole:
        job_id = await dies(whole, failpoint)
        await whole.nodes[0].start()
        await ends_once(whole, job_id, attempts)


async def test_the_daemon_dies_for_good_and_another_node_takes_over() -> None:
    async with stack(runtime="sandbox", nodes=2, overrides=FAST) as whole:
        first, second = whole.nodes
        await second.stop()
        job_id = await dies(whole, "node.claim.after_grant")
        await second.start()
        await ends_once(whole, job_id, 2)
        assert first.process.returncode is not None


@pytest.mark.parametrize(
    ("failpoint", "attempts"),
    [
        ("nodes.open_lease.after_commit", (1,)),
        # The answer is lost. Asked again by the same session it is given again, since nothing was
        # started; a session that was opened meanwhile does not get it, and the next attempt runs.
        ("nodes.claim.after_grant", (1, 2)),
        ("nodes.complete.after_commit", (1,)),
    ],
)
async def test_the_grid_dies_and_comes_back(failpoint: str, attempts: tuple[int, ...]) -> None:
    async with stack(runtime="sandbox", overrides=FAST) as whole:
        await whole.grid.stop()
        await whole.grid.start(failpoint=f"{failpoint}=kill")
        assert await bootstrap.online(whole.channel, 20) is not None
        job_id = await whole.submit(command=WORK)
        await whole.grid.process.wait()
        await whole.grid.start()
        await ends_once(whole, job_id, *attempts)
