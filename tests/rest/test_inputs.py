"""/v1/job-inputs: create, PUT, complete, list."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.rest.conftest import Workspace
from tests.rest.drafts import draft, upload
from tests.rest.shapes import ERROR, INPUT, INPUTS, SLOT, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCRIPT = b"print('hello')\n"


async def test_slot_put_complete_list(ours: Workspace) -> None:
    made = await ours.api.post(
        "/v1/job-inputs",
        {"filename": "transcribe.py", "content_type": "text/x-python", "kind": "script"},
    )
    assert made.status == 201
    assert problems(made.body, SLOT) == []
    slot = made.body["upload"]
    assert slot["complete_url"] == f"{ours.api.base}/v1/job-inputs/{slot['input_id']}/complete"
    sent = await ours.api.put_url(
        slot["upload_url"], SCRIPT, {"Content-Type": "text/x-python", **slot["headers"]}
    )
    assert sent.status == 200
    done = await ours.api.post(
        slot["complete_url"].removeprefix(ours.api.base),
        {
            "token": slot["token"],
            "filename": "transcribe.py",
            "content_type": "text/x-python",
            "size_bytes": len(SCRIPT),
            "etag": sent.headers.get("ETag", ""),
        },
    )
    assert done.status == 200, done.body
    assert problems(done.body, {"input": INPUT}) == []
    listing = await ours.api.get("/v1/job-inputs")
    assert listing.status == 200
    assert problems(listing.body, INPUTS) == []
    [shown] = [i for i in listing.body["inputs"] if i["input_id"] == slot["input_id"]]
    assert shown == done.body["input"]
    assert shown["status"] == "uploaded"
    assert shown["ready"] is True
    assert shown["mount_path"] == "/workspace/scripts/transcribe.py"
    assert shown["sha256"] == hashlib.sha256(SCRIPT).hexdigest()


async def test_complete_is_idempotent_and_a_late_put_changes_nothing(ours: Workspace) -> None:
    slot, done = await upload(ours.api, "a.txt", b"first")
    late = await ours.api.put_url(slot["upload_url"], b"other", {})
    assert late.status == 409
    again = await ours.api.post(
        f"/v1/job-inputs/{slot['input_id']}/complete", {"token": slot["token"]}
    )
    assert (again.status, again.body) == (200, done.body)


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"token": "wrong"}, "token"),
        ({"token": ""}, "token"),
        ({"filename": "b.txt"}, "filename"),
        ({"content_type": "text/html"}, "content_type"),
        ({"size_bytes": 4}, "size_bytes"),
        ({"etag": "0123"}, "etag"),
    ],
)
async def test_complete_compares_what_it_is_told(
    ours: Workspace, told: dict[str, Any], field: str
) -> None:
    slot, refused = await upload(ours.api, "a.txt", b"first", told=told)
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")
    assert refused.body["error"]["details"]["field"] == field
    listing = await ours.api.get("/v1/job-inputs", limit=1)
    assert listing.body["inputs"][0]["input_id"] == slot["input_id"]
    assert listing.body["inputs"][0]["status"] == "pending"


async def test_complete_before_the_bytes(ours: Workspace) -> None:
    made = await ours.api.post("/v1/job-inputs", {"filename": "late.bin"})
    slot = made.body["upload"]
    path = f"/v1/job-inputs/{slot['input_id']}/complete"
    refused = await ours.api.post(path, {"token": slot["token"]})
    assert (refused.status, refused.code) == (409, "JOB_INPUT_NOT_READY")
    submit = await ours.api.post("/v1/jobs", draft(input_files=[{"input_id": slot["input_id"]}]))
    assert (submit.status, submit.code) == (409, "JOB_INPUT_NOT_READY")


async def test_put_is_held_to_what_was_announced(ours: Workspace) -> None:
    made = await ours.api.post("/v1/job-inputs", {"filename": "a.bin", "size_bytes": 3})
    refused = await ours.api.put_url(made.body["upload"]["upload_url"], b"four", {})
    assert refused.status == 413


async def test_list_pages_to_its_end(ours: Workspace) -> None:
    for number in range(3):
        await ours.api.post("/v1/job-inputs", {"filename": f"page{number}.txt"})
    seen: list[str] = []
    cursor = "0"
    while cursor:
        page = await ours.api.get("/v1/job-inputs", limit=2, cursor=cursor)
        assert problems(page.body, INPUTS) == []
        seen += [item["input_id"] for item in page.body["inputs"]]
        cursor = page.body["next_cursor"]
        assert page.body["has_more"] is bool(cursor)
    assert len(seen) == len(set(seen)) >= 3
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "INVALID_REQUEST"),
        ({"filename": ""}, 400, "INVALID_REQUEST"),
        ({"filename": "../../etc/passwd"}, 400, "INVALID_REQUEST"),
        ({"filename": "a/b"}, 400, "INVALID_REQUEST"),
        ({"filename": "a\u0000b"}, 400, "INVALID_REQUEST"),
        ({"filename": "x" * 256}, 400, "INVALID_REQUEST"),
        ({"filename": "\u202etxt.exe"}, 400, "INVALID_REQUEST"),
        ({"filename": 7}, 400, "INVALID_REQUEST"),
        ({"filename": "a", "content_type": "not a type\r\n"}, 400, "INVALID_REQUEST"),
        ({"filename": "a", "size_bytes": -1}, 400, "INVALID_REQUEST"),
        ({"filename": "a", "size_bytes": "many"}, 400, "INVALID_REQUEST"),
        ({"filename": "a", "size_bytes": 1 << 50}, 413, "PAYLOAD_TOO_LARGE"),
        ([], 400, "INVALID_REQUEST"),
    ],
)
async def test_bad_slot_leaves_nothing(clean: Workspace, body: Any, status: int, code: str) -> None:
    refused = await clean.api.post("/v1/job-inputs", body)
    assert (refused.status, refused.code) == (status, code)
    assert problems(refused.body, ERROR) == []
    assert len(refused.message) > 10


@pytest.mark.parametrize("input_id", ["inp_01ARZ3NDEKTSV4RRFFQ69G5FAV", "inp_x", "nothing"])
async def test_unknown_input(clean: Workspace, input_id: str) -> None:
    refused = await clean.api.post(f"/v1/job-inputs/{input_id}/complete", {"token": "t"})
    assert (refused.status, refused.code) == (404, "JOB_INPUT_NOT_FOUND")
    for field in ("input_files", "script_files"):
        submit = await clean.api.post("/v1/jobs", draft(**{field: [{"input_id": input_id}]}))
        assert (submit.status, submit.code) == (404, "JOB_INPUT_NOT_FOUND")


@pytest.mark.parametrize("reference", [{}, {"input": "inp_x"}, {"input_id": ""}, ""])
async def test_input_without_an_id(clean: Workspace, reference: Any) -> None:
    for field in ("input_files", "script_files"):
        submit = await clean.api.post("/v1/jobs", draft(**{field: [reference]}))
        assert (submit.status, submit.code) == (400, "INVALID_REQUEST")
        assert submit.message.startswith(f"{field}[0].input_id: ")


async def test_input_of_another_workspace_is_unknown(theirs: Workspace, clean: Workspace) -> None:
    slot, done = await upload(theirs.api, "secret.txt", b"secret")
    assert done.status == 200
    path = f"/v1/job-inputs/{slot['input_id']}/complete"
    refused = await clean.api.post(path, {"token": slot["token"]})
    assert (refused.status, refused.code) == (404, "JOB_INPUT_NOT_FOUND")
    submit = await clean.api.post("/v1/jobs", draft(input_files=[slot["input_id"]]))
    assert (submit.status, submit.code) == (404, "JOB_INPUT_NOT_FOUND")
    listing = await clean.api.get("/v1/job-inputs")
    assert listing.body["inputs"] == []


@pytest.mark.parametrize(
    "params", [{"cursor": "tampered"}, {"limit": "0"}, {"limit": "101"}, {"limit": "x"}]
)
async def test_bad_page(clean: Workspace, params: dict[str, str]) -> None:
    refused = await clean.api.get("/v1/job-inputs", **params)
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")


async def test_cursor_of_another_workspace(theirs: Workspace, clean: Workspace) -> None:
    for number in range(2):
        await theirs.api.post("/v1/job-inputs", {"filename": f"{number}.txt"})
    page = await theirs.api.get("/v1/job-inputs", limit=1)
    refused = await clean.api.get("/v1/job-inputs", cursor=page.body["next_cursor"])
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")


async def test_inputs_that_cannot_be_mounted_together(ours: Workspace) -> None:
    first, _ = await upload(ours.api, "same.txt", b"1")
    second, _ = await upload(ours.api, "same.txt", b"2")
    both = [{"input_id": first["input_id"]}, {"input_id": second["input_id"]}]
    refused = await ours.api.post("/v1/jobs", draft(input_files=both))
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")
    assert "/workspace/inputs/same.txt" in refused.message
    script, _ = await upload(ours.api, "a.py", b"1", kind="script")
    other, _ = await upload(ours.api, "b.py", b"2", kind="script")
    scripts = [{"input_id": script["input_id"]}, {"input_id": other["input_id"]}]
    refused = await ours.api.post("/v1/jobs", draft(script_files=scripts))
    assert (refused.status, refused.code) == (400, "INVALID_REQUEST")
