"""The description of the API has every field of the contracts, and no route without a test here."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from tests.rest.conftest import Site, Workspace
from tests.rest.drafts import submit, waiting
from tests.rest.test_access import ARTIFACT, INPUT, JOB, ROUTES
from tests.rest.traces import traces

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Served and tested elsewhere.
ELSEWHERE = {("GET", "/v1/billing/balance")}
IN_PATH = {JOB: "{job_id}", ARTIFACT: "{artifact_id}", INPUT: "{input_id}"}
# Production guide 06, REST guide 02 and 04, and what real clients send (notes, section 4).
DRAFT = {
    *("name", "image", "workload_type", "id", "template_slug", "command", "args", "environment"),
    *("input_files", "script_files", "expected_artifacts", "callback_url", "callback_auth_token"),
    *("callback_metadata", "model_size_gb", "batch_size", "precision", "optimize_for", "disk_gb"),
    *("gpu_type", "gpu_count", "gpu_class", "preferred_gpu_family", "avoid_gpu_families"),
    *("region_preference", "region_mode", "priority", "latency_priority", "cost_priority"),
    *("constraints", "callback", "metadata", "notes", "gpu_required", "min_vram_gb"),
    *("timeout_seconds", "resources", "routing", "huggingface_credential_id"),
}
BODIES = {
    "/v1/jobs": DRAFT,
    "/v1/jobs/estimate": DRAFT,
    "/v1/jobs/{job_id}/cancel": {"reason"},
    "/v1/job-inputs": {"filename", "content_type", "kind"},
    "/v1/job-inputs/{input_id}/complete": {
        *("token", "filename", "content_type", "size_bytes", "etag")
    },
}
QUERIES = {
    "/v1/jobs": {"limit", "cursor", "status"},
    "/v1/job-inputs": {"limit", "cursor"},
    "/v1/jobs/{job_id}/logs": {"tail", "limit", "cursor", "stream"},
    "/v1/jobs/{job_id}/logs/live": {"cursor", "stream"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def described(ours: Workspace) -> dict[str, Any]:
    answer = await ours.api.with_key("").get("/openapi.json")
    assert answer.status == 200
    assert answer.body["openapi"].startswith("3.1")
    found: dict[str, Any] = answer.body
    return found


def resolved(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference points at."""
    while "$ref" in schema:
        place: Any = described
        for part in schema["$ref"].removeprefix("#/").split("/"):
            place = place[part]
        schema = place
    return schema


async def test_every_route_is_in_the_table_of_scopes(described: dict[str, Any]) -> None:
    served = {
        (method.upper(), path)
        for path, methods in described["paths"].items()
        if path.startswith("/v1/")
        for method in methods
        if method in ("get", "post", "put", "patch", "delete")
    }
    tested = set(ELSEWHERE)
    for method, path, _ in ROUTES:
        for word, name in IN_PATH.items():
            path = path.replace(word, name)
        tested.add((method, path))
    assert served == tested


@pytest.mark.parametrize("path", BODIES)
async def test_every_field_of_a_body_is_known(described: dict[str, Any], path: str) -> None:
    body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    schema = resolved(described, body["schema"])
    assert BODIES[path] - set(schema["properties"]) == set()


@pytest.mark.parametrize("path", QUERIES)
async def test_every_query_parameter_is_known(described: dict[str, Any], path: str) -> None:
    parameters = described["paths"][path]["get"]["parameters"]
    found = {resolved(described, each)["name"] for each in parameters}
    assert QUERIES[path] - found == set()


async def test_an_accepted_job_leaves_traces(site: Site, ours: Workspace) -> None:
    """The comparison that other tests rest on does see rows and holds."""
    before = traces(site.whole.grid.home, ours.workspace_id)
    job_id = await submit(ours.api, waiting())
    after = traces(site.whole.grid.home, ours.workspace_id)
    grown = {name.partition("/")[0] for name in after if after[name] > before[name]}
    assert {"jobs.db", "billing.db"} <= grown
    assert (await ours.api.post(f"/v1/jobs/{job_id}/cancel")).status == 200
    slot = await ours.api.post("/v1/job-inputs", {"filename": "trace.txt"})
    await ours.api.put_url(slot.body["upload"]["upload_url"], b"x", {})
    last = traces(site.whole.grid.home, ours.workspace_id)
    assert last["artifacts.db/inputs"] == after["artifacts.db/inputs"] + 1
    assert last["files"] == after["files"] + 1
