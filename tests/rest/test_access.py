"""Who may call what: every route by every scope, and keys that open nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.rest.conftest import SCOPES, Site, Workspace
from tests.rest.drafts import draft
from tests.rest.shapes import ERROR, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")

JOB = "job_01ARZ3NDEKTSV4RRFFQ69G5FAV"
ARTIFACT = "art_01ARZ3NDEKTSV4RRFFQ69G5FAV"
INPUT = "inp_01ARZ3NDEKTSV4RRFFQ69G5FAV"
# As the contracts have them (000 section 02 and 03, 001 section 02, notes 4).
ROUTES = [
    ("POST", "/v1/jobs/estimate", {"jobs:estimate", "jobs:read", "jobs:write"}),
    ("POST", "/v1/jobs", {"jobs:submit", "jobs:write"}),
    ("GET", "/v1/jobs", {"jobs:read"}),
    ("GET", f"/v1/jobs/{JOB}", {"jobs:read", "jobs:write"}),
    ("GET", f"/v1/jobs/{JOB}/runtime", {"jobs:read", "jobs:write"}),
    ("GET", f"/v1/jobs/{JOB}/events", {"jobs:read", "jobs:write"}),
    ("GET", f"/v1/jobs/{JOB}/logs", {"logs:read", "jobs:read", "jobs:write"}),
    ("GET", f"/v1/jobs/{JOB}/logs/live", {"logs:read", "jobs:read", "jobs:write"}),
    ("POST", f"/v1/jobs/{JOB}/cancel", {"jobs:submit", "jobs:write"}),
    ("GET", f"/v1/jobs/{JOB}/artifacts", {"jobs:read", "jobs:write"}),
    ("POST", f"/v1/jobs/{JOB}/artifacts/{ARTIFACT}/download", {"jobs:read", "jobs:write"}),
    ("POST", "/v1/job-inputs", {"jobs:submit", "jobs:write"}),
    ("POST", f"/v1/job-inputs/{INPUT}/complete", {"jobs:submit", "jobs:write"}),
    ("GET", "/v1/job-inputs", {"jobs:read", "jobs:write"}),
]
# Opens what is asked for, with a body that is refused for another reason than the scope.
BODIES = {"/v1/jobs": draft(workload_type="mining"), "/v1/job-inputs": {"filename": ""}}


@pytest.mark.parametrize("scope", SCOPES)
async def test_each_scope_opens_its_routes_and_no_other(clean: Workspace, scope: str) -> None:
    api, _ = await clean.with_scopes(scope)
    for method, path, scopes in ROUTES:
        body = BODIES.get(path, {}) if method == "POST" else None
        answer = await api.send(method, path, body)
        if scope in scopes:
            assert answer.status not in (401, 403), f"{method} {path}: {answer.body}"
            continue
        assert (answer.status, answer.code) == (403, "FORBIDDEN"), f"{method} {path}"
        assert problems(answer.body, ERROR) == []
        assert answer.body["error"]["details"]["required_scopes"] == sorted(scopes)


@pytest.mark.parametrize(("method", "path"), [row[:2] for row in ROUTES])
async def test_no_route_opens_without_a_key(clean: Workspace, method: str, path: str) -> None:
    keys = {
        "none": "",
        "not a key": "secret",
        "mistyped": clean.api.key[:-1] + ("A" if clean.api.key[-1] != "A" else "B"),
        "cut": clean.api.key[:-3],
        "other prefix": "sk_" + clean.api.key[3:],
    }
    for kind, key in keys.items():
        answer = await clean.api.with_key(key).send(method, path)
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED"), kind
        assert problems(answer.body, ERROR) == []
        assert "Bearer" in answer.headers["WWW-Authenticate"]
        assert not key or key.encode() not in answer.data


async def test_revoked_key_dies_within_five_seconds(site: Site, clean: Workspace) -> None:
    api, key_id = await clean.with_scopes("jobs:read")
    assert (await api.get("/v1/jobs")).status == 200
    await site.revoke(clean.workspace_id, key_id)
    async with asyncio.timeout(5):
        # Nothing outside of the gateway tells when it has heard of the revocation.
        while (answer := await api.get("/v1/jobs")).status == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")


async def test_key_revoked_before_its_first_use(site: Site, clean: Workspace) -> None:
    api, key_id = await clean.with_scopes("jobs:submit")
    await site.revoke(clean.workspace_id, key_id)
    refused = await api.post("/v1/jobs", draft())
    assert (refused.status, refused.code) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "token"])
async def test_key_in_the_url_is_refused(clean: Workspace, name: str) -> None:
    answer = await clean.api.with_key("").get("/v1/jobs", **{name: clean.api.key})
    assert answer.status in (400, 401)
    assert clean.api.key.encode() not in answer.data
