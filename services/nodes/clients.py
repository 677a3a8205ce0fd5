"""Other services, as nodes asks them."""

from __future__ import annotations

from typing import Any

import grpc.aio
from junglegrid.jobs.v1 import job_internal_service_pb2 as pb
from junglegrid.jobs.v1 import job_internal_service_pb2_grpc as stubs

from libs.errors import Code, GridError
from services.nodes.domain import Lease
from services.nodes.errors import LaunchRefused

# The attempt is not current, the job is final, or there is no such job: none will change.
_REFUSALS = frozenset({Code.ABORTED, Code.FAILED_PRECONDITION, Code.NOT_FOUND})


class JobsClient:
    """The jobs service over its stub."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = stubs.JobInternalServiceStub(channel)

    async def get_launch(self, lease: Lease) -> Any:
        """The LaunchSpec of a lease's task; LaunchRefused when jobs does not want it to run."""
        request = pb.GetLaunchSpecRequest(
            job_id=lease.job_id,
            attempt=lease.attempt,
            lease_id=lease.lease_id,
            task_index=lease.task_index,
        )
        try:
            reply = await self._stub.GetLaunchSpec(request)
        except GridError as error:
            if error.code in _REFUSALS:
                raise LaunchRefused from error
            raise
        return reply.launch
