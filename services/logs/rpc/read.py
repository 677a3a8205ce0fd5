"""Reads: for people through the gateway, and for the other services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from junglegrid.logs.v1 import log_internal_service_pb2 as internal_pb
from junglegrid.logs.v1 import log_internal_service_pb2_grpc as internal_grpc
from junglegrid.logs.v1 import log_service_pb2 as pb
from junglegrid.logs.v1 import log_service_pb2_grpc as pb_grpc

from libs.rpc import context
from libs.tenancy import Tenant
from services.logs import convert
from services.logs.config import LogsConfig
from services.logs.service import LogsService


class LogService(pb_grpc.LogServiceServicer):
    """Logs of jobs for people and their programs."""

    def __init__(self, service: LogsService, config: LogsConfig) -> None:
        self._service = service
        self._config = config

    async def ListLogs(self, request: pb.ListLogsRequest, _: Any) -> pb.ListLogsResponse:
        only = convert.stream_from_text(request.stream)
        cursor = convert.cursor_from_text(request.cursor)
        tenant, job_id = context.tenant(), request.job_id
        if request.HasField("tail"):
            page = await self._service.tail_logs(tenant, job_id, request.tail, only)
        else:
            limit = request.limit or self._config.page_entries_default
            page = await self._service.list_logs(tenant, job_id, cursor, limit, only)
        return convert.page_to_proto(page, cursor)

    async def StreamLogs(
        self, request: pb.StreamLogsRequest, _: Any
    ) -> AsyncIterator[pb.StreamLogsResponse]:
        only = convert.stream_from_text(request.stream)
        cursor = convert.cursor_from_text(request.last_event_id or request.cursor)
        async for update in self._service.follow(context.tenant(), request.job_id, cursor, only):
            yield convert.update_to_proto(request.job_id, update)


class LogInternalService(internal_grpc.LogInternalServiceServicer):
    """Logs for the other services."""

    def __init__(self, service: LogsService) -> None:
        self._service = service

    async def GetLogTails(
        self, request: internal_pb.GetLogTailsRequest, _: Any
    ) -> internal_pb.GetLogTailsResponse:
        tenant = Tenant(request.workspace_id)
        found = await self._service.get_log_tails(
            tenant, request.job_id, request.lines, request.bytes
        )
        return convert.tails_to_proto(*found)
