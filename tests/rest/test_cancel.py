"""POST /v1/jobs/{job_id}/cancel."""

from __future__ import annotations

import pytest

from tests.rest.conftest import Workspace
from tests.rest.drafts import draft, finished, simulated, submit, waiting
from tests.rest.shapes import CANCELLED, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_cancel_of_a_waiting_job(ours: Workspace) -> None:
    made = await submit(ours.api, waiting())
    done = await ours.api.post(f"/v1/jobs/{made}/cancel", {"reason": "user requested stop"})
    assert done.status == 200
    assert problems(done.body, CANCELLED) == []
    assert done.body["status_reason"] == "user requested stop"
    job = await ours.api.get(f"/v1/jobs/{made}")
    assert (job.body["status"], job.body["status_reason"]) == ("cancelled", "user requested stop")
    again = await ours.api.post(f"/v1/jobs/{made}/cancel", {"reason": "twice"})
    assert (again.status, again.code) == (409, "CONFLICT")


async def test_cancel_of_a_running_job(ours: Workspace) -> None:
    made = await submit(ours.api, simulated("stdout=begun;hang"))
    async for event in ours.api.stream(f"/v1/jobs/{made}/logs/live"):
        if event["event"] == "log":
            done = await ours.api.post(f"/v1/jobs/{made}/cancel", {"reason": "enough"})
            assert done.status == 200
    job = await ours.api.get(f"/v1/jobs/{made}")
    assert job.body["status"] == "cancelled"


async def test_cancel_of_a_finished_job(ours: Workspace) -> None:
    made = await submit(ours.api, draft())
    await finished(ours.api, made)
    refused = await ours.api.post(f"/v1/jobs/{made}/cancel", {"reason": "late"})
    assert (refused.status, refused.code) == (409, "CONFLICT")


async def test_cancel_without_a_body(ours: Workspace) -> None:
    made = await submit(ours.api, waiting())
    done = await ours.api.send("POST", f"/v1/jobs/{made}/cancel")
    assert done.status == 200, done.body


async def test_unknown_and_foreign_jobs(theirs: Workspace, clean: Workspace) -> None:
    made = await submit(theirs.api, waiting())
    for job_id in (made, "job_01ARZ3NDEKTSV4RRFFQ69G5FAV", "x"):
        refused = await clean.api.post(f"/v1/jobs/{job_id}/cancel", {"reason": "x"})
        assert (refused.status, refused.code) == (404, "NOT_FOUND")
    assert (await theirs.api.get(f"/v1/jobs/{made}")).body["status"] == "queued"
    assert (await theirs.api.post(f"/v1/jobs/{made}/cancel")).status == 200


async def test_too_long_a_reason(ours: Workspace) -> None:
    made = await submit(ours.api, waiting())
    refused = await ours.api.post(f"/v1/jobs/{made}/cancel", {"reason": "x" * 501})
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")
    assert (await ours.api.post(f"/v1/jobs/{made}/cancel")).status == 200
