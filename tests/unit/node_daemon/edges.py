"""What stands around the nodes service in a small grid: jobs, logs and artifacts that remember."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from junglegrid.artifacts.v1 import artifact_upload_service_pb2 as upload_pb
from junglegrid.artifacts.v1 import artifact_upload_service_pb2_grpc as upload_grpc
from junglegrid.jobs.v1 import launch_pb2
from junglegrid.logs.v1 import log_ingest_service_pb2 as log_pb
from junglegrid.logs.v1 import log_ingest_service_pb2_grpc as log_grpc

from libs.errors import PermissionDenied
from libs.rpc import Grants, context
from services.nodes.domain import Lease


@dataclass
class FakeJobs:
    """jobs: one launch for all, with what a test changes in it."""

    script: str = ""
    inputs: list[launch_pb2.InputMount] = field(default_factory=list)
    expected: tuple[str, ...] = ()
    error: Callable[[], Exception] | None = None
    asked: int = 0

    async def get_launch(self, lease: Lease) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error()
        return launch_pb2.LaunchSpec(
            workspace_id=lease.workspace_id,
            image="python:3.11",
            command="true",
            environment={"JUNGLEGRID_SIMULATE": self.script},
            inputs=self.inputs,
            expected_artifacts=self.expected,
            log_bytes_max=16 << 20,
        )


class FakeLogs(log_grpc.LogIngestServiceServicer):
    """Keeps lines by lease and stream. `breaks` ends that many streams after a batch was stored and
    before it is acknowledged; `refuse` is said to every batch."""

    def __init__(self, grants: Grants) -> None:
        self.lines: dict[str, dict[int, list[bytes]]] = {}
        self.ends: dict[str, dict[int, int]] = {}
        self.gaps: set[str] = set()
        self.repeats = 0
        self.breaks = 0
        self.refuse = ""
        self.silent = False
        self._grants = grants

    async def AppendLogs(self, request_iterator: Any, _: Any) -> AsyncIterator[Any]:
        shown: set[str] = set()
        async for request in request_iterator:
            if request.attempt_grant:
                grant = self._grants.verify(request.attempt_grant)
                assert grant.lease_id == request.lease_id
                shown.add(request.lease_id)
            if self.silent:
                continue
            refused = self.refuse or ("" if request.lease_id in shown else "GRANT_INVALID")
            if refused:
                yield log_pb.AppendLogsResponse(lease_id=request.lease_id, refused=refused)
                continue
            response = self._store(request)
            if self.breaks:
                self.breaks -= 1
                raise PermissionDenied("the stream breaks, as the test asked")
            yield response

    def text(self, lease_id: str, stream: int = 1) -> list[str]:
        found = self.lines.get(lease_id, {}).get(stream, [])
        return [line.decode() for line in found]

    def _store(self, request: log_pb.AppendLogsRequest) -> log_pb.AppendLogsResponse:
        kept = self.lines.setdefault(request.lease_id, {1: [], 2: []})
        for line in request.lines:
            have = kept[line.stream]
            if line.seq == len(have) + 1:
                have.append(line.data)
            else:
                self.repeats += 1
        ends = self.ends.setdefault(request.lease_id, {})
        ends.update({end.stream: end.last_seq for end in request.ends})
        if request.gap:
            self.gaps.add(request.lease_id)
        durable = [
            log_pb.StreamEnd(stream=stream, last_seq=len(have))  # type: ignore[arg-type]
            for stream, have in kept.items()
        ]
        complete = all(ends.get(stream, -1) == len(kept[stream]) for stream in (1, 2))
        return log_pb.AppendLogsResponse(
            lease_id=request.lease_id, durable=durable, complete=complete
        )


class FakeStore(upload_grpc.ArtifactUploadServiceServicer):
    """Artifacts and inputs over HTTP on loopback. `failures` answers that many PUTs with 503."""

    def __init__(self, grants: Grants) -> None:
        self.files: dict[str, bytes] = {}
        self.ready: dict[str, str] = {}
        self.downloads: dict[str, bytes] = {}
        self.failures = 0
        self.url = ""
        self._grants = grants
        self._announced: dict[str, upload_pb.CreateUploadRequest] = {}
        self._runner: web.AppRunner | None = None

    async def CreateUpload(
        self, request: upload_pb.CreateUploadRequest, _: Any
    ) -> upload_pb.CreateUploadResponse:
        grant = self._grants.verify(request.attempt_grant)
        assert context.principal().subject == grant.node_id
        name = f"art_{grant.lease_id}_{request.filename}"
        self._announced[name] = request
        return upload_pb.CreateUploadResponse(
            artifact_id=name, upload_url=f"{self.url}/put?name={name}", headers={"X-Signed": "1"}
        )

    async def CommitUpload(
        self, request: upload_pb.CommitUploadRequest, _: Any
    ) -> upload_pb.CommitUploadResponse:
        announced, data = self._announced[request.artifact_id], self.files[request.artifact_id]
        assert (len(data), hashlib.sha256(data).hexdigest()) == (
            announced.size_bytes,
            announced.sha256,
        )
        self.ready[announced.filename] = request.artifact_id
        return upload_pb.CommitUploadResponse(ready=True)

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([web.put("/put", self._put), web.get("/get", self._get)])
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _put(self, request: web.Request) -> web.Response:
        data = await request.read()
        if self.failures:
            self.failures -= 1
            return web.Response(status=503)
        assert request.headers["X-Signed"] == "1"
        self.files[request.query["name"]] = data
        return web.Response(status=200)

    async def _get(self, request: web.Request) -> web.Response:
        found = self.downloads.get(request.query["name"])
        return web.Response(status=404) if found is None else web.Response(body=found)
