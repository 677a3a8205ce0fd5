"""Other services, as webhooks asks them."""

from __future__ import annotations

import grpc.aio
from junglegrid.jobs.v1 import job_internal_service_pb2 as pb
from junglegrid.jobs.v1 import job_internal_service_pb2_grpc as stubs

from services.webhooks.convert import callback_facts
from services.webhooks.domain.payload import CallbackFacts


class JobsClient:
    """The jobs service over its stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = stubs.JobInternalServiceStub(channel)

    async def get_callback(self, job_id: str) -> CallbackFacts:
        """Target and facts of a final job's callback."""
        reply = await self._stub.GetCallback(pb.GetCallbackRequest(job_id=job_id))
        return callback_facts(job_id, reply)
