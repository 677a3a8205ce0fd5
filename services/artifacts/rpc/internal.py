"""For the other services."""

from __future__ import annotations

from typing import Any

from junglegrid.artifacts.v1 import artifact_internal_service_pb2 as pb
from junglegrid.artifacts.v1 import artifact_internal_service_pb2_grpc as pb_grpc

from libs.tenancy import Tenant
from services.artifacts import convert
from services.artifacts.service import Inputs


class ArtifactInternalService(pb_grpc.ArtifactInternalServiceServicer):
    """Inputs for jobs and for launches."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    async def ResolveInputs(
        self, request: pb.ResolveInputsRequest, _: Any
    ) -> pb.ResolveInputsResponse:
        tenant = Tenant(request.workspace_id)
        found = await self._inputs.resolve_inputs(tenant, request.input_ids, request.script_ids)
        return convert.mounts_to_proto(found)

    async def GrantInputs(self, request: pb.GrantInputsRequest, _: Any) -> pb.GrantInputsResponse:
        granted = await self._inputs.grant_inputs(Tenant(request.workspace_id), request.input_ids)
        return pb.GrantInputsResponse(
            mounts=[convert.mount_to_proto(grant.mount, grant.url) for grant in granted]
        )
