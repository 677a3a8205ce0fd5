"""Other services, as billing asks them."""

from __future__ import annotations

import grpc.aio
from junglegrid.jobs.v1 import job_internal_service_pb2 as pb
from junglegrid.jobs.v1 import job_internal_service_pb2_grpc as stubs

from libs.errors import NotFound
from libs.tenancy import Tenant
from services.billing.convert import job_is_final


class JobsClient:
    """The jobs service over its stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = stubs.JobInternalServiceStub(channel)

    async def lives(self, tenant: Tenant, job_id: str) -> bool:
        """The job exists and is not final. Raises GridError when jobs does not answer."""
        request = pb.GetJobRefRequest(job_id=job_id, workspace_id=tenant.workspace_id)
        try:
            reply = await self._stub.GetJobRef(request)
        except NotFound:
            return False
        return not job_is_final(reply.status)
