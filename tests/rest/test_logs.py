"""GET /v1/jobs/{job_id}/logs, and /logs/live."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_asyncio

from tests.rest.conftest import Workspace
from tests.rest.drafts import finished, simulated, submit, waiting
from tests.rest.shapes import LOGS, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINES = 25


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def job_id(ours: Workspace) -> str:
    """A job that has written 25 lines and one to stderr."""
    made = await submit(ours.api, simulated(f"lines={LINES};stderr=oops;exit=3"))
    job = await finished(ours.api, made)
    assert (job["status"], job["exit_code"]) == ("failed", 3)
    return made


async def read(ours: Workspace, job_id: str, **params: Any) -> dict[str, Any]:
    page = await ours.api.get(f"/v1/jobs/{job_id}/logs", **params)
    assert page.status == 200, page.body
    assert problems(page.body, LOGS) == []
    found: dict[str, Any] = page.body
    return found


async def test_tail(ours: Workspace, job_id: str) -> None:
    page = await read(ours, job_id, tail=5, stream="stdout")
    assert len(page["items"]) == 5
    assert page["has_more"] is False
    everything = await read(ours, job_id, limit=500, stream="stdout")
    assert everything["items"][-5:] == page["items"]
    first = everything["items"][0]
    assert (first["source"], first["category"]) == ("app-stdout", "workload_stdout")


async def test_cursor_leaves_no_hole(ours: Workspace, job_id: str) -> None:
    everything = await read(ours, job_id, limit=500)
    found: list[dict[str, Any]] = []
    cursor, more = 0, True
    while more:
        page = await read(ours, job_id, cursor=cursor, limit=7)
        found += page["items"]
        cursor, more = page["next_cursor"], page["has_more"]
    assert found == everything["items"]
    assert [item["entry_id"] for item in found] == list(range(1, len(found) + 1))
    assert (await read(ours, job_id, cursor=cursor))["next_cursor"] == cursor


async def test_cursor_that_no_entry_has(ours: Workspace, job_id: str) -> None:
    for cursor in ("-1", "abc", "9" * 20):
        for path in ("logs", "logs/live"):
            refused = await ours.api.get(f"/v1/jobs/{job_id}/{path}", cursor=cursor)
            assert (refused.status, refused.code) == (400, "INVALID_REQUEST")
            assert "next_cursor" in refused.message


async def test_streams_are_told_apart(ours: Workspace, job_id: str) -> None:
    errors = await read(ours, job_id, stream="stderr")
    assert [item["message"] for item in errors["items"]] == ["oops"]
    assert errors["items"][0]["category"] == "workload_stderr"
    assert len((await read(ours, job_id, stream="all", limit=500))["items"]) >= LINES + 1


async def test_before_the_start(ours: Workspace) -> None:
    made = await submit(ours.api, waiting())
    page = await read(ours, made)
    assert (page["items"], page["next_cursor"], page["status"]) == ([], 0, "queued")
    assert (await ours.api.post(f"/v1/jobs/{made}/cancel")).status == 200


async def test_live_gives_the_same_entries_and_ends(ours: Workspace, job_id: str) -> None:
    everything = (await read(ours, job_id, limit=500))["items"]
    events = [event async for event in ours.api.stream(f"/v1/jobs/{job_id}/logs/live?cursor=0")]
    logs = [event for event in events if event["event"] == "log"]
    assert [json.loads(event["data"]) for event in logs] == everything
    assert [int(event["id"]) for event in logs] == [item["entry_id"] for item in everything]
    assert events[0]["event"] == "status"
    assert events[-1]["event"] == "terminal"
    end = json.loads(events[-1]["data"])
    assert (end["job_id"], end["status"], end["exit_code"]) == (job_id, "failed", 3)


async def test_live_goes_on_after_the_last_event(ours: Workspace, job_id: str) -> None:
    path = f"/v1/jobs/{job_id}/logs/live"
    events = [e async for e in ours.api.stream(path, {"Last-Event-ID": "20"})]
    ids = [int(event["id"]) for event in events if event["event"] == "log"]
    assert ids[0] == 21
    assert ids == list(range(21, ids[-1] + 1))


@pytest.mark.parametrize(
    "params",
    [
        {"tail": "0"},
        {"tail": "501"},
        {"limit": "0"},
        {"limit": "501"},
        {"limit": "x"},
        {"cursor": "x"},
        {"cursor": "-1"},
        {"stream": "stdin"},
    ],
)
async def test_bad_query(ours: Workspace, job_id: str, params: dict[str, str]) -> None:
    refused = await ours.api.get(f"/v1/jobs/{job_id}/logs", **params)
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")
