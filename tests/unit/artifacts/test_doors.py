"""Grants at the node's door, facts at the bus's, and signed URLs over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from junglegrid.artifacts.v1 import artifact_upload_service_pb2 as upload_pb
from junglegrid.artifacts.v1 import input_service_pb2 as input_pb
from junglegrid.common.v1.event_pb2 import EventMeta
from junglegrid.jobs.v1 import job_event_pb2 as jobs_pb
from junglegrid.nodes.v1 import node_event_pb2 as nodes_pb
from yarl import URL

from libs.db.drift import schema_drift
from libs.errors import PermissionDenied, Unauthenticated
from libs.rpc import AttemptGrant, Grants, Principal, context
from services.artifacts import tables
from services.artifacts.consumers import handlers
from services.artifacts.convert import Cursors
from services.artifacts.domain import Claim
from services.artifacts.errors import ArtifactNotFound, InvalidCursor
from services.artifacts.rpc import ArtifactUploadService, InputService
from tests.unit.artifacts.world import OURS, THEIRS, World, announced, attempt

DATA = b"result"
GRANT = AttemptGrant("ws_ours", "job_a", 1, 0, "lease_1", "node_1", 7, 4e9)
NODE = Principal("node", "node_1")


@pytest.fixture
def grants(world: World) -> Grants:
    return Grants(b"g" * 32, clock=world.clock)


@pytest.fixture
def door(world: World, grants: Grants) -> ArtifactUploadService:
    return ArtifactUploadService(world.uploads, grants)


def wanted(token: bytes, name: str = "a") -> upload_pb.CreateUploadRequest:
    file = announced(name, DATA)
    return upload_pb.CreateUploadRequest(
        attempt_grant=token,
        filename=file.filename,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
    )


async def test_node_with_its_grant(
    world: World, door: ArtifactUploadService, grants: Grants
) -> None:
    token = grants.sign(GRANT)
    with context.acting(NODE):
        made = await door.CreateUpload(wanted(token), None)
        assert made.headers == {"Content-Type": "application/octet-stream"}
        [artifact] = await world.downloads.list_artifacts(OURS, "job_a")
        await world.send(artifact, DATA)
        commit = upload_pb.CommitUploadRequest(attempt_grant=token, artifact_id=made.artifact_id)
        assert (await door.CommitUpload(commit, None)).ready
        again = await door.CreateUpload(wanted(token), None)
        assert again.ready
        assert not again.upload_url


async def test_void_grants_leave_nothing(
    world: World, door: ArtifactUploadService, grants: Grants
) -> None:
    good = grants.sign(GRANT)
    void = [
        b"",
        b"x" * 200,
        good[:-1] + bytes([good[-1] ^ 1]),
        good.replace(b"job_a", b"job_b"),
        Grants(b"h" * 32, clock=world.clock).sign(GRANT),
        grants.sign(replace(GRANT, expires=world.clock.now().timestamp())),
        grants.sign(replace(GRANT, node_id="node_2")),
    ]
    with context.acting(NODE):
        for token in void:
            commit = upload_pb.CommitUploadRequest(attempt_grant=token, artifact_id="art")
            for call in (door.CreateUpload(wanted(token), None), door.CommitUpload(commit, None)):
                with pytest.raises(PermissionDenied) as refused:
                    await call
                assert refused.value.reason in ("GRANT_INVALID", "GRANT_EXPIRED")
    with pytest.raises(Unauthenticated):
        await door.CreateUpload(wanted(good), None)
    assert await world.rows("job_heads") == []


async def test_grant_of_another_job_or_workspace_commits_nothing(
    world: World, door: ArtifactUploadService, grants: Grants
) -> None:
    with context.acting(NODE):
        made = await door.CreateUpload(wanted(grants.sign(GRANT)), None)
        for other in (
            replace(GRANT, job_id="job_b"),
            replace(GRANT, workspace_id="ws_theirs"),
            replace(GRANT, attempt=2),
            replace(GRANT, task_index=1),
        ):
            commit = upload_pb.CommitUploadRequest(
                attempt_grant=grants.sign(other), artifact_id=made.artifact_id
            )
            with pytest.raises(ArtifactNotFound):
                await door.CommitUpload(commit, None)


async def test_facts_move_the_fence(world: World) -> None:
    by_fact = handlers(world.uploads)

    async def hear(fact: Any) -> None:
        meta = EventMeta(aggregate_id="job_a", workspace_id="ws_ours")
        await world.database.write(lambda tx: by_fact[type(fact)](tx, meta, fact))

    await hear(jobs_pb.JobQueued(attempt=1))
    closed = nodes_pb.LeaseClosed()
    closed.lease.job_id, closed.lease.attempt = "job_a", 1
    await hear(closed)
    await hear(jobs_pb.JobQueued(attempt=2))
    await hear(closed)
    [head] = await world.rows("job_heads")
    assert (head.attempt, head.sealed_tasks, head.finished) == (2, [], False)
    await hear(jobs_pb.JobFinished(attempt=2, lease_open=True))
    await world.ready(attempt(2), "partial")
    await hear(jobs_pb.JobFinished(attempt=2))
    [head] = await world.rows("job_heads")
    assert (head.finished, head.sealed_attempt) == (True, 2)
    assert head.due_time is not None


async def test_cursor_of_another_workspace_is_refused(world: World) -> None:
    door = InputService(world.slots, world.inputs, Cursors(b"c" * 32))
    for _ in range(3):
        await world.slot()
    with context.acting(Principal("user", "key", OURS.workspace_id)):
        page = await door.ListJobInputs(input_pb.ListJobInputsRequest(limit=2), None)
        assert page.has_more
        rest = input_pb.ListJobInputsRequest(limit=2, cursor=page.next_cursor)
        last = await door.ListJobInputs(rest, None)
        assert (len(last.inputs), last.has_more, last.HasField("next_cursor")) == (1, False, False)
    with (
        context.acting(Principal("user", "key", THEIRS.workspace_id)),
        pytest.raises(InvalidCursor),
    ):
        await door.ListJobInputs(rest, None)


@pytest.fixture
async def http(world: World) -> AsyncIterator[TestClient[Any, Any]]:
    app = web.Application(client_max_size=1 << 20)
    for method, path, handler in world.objects.http_handlers():
        app.router.add_route(method, path, handler)
    async with TestClient(TestServer(app)) as client:
        yield client


def local(url: str) -> URL:
    """The signed URL as the test's server sees it."""
    return URL(URL(url).raw_path_qs, encoded=True)


async def test_input_over_http(world: World, http: TestClient[Any, Any]) -> None:
    slot = await world.slot(size=len(DATA))
    url = local(slot.request.url)
    assert (await http.put(url, data=DATA + b"x")).status == 413
    assert (await http.put(url, data=DATA, headers={"Content-Type": "text/x-odd"})).status == 200
    done = await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    late = await http.put(url, data=b"forged")
    assert late.status == 409
    again = await world.slots.complete_job_input(OURS, slot.item.input_id, Claim(slot.token))
    assert again.stored == done.stored
    [grant] = await world.inputs.grant_inputs(OURS, [slot.item.input_id])
    got = await http.get(local(grant.url))
    assert await got.read() == DATA


async def test_artifact_over_http(world: World, http: TestClient[Any, Any]) -> None:
    made = await world.uploads.create_upload(attempt(), announced("p/page.html", DATA))
    assert made.request is not None
    url = local(made.request.url)
    refused = await http.put(url, data=DATA, headers={"Content-Type": "text/plain"})
    assert refused.status == 403
    assert (await http.put(url, data=DATA, headers=made.request.headers)).status == 200
    await world.uploads.commit_upload(attempt(), made.artifact.artifact_id)
    download = await world.downloads.create_download(OURS, "job_a", made.artifact.artifact_id)
    got = await http.get(local(download.url))
    assert got.status == 200
    assert await got.read() == DATA
    assert got.headers["Content-Disposition"].startswith("attachment")
    assert "page.html" in got.headers["Content-Disposition"]
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    tampered = local(download.url.replace(made.artifact.artifact_id, "art_other"))
    assert (await http.get(tampered)).status == 403
    world.clock.advance(901)
    assert (await http.get(local(download.url))).status == 403


async def test_migrations_make_the_tables(world: World) -> None:
    assert await world.database.read(lambda tx: schema_drift(tx, tables.metadata)) == []
