"""The append stream of one daemon."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from junglegrid.logs.v1 import log_ingest_service_pb2 as pb
from junglegrid.logs.v1 import log_ingest_service_pb2_grpc as pb_grpc

from libs.clock import Clock
from libs.errors import PermissionDenied
from libs.rpc import AttemptGrant, Grants, context
from services.logs import convert
from services.logs.config import LogsConfig
from services.logs.service import Intake, LogsService

# Requests that gather while a commit is under way; what fills it is back-pressure on the daemon.
_GATHERED_MAX = 64
_GRANTS_MAX = 4_096
_GRANT_INVALID = "GRANT_INVALID"


class LogIngestService(pb_grpc.LogIngestServiceServicer):
    """Log lines from node daemons."""

    def __init__(
        self, service: LogsService, grants: Grants, clock: Clock, config: LogsConfig
    ) -> None:
        self._service = service
        self._grants = grants
        self._clock = clock
        self._config = config

    async def AppendLogs(
        self, request_iterator: AsyncIterator[pb.AppendLogsRequest], _: Any
    ) -> AsyncIterator[pb.AppendLogsResponse]:
        node_id = context.principal().subject
        stream = _Stream(node_id, self._service, self._grants, self._clock, self._config)
        async for response in stream.run(request_iterator):
            yield response


class _Stream:
    """While one commit is under way the next requests gather, and then share a commit."""

    def __init__(
        self,
        node_id: str,
        service: LogsService,
        grants: Grants,
        clock: Clock,
        config: LogsConfig,
    ) -> None:
        self._node_id = node_id
        self._service = service
        self._grants = grants
        self._clock = clock
        self._config = config
        self._known: OrderedDict[str, AttemptGrant] = OrderedDict()

    async def run(
        self, requests: AsyncIterator[pb.AppendLogsRequest]
    ) -> AsyncIterator[pb.AppendLogsResponse]:
        """Acknowledgements, in the order of the requests."""
        queue: asyncio.Queue[pb.AppendLogsRequest | None] = asyncio.Queue(_GATHERED_MAX)
        reader = asyncio.create_task(_read(requests, queue))
        try:
            more = True
            while more:
                gathered, more = await _gather(queue)
                for response in await self._store(gathered):
                    yield response
            await reader
        finally:
            reader.cancel()

    async def _store(self, gathered: Sequence[pb.AppendLogsRequest]) -> list[pb.AppendLogsResponse]:
        grants = [self._grant(request) for request in gathered]
        intakes = [
            self._intake(request, grant)
            for request, grant in zip(gathered, grants, strict=True)
            if grant is not None
        ]
        outcomes = iter(await self._service.append(intakes) if intakes else ())
        now = self._clock.now()
        return [
            convert.refused_to_proto(request.lease_id, _GRANT_INVALID)
            if grant is None
            else convert.accepted_to_proto(request.lease_id, next(outcomes), now)
            for request, grant in zip(gathered, grants, strict=True)
        ]

    def _grant(self, request: pb.AppendLogsRequest) -> AttemptGrant | None:
        """The right that covers this request: its own or the one shown before, if still good and
        made for this lease and this node."""
        if request.attempt_grant:
            try:
                shown = self._grants.verify(request.attempt_grant)
            except PermissionDenied:
                return None
            if shown.lease_id != request.lease_id or shown.node_id != self._node_id:
                return None
            self._known[request.lease_id] = shown
            if len(self._known) > _GRANTS_MAX:
                self._known.popitem(last=False)
        grant = self._known.get(request.lease_id)
        if grant is None or grant.expires <= self._clock.now().timestamp():
            return None
        return grant

    def _intake(self, request: pb.AppendLogsRequest, grant: AttemptGrant) -> Intake:
        batch = convert.batch_from_proto(request, grant.attempt, grant.task_index, self._config)
        return Intake(grant.workspace_id, grant.job_id, batch)


async def _read(
    requests: AsyncIterator[pb.AppendLogsRequest],
    queue: asyncio.Queue[pb.AppendLogsRequest | None],
) -> None:
    try:
        async for request in requests:
            await queue.put(request)
    finally:
        await queue.put(None)


async def _gather(
    queue: asyncio.Queue[pb.AppendLogsRequest | None],
) -> tuple[list[pb.AppendLogsRequest], bool]:
    """At least one request and all that wait behind it; False when the stream has ended."""
    gathered = []
    item = await queue.get()
    while item is not None:
        gathered.append(item)
        if queue.empty() or len(gathered) == _GATHERED_MAX:
            return gathered, True
        item = queue.get_nowait()
    return gathered, False
