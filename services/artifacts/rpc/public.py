"""For people and their programs, through the gateway."""

from __future__ import annotations

from typing import Any

from junglegrid.artifacts.v1 import artifact_service_pb2 as artifact_pb
from junglegrid.artifacts.v1 import artifact_service_pb2_grpc as artifact_grpc
from junglegrid.artifacts.v1 import input_service_pb2 as input_pb
from junglegrid.artifacts.v1 import input_service_pb2_grpc as input_grpc

from libs.rpc import context
from services.artifacts import convert
from services.artifacts.service import Downloads, Inputs, InputSlots


class InputService(input_grpc.InputServiceServicer):
    """Inputs and scripts that people upload before they submit."""

    def __init__(self, slots: InputSlots, inputs: Inputs, cursors: convert.Cursors) -> None:
        self._slots = slots
        self._inputs = inputs
        self._cursors = cursors

    async def CreateJobInput(
        self, request: input_pb.CreateJobInputRequest, _: Any
    ) -> input_pb.CreateJobInputResponse:
        size = request.size_bytes if request.HasField("size_bytes") else None
        slot = await self._slots.create_job_input(
            context.tenant(), request.filename, request.content_type, request.kind, size
        )
        return convert.slot_to_proto(slot.item, slot.token, slot.request, slot.complete_url)

    async def CompleteJobInput(
        self, request: input_pb.CompleteJobInputRequest, _: Any
    ) -> input_pb.CompleteJobInputResponse:
        item = await self._slots.complete_job_input(
            context.tenant(), request.input_id, convert.claim(request)
        )
        return input_pb.CompleteJobInputResponse(input=convert.input_to_proto(item))

    async def ListJobInputs(
        self, request: input_pb.ListJobInputsRequest, _: Any
    ) -> input_pb.ListJobInputsResponse:
        tenant = context.tenant()
        before = self._cursors.from_text(tenant, request.cursor)
        page = await self._inputs.list_job_inputs(tenant, before, request.limit)
        cursor = self._cursors.to_text(tenant, page.after) if page.after else ""
        return convert.page_to_proto(page.items, cursor)


class ArtifactService(artifact_grpc.ArtifactServiceServicer):
    """Output files of jobs."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads

    async def ListArtifacts(
        self, request: artifact_pb.ListArtifactsRequest, _: Any
    ) -> artifact_pb.ListArtifactsResponse:
        found = await self._downloads.list_artifacts(context.tenant(), request.job_id)
        return convert.artifacts_to_proto(found)

    async def CreateDownload(
        self, request: artifact_pb.CreateDownloadRequest, _: Any
    ) -> artifact_pb.CreateDownloadResponse:
        made = await self._downloads.create_download(
            context.tenant(), request.job_id, request.artifact_id
        )
        return convert.download_to_proto(made.artifact, made.url, made.expire_time)
