"""GET /v1/jobs, one job, its runtime and its events."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.rest.conftest import Workspace
from tests.rest.drafts import draft, finished, simulated, submit, waiting
from tests.rest.shapes import EVENTS, JOB, JOBS, RUNTIME, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNKNOWN = ("job_01ARZ3NDEKTSV4RRFFQ69G5FAV", "job_x", "x", "%00")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def job_id(ours: Workspace) -> str:
    script = "stdout=done;stderr=careful;artifact=transcript.txt:done;exit=0"
    made = await submit(ours.api, simulated(script, metadata={"client_request_id": "r1"}))
    await finished(ours.api, made)
    return made


async def test_reads_answer_right_after_the_submit(ours: Workspace) -> None:
    made = await submit(ours.api, draft())
    job = await ours.api.get(f"/v1/jobs/{made}")
    assert job.status == 200
    assert problems(job.body, JOB) == []
    events = await ours.api.get(f"/v1/jobs/{made}/events")
    assert events.status == 200
    assert problems(events.body, EVENTS) == []
    listing = await ours.api.get("/v1/jobs")
    assert listing.body["jobs"][0]["job_id"] == made


async def test_runtime_before_the_start(ours: Workspace) -> None:
    # More GPUs than the node has: it waits.
    made = await submit(ours.api, waiting())
    runtime = await ours.api.get(f"/v1/jobs/{made}/runtime")
    assert (runtime.status, runtime.code) == (404, "NOT_FOUND")
    assert runtime.message == "job runtime not available yet"
    job = await ours.api.get(f"/v1/jobs/{made}")
    assert problems(job.body, JOB) == []
    assert job.body["status"] == "queued"
    assert (await ours.api.post(f"/v1/jobs/{made}/cancel")).status == 200


async def test_finished_job(ours: Workspace, job_id: str) -> None:
    job = await ours.api.get(f"/v1/jobs/{job_id}")
    assert problems(job.body, JOB) == []
    assert (job.body["status"], job.body["phase"]) == ("completed", "terminal")
    assert (job.body["exit_code"], job.body["artifacts_ready"]) == (0, True)
    assert job.body["metadata"] == {"client_request_id": "r1"}
    assert job.body["scheduling"]["worker_assigned"] is True
    assert job.body["started_at"] <= job.body["completed_at"]
    assert job.body["simulated"] is True


async def test_runtime_of_the_contract(ours: Workspace, job_id: str) -> None:
    runtime = await ours.api.get(f"/v1/jobs/{job_id}/runtime")
    assert runtime.status == 200
    assert problems(runtime.body, RUNTIME) == []
    assert (runtime.body["exit_code"], runtime.body["timed_out"]) == (0, False)
    assert runtime.body["stdout_tail"] == "done"
    assert runtime.body["stderr_tail"] == "careful"
    assert runtime.body["runtime_availability"]["exit_code"]["state"] == "available"


async def test_events_of_the_contract(ours: Workspace, job_id: str) -> None:
    events = await ours.api.get(f"/v1/jobs/{job_id}/events")
    assert problems(events.body, EVENTS) == []
    items = events.body["items"]
    sequences = [item["sequence"] for item in items]
    assert sequences == [10 * (n + 1) for n in range(len(items))]
    assert len({item["id"] for item in items}) == len(items)
    queued = next(item for item in items if item["type"] == "job.queued")
    assert queued["id"] == f"{job_id}:queued"
    assert queued["phase"] == "queued"
    assert queued["source"] == "platform"
    assert items[-1]["phase"] == "terminal"


async def test_list_of_the_contract(ours: Workspace, job_id: str) -> None:
    listing = await ours.api.get("/v1/jobs", limit=20, cursor=0, status="completed")
    assert listing.status == 200
    assert problems(listing.body, JOBS) == []
    assert listing.body["limit"] == 20
    assert {job["status"] for job in listing.body["jobs"]} == {"completed"}
    assert job_id in [job["job_id"] for job in await every_job(ours)]


async def every_job(workspace: Workspace) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    cursor = "0"
    while cursor:
        page = await workspace.api.get("/v1/jobs", limit=3, cursor=cursor)
        assert problems(page.body, JOBS) == []
        assert len(page.body["jobs"]) <= 3
        found += page.body["jobs"]
        cursor = page.body["next_cursor"]
        assert page.body["has_more"] is bool(cursor)
    return found


async def test_list_pages_to_its_end(ours: Workspace, job_id: str) -> None:
    ids = [job["job_id"] for job in await every_job(ours)]
    assert len(ids) == len(set(ids))
    assert ids == sorted(ids, reverse=True)


async def test_default_page(ours: Workspace) -> None:
    assert (await ours.api.get("/v1/jobs")).body["limit"] == 20


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "x"},
        {"status": "sleeping"},
        {"cursor": "tampered"},
        {"cursor": "-1"},
    ],
)
async def test_bad_page(clean: Workspace, params: dict[str, str]) -> None:
    refused = await clean.api.get("/v1/jobs", **params)
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("job_id", UNKNOWN)
@pytest.mark.parametrize("rest", ["", "/runtime", "/events", "/logs", "/logs/live", "/artifacts"])
async def test_unknown_job(clean: Workspace, job_id: str, rest: str) -> None:
    answer = await clean.api.get(f"/v1/jobs/{job_id}{rest}")
    assert (answer.status, answer.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize("rest", ["", "/runtime", "/events", "/logs", "/logs/live", "/artifacts"])
async def test_job_of_another_workspace_is_unknown(
    ours: Workspace, clean: Workspace, job_id: str, rest: str
) -> None:
    foreign = await clean.api.get(f"/v1/jobs/{job_id}{rest}")
    unknown = await clean.api.get(f"/v1/jobs/{UNKNOWN[0]}{rest}")
    assert foreign.status == unknown.status == 404
    assert foreign.data.replace(job_id.encode(), b"") == unknown.data.replace(
        UNKNOWN[0].encode(), b""
    )
