"""/v1/jobs/{job_id}/artifacts: list, download, and the signed URLs themselves."""

from __future__ import annotations

import hashlib
import time
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
import pytest_asyncio
from junglegrid.artifacts.v1 import artifact_upload_service_pb2 as upload_pb
from junglegrid.artifacts.v1 import artifact_upload_service_pb2_grpc as upload_grpc

from deploy.home import load_secrets
from libs.objects.signature import Grant, UrlSigner
from libs.rpc import AttemptGrant, Grants, Principal, Signer, as_bearer, connect
from libs.rpc.authenticate import SESSION_PREFIX
from libs.rpc.principal import NODE_DATA
from libs.rpc.token import to_text
from tests.rest.conftest import Site, Workspace
from tests.rest.drafts import draft, finished, simulated, submit
from tests.rest.shapes import ARTIFACT, DOWNLOAD, ERROR, list_of, problems

pytestmark = pytest.mark.asyncio(loop_scope="session")

UNKNOWN_JOB = "job_01ARZ3NDEKTSV4RRFFQ69G5FAV"
UNKNOWN_ARTIFACT = "art_01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def job_id(ours: Workspace) -> str:
    """A job that has left transcript.txt."""
    made = await submit(ours.api, simulated("artifact=transcript.txt:done;exit=0"))
    job = await finished(ours.api, made)
    assert (job["status"], job["artifacts_ready"]) == ("completed", True)
    return made


async def download_url(ours: Workspace, job_id: str) -> str:
    listing = await ours.api.get(f"/v1/jobs/{job_id}/artifacts")
    [artifact] = listing.body["artifacts"]
    made = await ours.api.post(f"/v1/jobs/{job_id}/artifacts/{artifact['artifact_id']}/download")
    return str(made.body["url"])


async def test_list_and_download(ours: Workspace, job_id: str) -> None:
    listing = await ours.api.get(f"/v1/jobs/{job_id}/artifacts")
    assert listing.status == 200
    assert problems(listing.body, {"artifacts": list_of(ARTIFACT, 1)}) == []
    [artifact] = listing.body["artifacts"]
    assert artifact["filename"] == "transcript.txt"
    assert artifact["content_type"] == "text/plain"
    assert (artifact["status"], artifact["ready"], artifact["size_bytes"]) == ("ready", True, 4)
    assert artifact["sha256"] == hashlib.sha256(b"done").hexdigest()
    made = await ours.api.post(f"/v1/jobs/{job_id}/artifacts/{artifact['artifact_id']}/download")
    assert made.status == 200
    assert problems(made.body, DOWNLOAD) == []
    assert made.body["artifact"] == artifact
    got = await ours.api.get_url(made.body["url"])
    assert (got.status, got.data) == (200, b"done")
    assert got.headers["Content-Disposition"].startswith("attachment")
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Content-Type"].startswith("text/plain")


async def test_list_answers_at_once(ours: Workspace) -> None:
    made = await submit(ours.api, draft())
    listing = await ours.api.get(f"/v1/jobs/{made}/artifacts")
    assert (listing.status, listing.body) == (200, {"artifacts": []})


@pytest.mark.parametrize("changed", ["signature", "key", "expiry", "filename", "method", "none"])
async def test_tampered_url(ours: Workspace, job_id: str, changed: str) -> None:
    url = await download_url(ours, job_id)
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    path = parts.path
    if changed == "signature":
        query["s"] = query["s"][:-2] + ("AA" if query["s"][-2:] != "AA" else "BB")
    elif changed == "key":
        path = path[:-4] + "0000"
    elif changed == "expiry":
        query["e"] = str(int(query["e"]) + 3600)
    elif changed == "filename":
        query["f"] = "evil.exe"
    elif changed == "none":
        query = {}
    bad = urlunsplit(parts._replace(path=path, query=urlencode(query)))
    if changed == "method":
        refused = await ours.api.put_url(bad, b"forged", {})
    else:
        refused = await ours.api.get_url(bad)
    assert (refused.status, refused.code) == (403, "SIGNATURE_INVALID")
    assert problems(refused.body, ERROR) == []
    assert (await ours.api.get_url(url)).data == b"done"


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_expired_url(site: Site, clean: Workspace, method: str) -> None:
    key = f"staging/input.{clean.workspace_id}.inp_01ARZ3NDEKTSV4RRFFQ69G5FAV"
    signer = UrlSigner(load_secrets(site.whole.grid.home).objects)
    query = signer.query(Grant(method, key, expires=1_700_000_000, size_max=10))
    url = f"{clean.api.base}/objects/{key}?{query}"
    if method == "PUT":
        refused = await clean.api.put_url(url, b"x", {})
    else:
        refused = await clean.api.get_url(url)
    assert (refused.status, refused.code) == (403, "SIGNATURE_EXPIRED")
    assert "ask for a new one" in refused.message


async def announce(site: Site, workspace_id: str, job_id: str, filename: str) -> str:
    """What a node does before it sends a file: the artifact's id."""
    keys = load_secrets(site.whole.grid.home)
    lease = AttemptGrant(workspace_id, job_id, 1, 0, "lease", "node", 1, time.time() + 60)
    session = Signer(keys.principal, audience=NODE_DATA).sign(Principal("node", "node"))
    source = as_bearer(lambda: SESSION_PREFIX + to_text(session))
    async with connect(site.whole.grid.node_address, principal_source=source) as channel:
        made = await upload_grpc.ArtifactUploadServiceStub(channel).CreateUpload(
            upload_pb.CreateUploadRequest(
                attempt_grant=Grants(keys.grant).sign(lease),
                filename=filename,
                size_bytes=4,
                sha256=hashlib.sha256(b"done").hexdigest(),
            )
        )
    return made.artifact_id


async def test_artifact_that_is_not_ready(site: Site, ours: Workspace) -> None:
    job_id = await submit(ours.api, simulated("stdout=begun;hang"))
    async for event in ours.api.stream(f"/v1/jobs/{job_id}/logs/live"):
        if event["event"] == "log":
            break
    artifact_id = await announce(site, ours.workspace_id, job_id, "late.txt")
    listing = await ours.api.get(f"/v1/jobs/{job_id}/artifacts")
    [artifact] = listing.body["artifacts"]
    assert problems(artifact, ARTIFACT) == []
    assert (artifact["status"], artifact["ready"], artifact["uploaded_at"]) == (
        "pending",
        False,
        None,
    )
    path = f"/v1/jobs/{job_id}/artifacts/{artifact_id}/download"
    refused = await ours.api.post(path)
    assert (refused.status, refused.code) == (409, "ARTIFACT_NOT_READY")
    assert refused.headers["Retry-After"]
    assert (await ours.api.post(f"/v1/jobs/{job_id}/cancel")).status == 200
    await finished(ours.api, job_id)
    failed = await ours.api.post(path)
    assert (failed.status, failed.code) == (409, "ARTIFACT_NOT_READY")


async def test_unknown_job_and_artifact(clean: Workspace) -> None:
    listing = await clean.api.get(f"/v1/jobs/{UNKNOWN_JOB}/artifacts")
    assert (listing.status, listing.code) == (404, "NOT_FOUND")
    made = await clean.api.post(f"/v1/jobs/{UNKNOWN_JOB}/artifacts/{UNKNOWN_ARTIFACT}/download")
    assert (made.status, made.code) == (404, "NOT_FOUND")


async def test_unknown_artifact_of_a_known_job(ours: Workspace, job_id: str) -> None:
    for artifact_id in (UNKNOWN_ARTIFACT, "art_x", "..%2F..%2Fetc"):
        made = await ours.api.post(f"/v1/jobs/{job_id}/artifacts/{artifact_id}/download")
        assert (made.status, made.code) == (404, "NOT_FOUND")


async def test_artifacts_of_another_workspace_are_unknown(
    ours: Workspace, clean: Workspace, job_id: str
) -> None:
    listing = await ours.api.get(f"/v1/jobs/{job_id}/artifacts")
    [artifact] = listing.body["artifacts"]
    foreign = await clean.api.get(f"/v1/jobs/{job_id}/artifacts")
    assert (foreign.status, foreign.code) == (404, "NOT_FOUND")
    path = f"/v1/jobs/{job_id}/artifacts/{artifact['artifact_id']}/download"
    refused = await clean.api.post(path)
    assert (refused.status, refused.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/workspace/inputs/x",
        "../outside.txt",
        "/workspace/artifacts/../x",
        "/workspace/artifacts",
        "",
        "a\u0000b",
        "x" * 2000,
    ],
)
async def test_expected_artifact_outside_is_refused(clean: Workspace, path: str) -> None:
    refused = await clean.api.post("/v1/jobs", draft(expected_artifacts=[path]))
    assert (refused.status, refused.code) == (400, "INVALID_EXPECTED_ARTIFACT")
    assert "/workspace/artifacts" in refused.message
