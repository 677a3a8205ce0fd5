"""For node daemons, on their own listener."""

from __future__ import annotations

from typing import Any

from junglegrid.artifacts.v1 import artifact_upload_service_pb2 as pb
from junglegrid.artifacts.v1 import artifact_upload_service_pb2_grpc as pb_grpc

from libs.errors import PermissionDenied
from libs.rpc import Grants, context
from services.artifacts import convert
from services.artifacts.domain import Writer
from services.artifacts.service import Uploads


class ArtifactUploadService(pb_grpc.ArtifactUploadServiceServicer):
    """Takes what attempts left from the nodes that ran them."""

    def __init__(self, uploads: Uploads, grants: Grants) -> None:
        self._uploads = uploads
        self._grants = grants

    async def CreateUpload(
        self, request: pb.CreateUploadRequest, _: Any
    ) -> pb.CreateUploadResponse:
        writer = self._writer(request.attempt_grant)
        made = await self._uploads.create_upload(writer, convert.announcement(request))
        return convert.upload_to_proto(made.artifact, made.request)

    async def CommitUpload(
        self, request: pb.CommitUploadRequest, _: Any
    ) -> pb.CommitUploadResponse:
        writer = self._writer(request.attempt_grant)
        artifact = await self._uploads.commit_upload(writer, request.artifact_id)
        return pb.CommitUploadResponse(ready=artifact.ready)

    def _writer(self, token: bytes) -> Writer:
        """Who the grant lets write: the node that it was made for, and no other."""
        grant = self._grants.verify(token)
        if grant.node_id != context.principal().subject:
            raise PermissionDenied("this grant was made for another node", reason="GRANT_INVALID")
        return convert.writer(grant)
