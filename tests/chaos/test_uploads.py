"""kill -9 between the steps of an upload: nothing half is ever served, nothing is left behind."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.stack import Stack, stack

DATA = "bytes of an artifact"
SIMULATED = {"JUNGLEGRID_SIMULATE": f"stdout=begun;artifact=out.txt:{DATA};exit=0"}

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole() -> AsyncIterator[Stack]:
    async with stack(runtime="simulated") as found:
        yield found


def objects(whole: Stack) -> list[str]:
    """What lies in the store."""
    root = whole.grid.home / "objects" / "objects"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def unfinished(whole: Stack) -> list[Path]:
    return [*(whole.grid.home / "objects" / "tmp").glob("*")]


async def restarted(whole: Stack, failpoint: str | None) -> None:
    await whole.grid.stop()
    await whole.grid.start(failpoint=failpoint)


async def died(whole: Stack) -> None:
    """Returns once the grid has killed itself at its failpoint."""
    async with asyncio.timeout(30):
        await whole.grid.process.wait()


async def check_artifact(whole: Stack, job_id: str) -> None:
    job = await whole.finished(job_id, 60)
    assert (job["status"], job["retry_count"], job["artifacts_ready"]) == ("completed", 0, True)
    events = await whole.api.call("GET", f"/v1/jobs/{job_id}/events")
    assert "job.log_gap" not in [event["type"] for event in events["items"]]
    listing = await whole.api.call("GET", f"/v1/jobs/{job_id}/artifacts")
    (artifact,) = listing["artifacts"]
    assert artifact["ready"] is True
    path = f"/v1/jobs/{job_id}/artifacts/{artifact['artifact_id']}/download"
    grant = await whole.api.call("POST", path)
    data = await whole.api.get(grant["url"])
    assert data == DATA.encode()
    assert hashlib.sha256(data).hexdigest() == artifact["sha256"]
    assert [name for name in objects(whole) if name.startswith("staging/")] == []
    assert len([name for name in objects(whole) if job_id in name]) == 1


@pytest.mark.parametrize(
    "point", ["artifacts.commit.after_copy_before_row", "objects.after_rename"]
)
async def test_killed_while_an_artifact_is_kept(whole: Stack, point: str) -> None:
    await restarted(whole, f"{point}=kill")
    job_id = await whole.submit(environment=SIMULATED, expected_artifacts=["out.txt"])
    await died(whole)
    await whole.grid.start()
    await check_artifact(whole, job_id)


async def test_a_commit_that_fails_holds_the_job_until_it_works(whole: Stack) -> None:
    await restarted(whole, "artifacts.commit.after_copy_before_row=error")
    job_id = await whole.submit(environment=SIMULATED, expected_artifacts=["out.txt"])
    async for name, _ in whole.api.events(f"/v1/jobs/{job_id}/logs/live"):
        if name == "log":
            break
    job: dict[str, Any] = await whole.api.call("GET", f"/v1/jobs/{job_id}")
    assert job["status"] not in ("completed", "failed")
    await restarted(whole, None)
    await check_artifact(whole, job_id)


async def test_killed_while_an_input_is_kept(whole: Stack) -> None:
    slot = (await whole.api.call("POST", "/v1/job-inputs", {"filename": "in.bin"}))["upload"]
    await whole.api.put(slot["upload_url"], DATA.encode(), slot["headers"])
    await restarted(whole, "artifacts.input.after_copy=kill")
    path = f"/v1/job-inputs/{slot['input_id']}/complete"
    with pytest.raises(aiohttp.ClientError):
        await whole.api.call("POST", path, {"token": slot["token"]})
    await died(whole)
    await whole.grid.start()
    listing = await whole.api.call("GET", "/v1/job-inputs")
    assert [item["status"] for item in listing["inputs"]] == ["pending"]
    done = await whole.api.call("POST", path, {"token": slot["token"]})
    assert done["input"]["sha256"] == hashlib.sha256(DATA.encode()).hexdigest()
    assert [name for name in objects(whole) if name.startswith("staging/")] == []
    assert unfinished(whole) == []
