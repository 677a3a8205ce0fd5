"""Bodies, methods and paths that are wrong in themselves."""

from __future__ import annotations

import pytest

from tests.rest.conftest import Workspace
from tests.rest.shapes import ERROR, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")

POSTS = (
    "/v1/jobs/estimate",
    "/v1/jobs",
    "/v1/job-inputs",
    "/v1/job-inputs/inp_01ARZ3NDEKTSV4RRFFQ69G5FAV/complete",
    "/v1/jobs/job_01ARZ3NDEKTSV4RRFFQ69G5FAV/cancel",
)
BODIES = {
    "cut": b'{"name": "x"',
    "not JSON": b"name=x",
    "trailing": b'{"name": "x"} x',
    "a list": b"[]",
    "a word": b'"x"',
    "a number": b"1",
    "bad UTF-8": b'{"name": "\xff\xfe"}',
    "half a surrogate": b'{"name": "\\ud800"}',
    "NaN": b'{"name": NaN}',
    "deep": b'{"name":' * 2000 + b"1" + b"}" * 2000,
    "two keys": b'{"name": "a", "name": {}}',
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("path", POSTS)
async def test_malformed_body(clean: Workspace, path: str, kind: str) -> None:
    answer = await clean.api.send("POST", path, raw=BODIES[kind])
    if path.endswith(("complete", "cancel")) and kind == "two keys":
        assert answer.status in (400, 404)
        return
    assert (answer.status, answer.code) == (400, "INVALID_REQUEST"), answer.body
    assert problems(answer.body, ERROR) == []
    assert len(answer.message) > 10


async def test_too_large_a_body(clean: Workspace) -> None:
    answer = await clean.api.send("POST", "/v1/jobs", raw=b'{"name": "' + b"x" * 2_000_000 + b'"}')
    assert (answer.status, answer.code) == (413, "PAYLOAD_TOO_LARGE")


async def test_other_media_type(clean: Workspace) -> None:
    answer = await clean.api.send(
        "POST", "/v1/jobs", raw=b"<job/>", headers={"Content-Type": "application/xml"}
    )
    assert answer.status in (400, 415)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_method(clean: Workspace, method: str) -> None:
    answer = await clean.api.send(method, "/v1/jobs")
    assert answer.status == 405
    assert set(answer.headers["Allow"].replace(" ", "").split(",")) >= {"GET", "POST"}
    assert problems(answer.body, ERROR) == []


@pytest.mark.parametrize("path", ["/v1", "/v1/nothing", "/v2/jobs", "/v1/jobs/a/b/c/d"])
async def test_unknown_path(clean: Workspace, path: str) -> None:
    answer = await clean.api.get(path)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert problems(answer.body, ERROR) == []
