"""Other services, as artifacts asks them."""

from __future__ import annotations

import grpc.aio
from junglegrid.jobs.v1 import job_internal_service_pb2 as pb
from junglegrid.jobs.v1 import job_internal_service_pb2_grpc as stubs

from libs.tenancy import Tenant
from services.artifacts.service import JobRef


class JobsClient:
    """The jobs service over its stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = stubs.JobInternalServiceStub(channel)

    async def get_ref(self, tenant: Tenant, job_id: str) -> JobRef:
        """Raises NotFound for an unknown job and for another workspace's."""
        request = pb.GetJobRefRequest(job_id=job_id, workspace_id=tenant.workspace_id)
        reply = await self._stub.GetJobRef(request)
        return JobRef(reply.attempt)
