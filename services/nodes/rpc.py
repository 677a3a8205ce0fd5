"""The door for calls: daemons on the node listener, services and operators on the internal one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from junglegrid.nodes.v1 import (
    metrics_ingest_service_pb2_grpc,
    node_internal_service_pb2,
    node_internal_service_pb2_grpc,
    node_session_service_pb2,
    node_session_service_pb2_grpc,
    node_tunnel_service_pb2_grpc,
)

from libs.errors import InvalidRequest, PermissionDenied, Unimplemented
from libs.rpc.context import principal
from services.nodes import convert
from services.nodes.config import NodesConfig
from services.nodes.service import NodesService
from services.nodes.session import NodeSession

pb = node_session_service_pb2
internal = node_internal_service_pb2
Republish = Callable[[datetime], Awaitable[int]]


def caller() -> str:
    """The node id of the verified caller."""
    found = principal()
    if found.kind != "node":
        raise PermissionDenied("this call is for nodes")
    return found.subject


class NodeSessionService(node_session_service_pb2_grpc.NodeSessionServiceServicer):
    """Nodes for node daemons."""

    def __init__(self, service: NodesService, config: NodesConfig) -> None:
        self._service = service
        self._config = config

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> pb.EnrolResponse:
        enrolled = await self._service.enrolment.enrol(
            request.enrolment_token,
            convert.word(request.name),
            convert.region(request.region),
            convert.inventory(request.inventory),
        )
        return pb.EnrolResponse(node_id=enrolled.node_id, credential=enrolled.credential)

    async def Sync(
        self, request_iterator: AsyncIterator[pb.SyncRequest], context: Any
    ) -> AsyncIterator[pb.SyncResponse]:
        node_id = caller()
        first = await anext(request_iterator, None)
        if first is None or not first.HasField("hello"):
            raise InvalidRequest("the first message of a stream must have hello")
        report = convert.node_report(first, self._config.leases_per_report_max)
        session = await self._service.streams.open_session(node_id, convert.hello(first), report)
        reader = asyncio.create_task(self._read(session, first, request_iterator))
        try:
            while (out := await self._service.streams.next_reply(session)) is not None:
                yield convert.to_sync_response(out, node_id, session.epoch, self._config)
                if out.reply.fenced:
                    break
        finally:
            reader.cancel()
            self._service.streams.close_session(session)

    async def StartClaim(
        self, request: pb.StartClaimRequest, context: Any
    ) -> pb.StartClaimResponse:
        claim = await self._service.claims.start_claim(
            caller(), request.session_epoch, request.lease_id, request.attempt
        )
        return convert.to_claim(claim)

    async def Complete(self, request: pb.CompleteRequest, context: Any) -> pb.CompleteResponse:
        accepted = await self._service.claims.complete(
            caller(),
            request.session_epoch,
            request.lease_id,
            request.attempt,
            convert.closing(request),
        )
        return pb.CompleteResponse(accepted=accepted)

    async def _read(
        self, session: NodeSession, first: pb.SyncRequest, requests: AsyncIterator[pb.SyncRequest]
    ) -> None:
        limit = self._config.leases_per_report_max
        try:
            await self._service.streams.record(session, convert.node_report(first, limit))
            async for request in requests:
                await self._service.streams.record(session, convert.node_report(request, limit))
        except Exception as error:  # the writer raises it, so that the stream ends with it
            session.end(error)
        else:
            session.end()


class NodeInternalService(node_internal_service_pb2_grpc.NodeInternalServiceServicer):
    """Nodes for the other services and for operators."""

    def __init__(self, service: NodesService, republish: Republish) -> None:
        self._service = service
        self._republish = republish

    async def CreateEnrolmentToken(
        self, request: internal.CreateEnrolmentTokenRequest, context: Any
    ) -> internal.CreateEnrolmentTokenResponse:
        draft = convert.token_draft(request)
        token, end = await self._service.enrolment.create_enrolment_token(draft)
        stamp = Timestamp()
        stamp.FromDatetime(end)
        return internal.CreateEnrolmentTokenResponse(enrolment_token=token, expire_time=stamp)

    async def ListNodes(
        self, request: internal.ListNodesRequest, context: Any
    ) -> internal.ListNodesResponse:
        page, following = await self._service.operations.list_nodes(
            request.provider_id, request.page_token, request.page_size
        )
        summaries = [convert.to_summary(node, held) for node, held in page]
        return internal.ListNodesResponse(nodes=summaries, next_page_token=following)

    async def RevokeNode(
        self, request: internal.RevokeNodeRequest, context: Any
    ) -> internal.RevokeNodeResponse:
        await self._service.operations.revoke_node(request.node_id)
        return internal.RevokeNodeResponse()

    async def DrainNode(
        self, request: internal.DrainNodeRequest, context: Any
    ) -> internal.DrainNodeResponse:
        state = await self._service.operations.drain_node(
            request.node_id, draining=request.draining
        )
        return internal.DrainNodeResponse(state=convert.to_state(state))

    async def ForwardWake(
        self, request: internal.ForwardWakeRequest, context: Any
    ) -> internal.ForwardWakeResponse:
        delivered = self._service.operations.forward_wake(request.node_id)
        return internal.ForwardWakeResponse(delivered=delivered)

    async def RepublishNodes(
        self, request: internal.RepublishNodesRequest, context: Any
    ) -> internal.RepublishNodesResponse:
        count = await self._republish(request.range.since_time.ToDatetime(tzinfo=UTC))
        response = internal.RepublishNodesResponse()
        response.result.records = count
        return response


class MetricsIngestService(metrics_ingest_service_pb2_grpc.MetricsIngestServiceServicer):
    """Declared, not served yet."""

    def AppendMetrics(self, request_iterator: Any, context: Any) -> Any:
        raise Unimplemented("node metrics are not taken yet")


class NodeTunnelService(node_tunnel_service_pb2_grpc.NodeTunnelServiceServicer):
    """Declared, not served yet."""

    def Tunnel(self, request_iterator: Any, context: Any) -> Any:
        raise Unimplemented("tunnels into jobs are not offered yet")
