"""The door for calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from junglegrid.common.v1.event_pb2 import RepublishResponse
from junglegrid.scheduling.v1 import scheduling_service_pb2 as pb
from junglegrid.scheduling.v1 import scheduling_service_pb2_grpc as pb_grpc

from libs.clock import Clock
from libs.tenancy import Tenant
from services.scheduling import convert
from services.scheduling.service import SchedulingService

Republish = Callable[[datetime], Awaitable[int]]


class SchedulingInternalServicer(pb_grpc.SchedulingInternalServiceServicer):
    """Scheduling for the other services."""

    def __init__(self, service: SchedulingService, clock: Clock, republish: Republish) -> None:
        self._service = service
        self._clock = clock
        self._republish = republish

    async def Quote(self, request: pb.QuoteRequest, context: Any) -> pb.QuoteResponse:
        shape = convert.shape(request.resources, request.constraints)
        found = await self._service.quote(shape, max(request.tasks, 1))
        return convert.to_quote(found, self._clock.now())

    async def ExplainQueueEntry(
        self, request: pb.ExplainQueueEntryRequest, context: Any
    ) -> pb.ExplainQueueEntryResponse:
        tenant = Tenant(request.workspace_id)
        return convert.to_waiting(await self._service.explain_queue_entry(tenant, request.job_id))

    async def RepublishPlacements(
        self, request: pb.RepublishPlacementsRequest, context: Any
    ) -> pb.RepublishPlacementsResponse:
        records = await self._republish(convert.since(request))
        return pb.RepublishPlacementsResponse(result=RepublishResponse(records=records))
